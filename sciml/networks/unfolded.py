r"""The learned parts of an unfolded primal-dual method: a lifting, a map of the lifted variable and a filter, for every step.

Source: Adler and Oktem, IEEE Trans. Med. Imaging 37, 1322 (2018), arXiv:1707.06474, who learn both updates of the
primal-dual hybrid gradient method; here the update of the data's dual variable is the method's own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.domains.errors import InputError

__all__ = ["UnfoldedNetwork", "example", "filtered", "lifted", "lowered"]

STRIDE, KERNEL, MARGIN = 2, 6, 2  # of the lifting: each lifted point sees six points along every axis
KNOTS = (
    0.0,
    1 / 128,
    1 / 64,
    1 / 32,
    1 / 16,
    1 / 8,
    1 / 4,
    1 / 2,
    1.0,
)  # cycles per point at which a filter is learned
STEPS = (4.0, 6.0, 8.0, 8.0, 8.0, 6.0, 2.5, 0.4, 0.1)  # where training starts, in units of steps with the ramp

CONVOLVE: tuple[Callable[..., Tensor], ...] = (functional.conv1d, functional.conv2d, functional.conv3d)
TRANSPOSE: tuple[Callable[..., Tensor], ...] = (
    functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d,
)  # fmt: skip


class UnfoldedNetwork(nn.Module):
    r"""Weights of ``stages`` steps: liftings ``K_k``, maps ``N_k`` of the lifted variable to itself, filters ``M_k`` of images.

    .. math:: N_k(u) = g_k u + C_k \max(0, v + U_k w), \quad v = \max(0, B_k u), \quad w = \max(0, E_k \max(0, F_k \max(0, D_k v)))

    ``K_k`` is a convolution with stride two, ``(batch, channels, *space)`` to ``(batch, memory, *space // 2)``, that takes
    six points along every axis. ``B, C, E, F`` are convolutions over three points along every axis, with ``hidden`` channels
    between them; ``D`` halves the grid once more and ``U`` is back on the finer one; ``g`` is one number per channel. Nothing has
    a bias, so that ``N_k(s u) = s N_k(u)`` for ``s > 0``: an image in other units gives the same answer in those units. Any size
    of image is taken, from two points along every axis. ``M_k`` multiplies each frequency by a positive number that depends on
    its length alone, so it is symmetric and positive definite; it starts as the ramp that undoes the ``1 / frequency`` of
    projections, times eight at low frequencies and a tenth at the highest. Steps ``k`` and ``k + groups`` share their ``N`` (None: each has its own).

    A third of the lifted channels starts with ``K`` large at even and half as large at odd steps, a third the other way
    round: a primal-dual step hands ``2 K_k x_k - K_{k-1} x_{k-1}`` on, which is then the image in one third and its last
    change in the other. The last third starts with ``K = 0`` and is memory.

    ``rounded``: convolve in bfloat16 while training (rounded to three digits; several times as fast on processors that have
    units for it). Evaluation is in the precision of the weights.

    ``forward`` runs all steps on an image without any data: what the network does by itself. Solvers use ``lifts``, ``respond``
    and ``sharpen``. *Fails when* images are unlike those of the training.
    """

    ramp: Tensor

    def __init__(
        self,
        dim: int = 2,
        stages: int = 10,
        memory: int = 32,
        hidden: int = 64,
        channels: int = 1,
        groups: int | None = None,
        rounded: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        groups = stages if groups is None else groups
        if dim not in (1, 2, 3) or stages < 2 or memory < 3 or min(hidden, channels) < 1 or not 1 <= groups <= stages:
            raise InputError(
                f"UnfoldedNetwork(dim={dim}, stages={stages}, memory={memory}, hidden={hidden}, channels={channels}, "
                f"groups={groups}): dim is 1, 2 or 3, stages at least 2, memory at least 3, groups at most stages."
            )
        self.settings: dict[str, Any] = {
            "dim": dim, "stages": stages, "memory": memory, "hidden": hidden, "channels": channels, "groups": groups,
            "rounded": rounded, "seed": seed,
        }  # fmt: skip
        self.dim, self.stages, self.groups, self.rounded = dim, stages, groups, rounded
        generator = torch.Generator().manual_seed(seed)

        def drawn(outputs: int, inputs: int, width: int, gain: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(outputs, inputs, *(width,) * dim, generator=generator) * gain)

        third, fan = memory // 3, 3**dim
        base = drawn(memory, channels, KERNEL, (1.25 * third * (KERNEL / STRIDE) ** dim) ** -0.5).detach()
        base[2 * third :] = 0
        self.lifts, self.gains, self.filters = (nn.ParameterList() for _ in range(3))
        for stage in range(stages):
            kernel, gain = base.clone(), torch.zeros(memory)
            kernel[third * (1 - stage % 2) : third * (2 - stage % 2)] *= 0.5
            gain[2 * third :] = 1.0
            self.lifts.append(nn.Parameter(kernel))
            self.gains.append(nn.Parameter(gain))
            self.filters.append(nn.Parameter(torch.tensor(STEPS).log()))
        self.into, self.down, self.low, self.lower, self.up, self.out = (nn.ParameterList() for _ in range(6))
        for _ in range(groups):
            self.into.append(drawn(hidden, memory, 3, math.sqrt(2 / (memory * fan))))
            self.down.append(drawn(hidden, hidden, 2, math.sqrt(2 / (hidden * 2**dim))))
            self.low.append(drawn(hidden, hidden, 3, math.sqrt(2 / (hidden * fan))))
            self.lower.append(drawn(hidden, hidden, 3, math.sqrt(2 / (hidden * fan))))
            self.up.append(drawn(hidden, hidden, 2, math.sqrt(2 / hidden)))
            self.out.append(drawn(memory, hidden, 3, 0.1 / math.sqrt(hidden * fan)))
        # Twice the frequency in cycles per point; at zero that of a wave of 256 points.
        self.register_buffer("ramp", 2 * torch.tensor((1 / 256, *KNOTS[1:])), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x - M K^T u`` after each step, ``u = N(u + K x)``."""
        u = torch.zeros((), dtype=x.dtype, device=x.device)
        for stage in range(self.stages):
            u = self.respond(u + lifted(x, self.lifts[stage]), stage)
            x = x - self.sharpen(lowered(u, self.lifts[stage], tuple(x.shape[2:])), stage)
        return x

    def respond(self, u: Tensor, stage: int) -> Tensor:
        """``N_k(u)`` for ``(batch, memory, *space)``."""
        kind, group = torch.bfloat16 if self.rounded and self.training else u.dtype, stage % self.groups
        convolve, back = CONVOLVE[self.dim - 1], TRANSPOSE[self.dim - 1]

        def weight(part: nn.ParameterList) -> Tensor:
            found: Tensor = part[group].to(kind)
            return found

        v = u.to(kind)
        if self.dim == 2:
            v = v.contiguous(memory_format=torch.channels_last)
        v = convolve(v, weight(self.into), padding=1).relu()
        if min(v.shape[2:]) > 1:
            w = convolve(v, weight(self.down), stride=2).relu()
            w = convolve(w, weight(self.low), padding=1).relu()
            w = convolve(w, weight(self.lower), padding=1).relu()
            odd = tuple(n % 2 for n in v.shape[2:])
            v = (v + back(w, weight(self.up), stride=2, output_padding=odd)).relu()
        v = convolve(v, weight(self.out), padding=1)
        return torch.addcmul(v.to(u.dtype), self.gains[stage].reshape(-1, *[1] * self.dim), u)

    def sharpen(self, g: Tensor, stage: int | None) -> Tensor:
        """``M_k g`` for images ``(batch, channels, *space)``, which wrap around; None: the ramp, of which nothing is learned."""
        return filtered(g, self.ramp if stage is None else self.ramp * self.filters[stage].exp())

    def inside(self, x: Tensor, stage: int) -> Tensor:
        """``x``; at the last step ``x - K^T N(K x)``."""
        if stage != self.stages - 1:
            return x
        kernel = self.lifts[stage]
        return x - lowered(self.respond(lifted(x, kernel), stage), kernel, tuple(x.shape[2:]))


def filtered(g: Tensor, ramp: Tensor) -> Tensor:
    """Images ``(batch, channels, *space)`` with each frequency multiplied by the value of ``ramp``, given at the knots, at its length."""
    shape = tuple(g.shape[2:])
    gain = hats(shape, g) @ ramp.to(g)
    axes = tuple(range(2, g.ndim))
    wave = torch.fft.rfftn(g, dim=axes) * gain.reshape(*shape[:-1], shape[-1] // 2 + 1)
    found: Tensor = torch.fft.irfftn(wave, s=shape, dim=axes)
    return found


def lifted(x: Tensor, kernel: Tensor) -> Tensor:
    """The convolution with stride two; zeros beyond the edge."""
    return CONVOLVE[kernel.ndim - 3](x, kernel, stride=STRIDE, padding=MARGIN)


def lowered(u: Tensor, kernel: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Its transpose, onto images of this shape."""
    odd = tuple(n % 2 for n in shape)
    return TRANSPOSE[kernel.ndim - 3](u, kernel, stride=STRIDE, padding=MARGIN, output_padding=odd)


def hats(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Linear interpolation between the knots at the frequencies of a real transform: (frequencies, knots)."""
    if type(like) is not Tensor:  # a tensor that only records shapes must meet its own kind, never a kept one
        return interpolation(shape, like.device, like.dtype)
    return kept_interpolation(shape, like.device, like.dtype)


@functools.lru_cache(maxsize=64)
def kept_interpolation(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """`interpolation`, built once; outside inference mode, so that it may serve a training step later."""
    with torch.inference_mode(False), torch.no_grad():
        return interpolation(shape, device, dtype)


def interpolation(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """The hats of `hats`, summing to one at every frequency."""
    lines = [torch.fft.fftfreq(n, dtype=torch.float64, device=device) for n in shape[:-1]]
    lines.append(torch.fft.rfftfreq(shape[-1], dtype=torch.float64, device=device))
    length = torch.stack(torch.meshgrid(*lines, indexing="ij")).square().sum(0).sqrt().flatten()
    rows = []
    for at, knot in enumerate(KNOTS):
        left = (length - KNOTS[at - 1]) / (knot - KNOTS[at - 1]) if at else torch.ones_like(length)
        right = (KNOTS[at + 1] - length) / (KNOTS[at + 1] - knot) if at + 1 < len(KNOTS) else torch.ones_like(length)
        rows.append(torch.minimum(left, right).clamp(0, 1))
    return torch.stack(rows, 1).to(dtype)


def example() -> tuple[nn.Module, Tensor]:
    """Three steps with few channels, and two uneven images."""
    generator = torch.Generator().manual_seed(0)
    return UnfoldedNetwork(stages=3, memory=6, hidden=5), torch.randn(2, 1, 9, 14, generator=generator)
