r"""Geometric multigrid on box grids with variable coefficients: one symmetric V-cycle at the level of arrays.

The operator is a sum over the faces between neighbouring nodes plus a diagonal,

.. math:: (A u)_i = \sum_{f = (i, j)} K_f (u_i - u_j) + m_i u_i,

on a vertex-centred grid, uniform per axis, in one to three dimensions. Coarse grids are uniform on the same box, so any
number of nodes is allowed. Coarse conductances are resistances in series along the face and sums across it; coarse
masses are sums. Where conductances vary, a node between two coarse ones is interpolated by constant flux, axis after
axis, so that it follows the neighbour that it conducts to; restriction is the exact transpose. Only axes whose spacing is close to the smallest are coarsened, so that uneven spacings converge alike.
Smoother: Jacobi damped by the roots of a Chebyshev polynomial, the same before and after, so that the cycle is
symmetric and positive definite.

A. Brandt, Multi-level adaptive solutions to boundary-value problems, Math. Comp. 31 (1977),
doi:10.1090/S0025-5718-1977-0431719-X. R. Alcouffe, A. Brandt, J. Dendy, J. Painter, The multi-grid method for the
diffusion equation with strongly discontinuous coefficients, SIAM J. Sci. Stat. Comput. 2 (1981), doi:10.1137/0902035.
M. Adams, M. Brezina, J. Hu, R. Tuminaro, Parallel multigrid smoothing:
polynomial versus Gauss-Seidel, J. Comput. Phys. 188 (2003), doi:10.1016/S0021-9991(03)00194-3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sciml.solvers._smoothing import Level, Padded, damping
from sciml.solvers._stencil import apply, constant, explicit, inverse, power_of_two
from sciml.solvers._transfer import Axis, Tape

__all__ = ["Axis", "Hierarchy", "apply", "build"]


class _Work:
    """The arrays of one cycle for one batch size and the operations between ``source`` and ``result``."""

    source: Tensor
    result: Tensor
    tape: Tape
    scaled: Tensor | None = None


class Hierarchy:
    """The grids from the given one down to one that is solved by its inverse; see :func:`build`."""

    def __init__(self, axes: Sequence[Axis], faces: Sequence[Tensor], mass: Tensor | None) -> None:
        self.axes, self.faces, self.mass = tuple(axes), tuple(faces), mass
        self.levels: list[Level] = []
        self.dampings: list[list[float]] = []
        self.scale: Tensor = torch.ones(())
        self.mild = False  # the scale fits into float32 with room to spare
        self.null: Tensor | None = None  # one where the constants of a member are in the null space
        self.dtype = faces[0].dtype
        self._kept: list[_Work] = []

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [tuple(axis.n for axis in level.axes) for level in self.levels]

    def apply(self, u: Tensor) -> Tensor:
        """A u on the finest grid, in the precision of ``u``."""
        return apply(self.axes, self.faces, self.mass, u)

    def residual(self, u: Tensor, f: Tensor) -> Tensor:
        """f - A u."""
        return f - self.apply(u)

    def centred(self, u: Tensor) -> Tensor:
        """``u`` without its mean where constants are in the null space."""
        if self.null is None:
            return u
        return u - u.mean(tuple(range(1, u.dim())), keepdim=True) * self.null.to(u.dtype)

    @torch.no_grad()
    def cycle(self, r: Tensor) -> Tensor:
        """One V-cycle from zero for A e = r: linear, symmetric, positive (semi)definite. ``r`` is (B, *space)."""
        space = tuple(range(1, r.dim()))
        r = self.centred(r)
        work = self._take(r.shape[0], r.device)
        size: Tensor | None = None  # a float32 cycle must not underflow when the residual is small
        if r.dtype != self.dtype:
            size = torch.linalg.vector_norm(r, math.inf, space, keepdim=True)
            if r.device.type == "cpu" and bool((((size > 1e-20) & (size < 1e20)) | (size == 0)).all()):
                size = None
        if size is None:
            work.source.copy_(r)
        else:
            size = power_of_two(size)
            if work.scaled is None or work.scaled.dtype != r.dtype:
                work.scaled = torch.empty_like(r)
            work.source.copy_(torch.div(r, size, out=work.scaled))
        for step in work.tape:
            step()
        e = torch.empty_like(r, memory_format=torch.contiguous_format)
        if self.mild and size is None:
            e.copy_(work.result.div_(self.scale.to(work.result.dtype)))
        else:
            e.copy_(work.result).div_(self.scale if size is None else self.scale / size)
        self._kept.append(work)
        return self.centred(e)

    # -- one tape per batch size, taken while in use ---------------------------------------------------------------
    def _take(self, batch: int, device: torch.device) -> _Work:
        try:
            work = self._kept.pop()
        except IndexError:
            return self._compile(batch, device)
        same = work.source.shape[0] == batch and work.source.device == device
        return work if same else self._compile(batch, device)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": []}

    def _compile(self, batch: int, device: torch.device) -> _Work:
        work = _Work()
        work.tape = []
        top = self.levels[0]
        if top.inverse is not None:
            work.source = torch.zeros([batch, *(axis.n for axis in top.axes)], dtype=self.dtype, device=device)
            work.result = self._descend(0, work.tape, work.source, None)
            return work
        padded = Padded(batch, top.axes, device, self.dtype)
        work.source = padded.inside
        if top.weights is None:
            work.tape.append(partial(work.source.mul_, top.inverse_root))
        else:
            for k, axis in enumerate(top.axes):
                for side in (0, 1):
                    if axis.weight(side) != 1.0:
                        end = work.source.select(k + 1, (axis.n - 1) * side)
                        work.tape.append(partial(end.mul_, 1 / axis.weight(side)))
        work.result = self._descend(0, work.tape, work.source, padded)
        if top.weights is None:
            work.tape.append(partial(work.result.mul_, top.inverse_root))
        return work

    def _descend(self, depth: int, tape: Tape, source: Tensor, padded: Padded | None) -> Tensor:
        """Append the cycle from this grid downwards; returns where its correction will stand."""
        level, batch = self.levels[depth], source.shape[0]
        if level.inverse is not None:
            result = torch.zeros_like(source)
            if level.inverse.shape[0] == 1:
                tape.append(partial(torch.mm, source.view(batch, -1), level.inverse[0], out=result.view(batch, -1)))
            else:
                column = result.view(batch, 1, -1)
                tape.append(partial(torch.bmm, source.view(batch, 1, -1), level.inverse, out=column))
            return result
        if padded is None:
            raise RuntimeError("only the coarsest grid has no ghost nodes")
        device, dampings = source.device, self.dampings[depth]
        x = Padded(batch, level.axes, device, self.dtype)
        y = Padded(batch, level.axes, device, self.dtype)

        if len(dampings) == 1:  # the first sweeps start from zero
            tape.append(partial(torch.mul, source, dampings[0], out=x.inside))
        else:
            first, second = dampings[:2]
            level.fill_ghosts(tape, padded)
            tape.append(partial(torch.mul, source, first + second - first * second, out=x.inside))
            level.add_neighbours(tape, x.inside, padded, first * second)
        for factor in dampings[2:]:
            x, y = self._sweep(level, tape, source, x, y, factor), x

        level.fill_ghosts(tape, x)
        residual = torch.empty_like(source, memory_format=torch.contiguous_format)
        tape.append(partial(torch.sub, source, x.inside, out=residual))
        level.add_neighbours(tape, residual, x, 1.0)
        if level.weights is None:
            tape.append(partial(residual.mul_, level.root))

        below = self.levels[depth + 1]
        lower: Padded | None = None
        if below.inverse is None:
            lower = Padded(batch, below.axes, device, self.dtype)
            target = lower.inside
        else:
            target = torch.zeros([batch, *(axis.n for axis in below.axes)], dtype=self.dtype, device=device)
        constant = level.weights is not None
        stages = [residual]
        for k, transfer in enumerate(level.transfers):
            if k == len(level.transfers) - 1:
                stages.append(target)
            else:
                shape = list(stages[-1].shape)
                shape[transfer.dim] = transfer.coarse.n
                stages.append(source.new_empty(shape))
            scale = level.size_of_diagonal / below.size_of_diagonal if k == 0 and constant else 1.0
            transfer.restrict(tape, stages[k], stages[k + 1], per_cell=constant, scale=scale)
        if not constant:
            tape.append(partial(target.mul_, below.inverse_root))
        stages[-1] = self._descend(depth + 1, tape, target, lower)
        if not constant:
            tape.append(partial(stages[-1].mul_, below.inverse_root))
        for k in range(len(level.transfers) - 1, 0, -1):
            level.transfers[k].interpolate(tape, stages[k + 1], stages[k])
        level.transfers[0].add(tape, stages[1], x.inside, None if constant else level.root)

        for factor in reversed(dampings):
            x, y = self._sweep(level, tape, source, x, y, factor), x
        return x.inside

    def _sweep(self, level: Level, tape: Tape, source: Tensor, x: Padded, out: Padded, factor: float) -> Padded:
        """out = x + factor (source - (I - N) x)."""
        level.fill_ghosts(tape, x)
        tape.append(partial(torch.lerp, x.inside, source, factor, out=out.inside))
        level.add_neighbours(tape, out.inside, x, factor)
        return out


@torch.no_grad()
def build(
    axes: Sequence[Axis],
    faces: Sequence[Tensor],
    mass: Tensor | None = None,
    *,
    sweeps: int | None = None,
    dtype: torch.dtype | None = None,
) -> Hierarchy:
    """Set up the grids of a V-cycle.

    Args:
        axes: one per space dimension.
        faces: conductance (area times coefficient over spacing) per axis, (B or 1, *space) with one more entry along
            its own axis; face j lies between nodes j-1 and j. End faces: towards the given value (Dirichlet), zero
            where the boundary node is an unknown, and twice the same one for a periodic axis.
        mass: (B or 1, *space), what multiplies the node itself, or None.
        sweeps: smoothing steps before and after; by default two for constant coefficients in one and two dimensions
            (three on small grids that are not every second node of the finer one), otherwise three.
        dtype: precision of the cycle; that of ``faces`` unless given.

    Fails when the coefficient jumps by many orders from node to node, or conducts much better along one direction: the
    cycle then converges slowly, or not by itself, and is better used as a preconditioner.
    """
    axes = tuple(axes)
    space, device, sides = tuple(range(1, len(axes) + 1)), faces[0].device, [axis.n for axis in axes]
    faces = [face.detach().expand(-1, *(n + (j == k) for j, n in enumerate(sides))) for k, face in enumerate(faces)]
    mass = None if mass is None else mass.detach().expand(-1, *sides)
    hierarchy = Hierarchy(axes, faces, mass)
    hierarchy.dtype = dtype = faces[0].dtype if dtype is None else dtype
    if all(axis.periodic or axis.closed for axis in axes):
        empty = torch.ones([1] * (len(axes) + 1), dtype=torch.bool, device=device)
        null = empty if mass is None else mass.abs().amax(space, keepdim=True) == 0
        hierarchy.null = null if bool(null.any()) else None

    level = Level(axes)
    hierarchy.levels.append(level)
    same = constant(axes, faces, mass)
    if same is not None:
        conductances, weight, size = same
        hierarchy.scale = size.reshape([-1] + [1] * len(axes))
    else:
        largest = [array.amax(space, keepdim=True) for array in (*faces, *([] if mass is None else [mass]))]
        hierarchy.scale = power_of_two(
            torch.stack([v.expand(max(map(len, largest)), *v.shape[1:]) for v in largest]).amax(0)
        )
        faces = [(face / hierarchy.scale).to(dtype) for face in faces]
        mass = None if mass is None else (mass / hierarchy.scale).to(dtype)

    hierarchy.mild = bool(((hierarchy.scale > 1e-10) & (hierarchy.scale < 1e10)).all())

    while True:
        if same is not None:
            level.use_constant(conductances, weight)
        else:
            level.use_faces(faces, mass)
        below = level.coarsen(device, dtype)
        if below is None:
            break
        even = all(transfer.nested or transfer.collapsed for transfer in level.transfers) or len(hierarchy.levels) == 1
        count = sweeps or (2 if same is not None and len(axes) < 3 and even else 3)
        hierarchy.dampings.append(damping(level.lowest() * (0.85 if count <= 2 else 0.7), count))
        for transfer in level.transfers:
            along = transfer.dim + len(axes)
            if same is not None:
                factor = 0.0 if transfer.collapsed else 1 / transfer.ratio
                conductances = [v * (factor if k == along else transfer.ratio) for k, v in enumerate(conductances)]
                weight *= transfer.ratio
            else:
                line = faces[along]
                faces = [transfer.series(v) if k == along else transfer.overlap(v) for k, v in enumerate(faces)]
                mass = None if mass is None else transfer.overlap(mass)
                transfer.adapt(line)
        level = Level(below)
        hierarchy.levels.append(level)

    if same is not None:
        faces, weights, cells = explicit(level.axes, conductances, weight)
        mass = weights
        left, right = torch.ones_like(cells).reshape(1, 1, -1), (cells * level.size_of_diagonal).reshape(1, 1, -1)
    else:
        left = right = level.root.double().reshape(level.root.shape[0], 1, level.size)
    if len(hierarchy.levels) == 1:  # the only grid: what comes in is not scaled
        left = right = torch.ones_like(left)
    singular = hierarchy.null
    dense = inverse(level.axes, faces, mass, None if singular is None else singular.to(faces[0].device))
    level.inverse = (left.mT * dense * right).mT.contiguous().to(device, dtype)
    return hierarchy
