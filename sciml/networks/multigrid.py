"""MgNO: a network whose linear maps are multigrid V-cycles with learned stencils."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.domains.errors import InputError

__all__ = ["MgNO", "VCycle", "example"]

# A line is treated as a plane of one row: with channels last that is faster than a convolution along one axis.
_CONVOLUTION = {2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_MEMORY = {2: torch.channels_last, 3: torch.channels_last_3d}
PADDINGS = ("zeros", "circular", "reflect")


class VCycle(nn.Module):
    r"""A linear map ``f -> u`` as one multigrid V-cycle with stencils of width 3 that are matrices over channels.

    On each level, from ``u = 0`` on the finest: ``pre`` steps ``u <- u + S_i (f - A u)``; then down; then the correction ``u <- u + P u_c`` from the next
    coarser level and ``post`` more steps. ``S_i`` belongs to one step, ``A`` to its level. Down goes, with ``residual``, what multigrid restricts, ``f_c = R (f - A u)`` from
    ``u_c = 0``; without, ``f_c = R f`` from ``u_c = T u``, as the source of `MgNO` does. A level that a small grid does not have is left out.

    ``paddings`` per axis says what lies beyond the ends and with that where the coarse points are: ``zeros`` (given values zero: every second
    point beginning with the second, so 2m+1 points have m below them), ``circular`` (every second from the first, even sizes), ``reflect`` (mirrored about the end
    points, every second from the first, 2m+1 points have m+1). Other sizes work; their last coarse cell is then longer or shorter.
    """

    def __init__(
        self, inputs: int, outputs: int, schedule: Sequence[tuple[int, int]], paddings: Sequence[str], residual: bool,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__()
        self.schedule, self.paddings, self.residual = tuple(schedule), tuple(paddings), residual
        dim, last = len(self.paddings), len(self.schedule) - 1

        def stencil(a: int, b: int) -> nn.Parameter:
            return nn.Parameter(_uniform((b, a, *(3,) * dim), a * 3**dim, generator))

        self.smooth = nn.ModuleList(
            nn.ParameterList(stencil(inputs, outputs) for _ in range(pre + post)) for pre, post in self.schedule
        )
        self.operator, self.restrict, self.carry, self.prolong = (nn.ParameterDict() for _ in range(4))
        for level, (pre, post) in enumerate(self.schedule):
            carried = level > 0 and not residual
            if carried or pre + post > 1 or (residual and level < last):
                self.operator[str(level)] = stencil(outputs, inputs)
            if level < last:
                self.restrict[str(level)] = stencil(inputs, inputs)
                if not residual:
                    self.carry[str(level)] = stencil(outputs, outputs)
                # A fine point hears at most 2^dim coarse ones: (in, out, *3), as a transposed convolution wants it.
                self.prolong[str(level)] = nn.Parameter(
                    _uniform((outputs, outputs, *(3,) * dim), outputs * 2**dim, generator)
                )

    def forward(self, f: Tensor) -> Tensor:
        """(batch, inputs, \\*space) to (batch, outputs, \\*space)."""
        return _lowered(self.cycle(_raised(f), None, 0), len(self.paddings))

    def cycle(self, f: Tensor, u: Tensor | None, level: int) -> Tensor:
        """From this level down, on fields with at least two axes."""
        pre, _ = self.schedule[level]
        steps, name = self.smooth[level], str(level)
        for weight in steps[:pre]:  # type: ignore[index]
            right = f if u is None else f - self.image(u, level)
            change = _convolved(right, weight, self.paddings)
            u = change if u is None else u + change
        if u is None:
            raise RuntimeError("every level begins with a smoothing step")
        shape = tuple(u.shape[2:])
        if level < len(self.schedule) - 1 and max(shape) > 1:
            right = f - self.image(u, level) if self.residual else f
            below = None if self.residual else _halved(u, self.carry[name], self.paddings)
            coarse = self.cycle(_halved(right, self.restrict[name], self.paddings), below, level + 1)
            u = u + _doubled(coarse, self.prolong[name], self.paddings, shape)
        for weight in steps[pre:]:  # type: ignore[index]
            u = u + _convolved(f - self.image(u, level), weight, self.paddings)
        return u

    def image(self, u: Tensor, level: int) -> Tensor:
        """``A u`` on this level."""
        return _convolved(u, self.operator[str(level)], self.paddings)


class MgNO(nn.Module):
    r"""Multigrid neural operator (He, Liu and Xu, arXiv:2310.19809).

    .. math:: u_{l+1} = \sigma(W_l u_l + B_l u_l + b_l), \qquad u = Q u_L

    ``W_l`` is a :class:`VCycle` over all channels, ``B_l`` a matrix over channels at each point, ``Q`` one without bias; ``\sigma`` is the exact GELU. There is no lifting and no
    projection. Input (batch, in_channels, \*space), output (batch, out_channels, \*space), any grid size; the stencils are those of the grid, so another
    spacing is another map.

    - ``width``, ``layers``: channels inside, number of V-cycles.
    - ``schedule``: (pre, post) smoothing steps of every level, finest first, pre at least 1; ``((1, 0), ..., (2, 0))`` without post-smoothing is the source's.
    - ``residual``: restrict the residual, as multigrid does, and not the right-hand side, as the source does.
    - ``padding``: what lies beyond the ends, one word or one per axis: zeros (Dirichlet, on a grid without its end points), circular (periodic),
      reflect (Neumann, on a grid with its end points).
    - ``coordinates``: append the position, scaled to (-1, 1), to the input.
    - ``seed``: of the first weights; torch's global generator is not touched. ``settings`` holds all arguments.

    With one channel, ``residual`` and the stencils of a discretised equation a V-cycle is one cycle of `sciml.solvers.Multigrid` on the same grids, to
    rounding, when it goes down to one point per axis (two on periodic and reflected axes); the solver stops earlier, with a dense inverse.

    Raises InputError for impossible settings, or an input with other channels or dimension. *Fails when* the coarsest level does not see the whole domain: take
    ``log2(n) - 2`` levels or more.
    """

    def __init__(
        self,
        dim: int,
        width: int = 24,
        layers: int = 4,
        schedule: Sequence[Sequence[int]] = ((1, 1), (1, 1), (1, 1), (1, 1), (2, 0)),
        residual: bool = False,
        padding: str | Sequence[str] = "zeros",
        in_channels: int = 1,
        out_channels: int = 1,
        coordinates: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        paddings = (padding,) * dim if isinstance(padding, str) else tuple(padding)
        steps = [(int(pre), int(post)) for pre, post in schedule] if all(len(s) == 2 for s in schedule) else []
        if dim not in (1, 2, 3) or len(paddings) != dim or any(word not in PADDINGS for word in paddings):
            raise InputError(
                f"MgNO: dim {dim}, padding {padding!r}; give dim 1, 2 or 3 and one of {', '.join(PADDINGS)} per axis."
            )
        if not steps or any(pre < 1 or post < 0 for pre, post in steps):
            raise InputError(
                f"MgNO: schedule {schedule}; give (pre, post) for every level, pre at least 1 and post at least 0."
            )
        if min(width, layers, in_channels, out_channels) < 1:
            raise InputError(
                f"MgNO: width {width}, layers {layers}, channels {in_channels} -> {out_channels}; all are at least 1."
            )
        self.settings: dict[str, Any] = {
            "dim": dim, "width": width, "layers": layers, "schedule": [list(pair) for pair in steps], "residual": residual,
            "padding": list(paddings), "in_channels": in_channels, "out_channels": out_channels,
            "coordinates": coordinates, "seed": seed,
        }  # fmt: skip
        self.dim, self.in_channels, self.coordinates = dim, in_channels, coordinates
        generator = torch.Generator().manual_seed(seed)
        sizes = [in_channels + dim * coordinates, *[width] * layers]
        self.cycles, self.points, self.biases = nn.ModuleList(), nn.ParameterList(), nn.ParameterList()
        for a, b in zip(sizes, sizes[1:], strict=False):
            self.cycles.append(VCycle(a, b, steps, paddings, residual, generator))
            self.points.append(nn.Parameter(_uniform((b, a, *(1,) * dim), a, generator)))
            self.biases.append(nn.Parameter(_uniform((b,), a, generator)))
        self.last = nn.Parameter(_uniform((out_channels, width, *(1,) * dim), width, generator))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != self.dim + 2 or x.shape[1] != self.in_channels:
            raise InputError(
                f"MgNO: input of shape {tuple(x.shape)}; it takes (batch, {self.in_channels}, *space) with {self.dim} space axes."
            )
        u = x
        if self.coordinates:
            lines = [(2 * torch.arange(n, device=x.device, dtype=torch.float64) + 1) / n - 1 for n in x.shape[2:]]
            place = torch.stack(torch.meshgrid(*lines, indexing="ij")).to(x.dtype)
            u = torch.cat((u, place.expand(len(x), *place.shape)), 1)
        u = _raised(u)
        if not u.is_meta:
            u = u.contiguous(memory_format=_MEMORY[u.ndim - 2])
        convolution = _CONVOLUTION[u.ndim - 2]
        for cycle, weight, bias in zip(self.cycles, self.points, self.biases, strict=True):
            u = functional.gelu(cycle.cycle(u, None, 0) + convolution(u, _raised(weight), bias))  # type: ignore[operator]
        if u.dtype != self.last.dtype:  # rounded training: neighbours are told apart by what the last map adds up
            with torch.autocast(u.device.type, enabled=False):
                return _lowered(convolution(u.to(self.last.dtype), _raised(self.last)), self.dim).contiguous()
        found = _lowered(convolution(u, _raised(self.last)), self.dim)
        return found.contiguous()


def _uniform(shape: tuple[int, ...], fan: int, generator: torch.Generator) -> Tensor:
    """Numbers of variance 1 / (3 fan)."""
    return torch.empty(shape).uniform_(-1 / math.sqrt(fan), 1 / math.sqrt(fan), generator=generator)


def _raised(v: Tensor) -> Tensor:
    """A line, or a stencil on a line, as one row of a plane."""
    return v.unsqueeze(2) if v.ndim == 3 else v


def _lowered(v: Tensor, dim: int) -> Tensor:
    return v.squeeze(2) if dim == 1 else v


def _strides(paddings: Sequence[str]) -> tuple[int, ...]:
    return (1, 2) if len(paddings) == 1 else (2,) * len(paddings)


def _extended(v: Tensor, paddings: Sequence[str], *, halving: bool) -> Tensor:
    """One point more beyond either end of each axis; before halving, what puts the first coarse point where it belongs."""
    for axis, word in enumerate(paddings, start=v.ndim - len(paddings)):
        n = v.shape[axis]
        if word == "zeros":
            lower, upper = (0, 1 - n % 2) if halving and n > 1 else (1, 1)
            if lower or upper:
                v = functional.pad(v, [0, 0] * (v.ndim - 1 - axis) + [lower, upper])
            continue
        before, after = (n - 1, 0) if word == "circular" else (min(1, n - 1), max(n - 2, 0))
        v = torch.cat((v.narrow(axis, before, 1), v, v.narrow(axis, after, 1)), axis)
    return v


def _convolved(v: Tensor, weight: Tensor, paddings: Sequence[str]) -> Tensor:
    """A stencil of width 3 on every point."""
    weight, plain = _raised(weight), all(word == "zeros" for word in paddings)
    wide = [n // 2 for n in weight.shape[2:]] if plain else 0
    found: Tensor = _CONVOLUTION[v.ndim - 2](
        v if plain else _extended(v, paddings, halving=False), weight, padding=wide
    )
    return found


def _halved(v: Tensor, weight: Tensor, paddings: Sequence[str]) -> Tensor:
    """A stencil of width 3 around every coarse point."""
    v = _extended(v, paddings, halving=True)
    found: Tensor = _CONVOLUTION[v.ndim - 2](v, _raised(weight), stride=_strides(paddings))
    return found


def _doubled(v: Tensor, weight: Tensor, paddings: Sequence[str], shape: tuple[int, ...]) -> Tensor:
    """Coarse values spread over the points beside them, cut to the fine grid."""
    axes = [(axis, word, shape[axis - 2]) for axis, word in enumerate(paddings, start=v.ndim - len(paddings))]
    for axis, word, n in axes:
        if word == "circular" and n % 2 == 0:
            v = torch.cat((v, v.narrow(axis, 0, 1)), axis)
    found: Tensor = _TRANSPOSED[v.ndim - 2](v, _raised(weight), stride=_strides(paddings))
    for axis, word, n in axes:
        found = found.narrow(axis, 0 if word == "zeros" and n > 1 else 1, n)
    return found


def example() -> tuple[nn.Module, Tensor]:
    """A small network and an input that it takes."""
    x = torch.randn(3, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    return MgNO(2, width=5, layers=2, schedule=((1, 1), (1, 0)), padding=("reflect", "circular"), in_channels=2), x
