"""Input-convex network: a convex function of an image, whose gradient is therefore a proximal map."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.domains.errors import InputError

__all__ = ["InputConvexNetwork", "example"]

_CONVOLUTION = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_AVERAGE: dict[int, Any] = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


class InputConvexNetwork(nn.Module):
    r"""A convex function ``psi`` of images of any size in one, two or three dimensions, as a sum over positions.

    At each scale ``s`` (the image averaged over blocks of ``2^s`` pixels) free filters ``Q`` look at patches, and layers of
    non-negative weights weigh hypotheses about each patch against each other:

    .. math:: e = (Q * x)^2 / 2, \qquad a = M e + D * z' + L * x + c, \qquad
              z_g = \frac1\beta \log\Bigl(1 + \sum_{k \in g} e^{\beta a_k}\Bigr)
    .. math:: \psi(x) = \sum_{\text{layers}} \sum_{\text{positions}} \langle h, z \rangle + \frac\alpha2 |x|^2

    ``z'`` is the layer below (of the finer scale at the first layer of a scale, with a stride of 2), ``M`` a matrix between 0
    and 1, ``D`` and ``h`` are non-negative, ``L`` and ``c`` are free, ``*`` are convolutions. Energies ``e`` are convex, ``z`` is
    convex and non-decreasing in ``a``, so ``psi`` is convex (input-convex networks: Amos, Xu and Kolter, arXiv:1609.07152);
    the weights are positive by a change of variables, so no projection is needed, ever. ``psi`` is smooth, ``alpha``-strongly
    convex and of quadratic growth, so that its gradient follows the image also where it is larger than any seen in training.

    ``prox(x) = grad psi(x)``, a sum over patches of gated filters: with one layer it is the mean of the clean patch under
    a mixture of Gaussians of common axes, averaged over patches (Zoran and Weiss, ICCV 2011, doi 10.1109/ICCV.2011.6126278); the
    layers above let neighbours speak. The weights start as such a shrinkage in the cosines of a patch, near the identity,
    and expect noise of standard deviation about 1: scale the images by the noise (``LearnedProx.scale`` does).

    - ``width``: filters and hypotheses; ``group``: hypotheses that compete in one ``z_g``; it divides ``width``.
    - ``kernel``: odd size of a patch; ``stride``: distance of patches; ``scales``, ``layers`` (of each scale).
    - ``alpha``, ``beta``: strong convexity, as ``alpha/2 |x|^2``, and sharpness.
    - ``mirrors``: take the mean of ``psi`` over the ``2^dim`` mirror images of ``x``, which is convex too, does not tell left from right, and
      costs ``2^dim`` times as much.
    - ``seed``: of the first weights; torch's global generator is not touched. ``settings`` holds all arguments.

    Input (batch, channels, *space), output the same; ``potential(x)`` is ``psi`` per member. At the sides the image goes on with its outermost values. The map
    commutes with shifts by ``stride 2^(scales - 1)`` pixels, away from the sides. Raises InputError for impossible settings
    and for an input with other channels or dimension.
    """

    def __init__(
        self,
        dim: int,
        channels: int = 1,
        width: int = 64,
        group: int = 8,
        kernel: int = 9,
        stride: int = 2,
        scales: int = 2,
        layers: int = 2,
        alpha: float = 1e-3,
        beta: float = 1.0,
        mirrors: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if dim not in (1, 2, 3) or min(channels, width, group, kernel, stride, scales, layers) < 1:
            raise InputError(
                f"InputConvexNetwork: dim {dim}, channels {channels}, width {width}, group {group}, kernel {kernel}, stride "
                f"{stride}, scales {scales}, layers {layers}; dim is 1, 2 or 3 and the others are at least 1."
            )
        if kernel % 2 == 0 or width % group or stride > kernel:
            raise InputError(
                f"InputConvexNetwork: kernel {kernel}, stride {stride}, width {width}, group {group}; the kernel is odd and "
                "at least the stride, and group divides width."
            )
        if not alpha > 0 or not beta > 0:
            raise InputError(f"InputConvexNetwork: alpha {alpha} and beta {beta} must be positive.")
        self.settings: dict[str, Any] = {
            "dim": dim, "channels": channels, "width": width, "group": group, "kernel": kernel, "stride": stride,
            "scales": scales, "layers": layers, "alpha": alpha, "beta": beta, "mirrors": mirrors,
            "seed": seed,
        }  # fmt: skip
        self.dim, self.channels, self.group, self.stride, self.layers = dim, channels, group, stride, layers
        self.alpha, self.beta, self.share, self.mirrors = alpha, beta, (kernel / stride) ** dim, mirrors
        generator = torch.Generator().manual_seed(seed)
        groups, count, small = width // group, scales * layers, (min(3, kernel),) * dim

        def normal(*shape: int, mean: float = 0.0, spread: float = 1.0) -> Tensor:
            return mean + spread * torch.randn(shape, generator=generator)

        basis, wave = _cosines(dim, channels, kernel, width, generator)
        self.filters = nn.ParameterList(basis.clone() for _ in range(scales))
        # Each hypothesis keeps the filters below some frequency; its cost is that of the evidence in pure noise.
        mixes = []
        for _ in range(count):
            highest = kernel * dim**0.5 * torch.rand(width, 1, generator=generator).square()
            mixes.append((1.5 * (highest - wave) + normal(width, width, spread=1.5)).clamp(-6, 4))
        self.mixes = nn.ParameterList(mixes)
        self.costs = nn.ParameterList(0.5 * torch.log1p(-torch.sigmoid(mix)).sum(1) for mix in mixes)
        self.skips = nn.ParameterList(normal(width, channels, *small, spread=0.02) for _ in range(count))
        faint = math.log(0.1 / (groups * math.prod(small)))
        self.context = nn.ParameterList(normal(width, groups, *small, mean=faint) for _ in range(count - 1))
        self.heads = nn.ParameterList(torch.full((groups,), 0.3 if at == layers - 1 else -3.0) for at in range(count))

    def potential(self, x: Tensor) -> Tensor:
        """``psi(x)`` per member."""
        if x.ndim != self.dim + 2 or x.shape[1] != self.channels:
            raise InputError(
                f"InputConvexNetwork: input of shape {tuple(x.shape)}; it takes (batch, {self.channels}, *space) with "
                f"{self.dim} space axes."
            )
        if not self.mirrors:
            return self._potential(x)
        chosen = [[2 + a for a in range(self.dim) if number >> a & 1] for number in range(2**self.dim)]
        images = torch.cat([x.flip(axes) if axes else x for axes in chosen])
        return self._potential(images).reshape(len(chosen), -1).mean(0)

    def _potential(self, x: Tensor) -> Tensor:
        total = self.alpha / 2 * x.square().flatten(1).sum(1)
        below: Tensor | None = None
        for at, mix in enumerate(self.mixes):
            scale, layer = divmod(at, self.layers)
            if layer == 0:
                x = self._halve(x) if scale else x
                energy = self._convolve(x, self.filters[scale], self.stride).square() / 2
            a = self._convolve(energy, torch.sigmoid(mix).reshape(*mix.shape, *(1,) * self.dim))
            a = a + self._convolve(x, self.skips[at], self.stride) + self.costs[at].reshape(-1, *(1,) * self.dim)
            if below is not None:
                a = a + self._convolve(below, functional.softplus(self.context[at - 1]), 1 if layer else 2)
            below = _evidence(self.beta * a.unflatten(1, (-1, self.group))) / self.beta
            head = functional.softplus(self.heads[at]) / (below.shape[1] * self.share)
            total = total + below.flatten(2).sum(2) @ head
        return total

    def prox(self, x: Tensor) -> Tensor:
        """``grad psi(x)``, of the shape of ``x``; differentiable in ``x`` and in the weights where these ask for it."""
        tracked = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in self.parameters()))
        with torch.inference_mode(False), torch.enable_grad():
            free = x.clone() if x.is_inference() else x
            point = free if tracked and free.requires_grad else free.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.potential(point).sum(), point, create_graph=tracked)
        return slope

    def forward(self, x: Tensor) -> Tensor:
        """The same as ``prox``."""
        return self.prox(x)

    def _convolve(self, x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
        half = weight.shape[-1] // 2
        if half:
            x = functional.pad(x, (half, half) * self.dim, mode="replicate")
        return _CONVOLUTION[self.dim](x, weight, stride=stride)

    def _halve(self, x: Tensor) -> Tensor:
        """Means over blocks of two per axis, scaled so that white noise keeps its deviation."""
        means: Tensor = _AVERAGE[self.dim](x, 2, ceil_mode=True)
        return means * 2 ** (self.dim / 2)


def _evidence(a: Tensor) -> Tensor:
    """``log(1 + sum_k e^{a_k})`` over axis 2: one exponential per number, for all orders of derivatives together."""
    top = a.detach().amax(2).clamp_min(0)  # the result does not depend on it
    # Below e^-40 nothing is added to a sum that is at least 1, and denormal numbers, which are slow, do not arise.
    return top + ((a - top.unsqueeze(2)).clamp_min(-40).exp().sum(2) + (-top).clamp_min(-40).exp()).log()


def _cosines(dim: int, channels: int, kernel: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``width`` filters that together nearly keep the energy of a patch, and their wave numbers.

    First the orthonormal cosines of a patch by frequency; where more are wanted, more bases, each turned at random among
    neighbouring frequencies; filters of a frequency that several bases share are weaker accordingly.
    """
    k = torch.arange(kernel, dtype=torch.float64)
    size = torch.where(k == 0, 1 / kernel, 2 / kernel).sqrt()
    line = size[:, None] * torch.cos(math.pi * k[:, None] * (k + 0.5) / kernel)
    table = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(dim):
        table = torch.kron(table, line)
    wave, order = torch.cartesian_prod(*(k,) * dim).reshape(-1, dim).square().sum(1).sqrt().sort(stable=True)
    table, near = table[order], torch.exp(-(wave[:, None] - wave).square())
    whole = channels * len(table)
    sets, extra = divmod(width, whole)
    filters, waves = [], []
    for at in range(sets + 1):
        mixing = torch.linalg.qr(torch.randn(channels, channels, generator=generator, dtype=torch.float64))[0]
        turn = torch.randn(near.shape, generator=generator, dtype=torch.float64) * near
        turned = torch.linalg.qr(turn)[0] @ table if at else table
        filters.append(torch.einsum("kp,dc->kdcp", turned, mixing).reshape(whole, channels, -1))
        waves.append(wave.repeat_interleave(channels))
    share = torch.full((width,), max(sets, 1), dtype=torch.float64)
    if sets:
        share[torch.arange(width) % whole < extra] += 1
    kept = torch.cat(filters)[:width] / share.sqrt()[:, None, None]
    return kept.reshape(width, channels, *(kernel,) * dim).float(), torch.cat(waves)[:width].float()


def example() -> tuple[nn.Module, Tensor]:
    """A small network and an input that it takes."""
    x = torch.randn(3, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    return InputConvexNetwork(dim=2, channels=2, width=8, group=4, kernel=3, layers=1), x
