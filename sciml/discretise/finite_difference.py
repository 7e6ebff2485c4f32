r"""Second-order differences on uniform grids, in integrated (finite-volume) form.

``Diffusion`` is ``-div(k grad u) + c u`` integrated over the dual cell of each node,

    (A u)_i = sum over faces f of K_f (u_i - u_neighbour) + m_i u_i,     K_f = k_f * area / h,

with ``k_f`` the harmonic mean of the two nodal coefficients (exact flux continuity for layered media) and, on a face to a
Dirichlet boundary, the coefficient of the nearest node. It is symmetric as it stands; the error is of second order for
smooth coefficients with every side condition. Reference: Samarskii, The Theory of Difference Schemes, 2001, ch. 2-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator
from sciml.core.tree import leaves
from sciml.domains.boundary import Dirichlet, Neumann, Periodic, Robin
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.domains.space import Space

if TYPE_CHECKING:
    import scipy.sparse

__all__ = ["Diffusion", "laplacian"]


@dataclass(frozen=True, eq=False)
class Diffusion(LinearOperator):
    """``-div(coefficient grad u) + reaction u`` with the side conditions of ``grid``, in integrated form.

    ``coefficient`` (positive) and ``reaction`` are numbers, tensors of shape (), ``(batch,)``, ``grid.shape`` or
    ``(batch, 1, *grid.shape)``, given at the nodes. ``dtype`` and ``device`` are those of the coefficient, if it is a
    tensor. Symmetric; positive definite unless the reaction is negative somewhere; singular (constants) with no reaction
    and only Neumann or periodic sides. *Fails when* the coefficient is not resolved by the grid: the answer then belongs
    to another medium.
    """

    grid: Grid
    coefficient: Tensor | float = 1.0
    reaction: Tensor | float = 0.0
    dtype: torch.dtype = torch.float64
    device: torch.device = torch.device("cpu")

    def __post_init__(self) -> None:
        for name in ("coefficient", "reaction"):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                object.__setattr__(self, name, _nodal(name, value, self.grid.shape))
                object.__setattr__(self, "dtype", value.dtype)
                object.__setattr__(self, "device", value.device)

    @property
    def space(self) -> Space:
        """Scalar fields on the grid."""
        return self.grid.space(1, self.dtype, self.device)

    @property
    def symmetric(self) -> bool:
        """Always."""
        return True

    @property
    def definite(self) -> bool | None:
        """True without negative reaction (constants may be in the null space), else not known."""
        return True if bool((torch.as_tensor(self.reaction) >= 0).all()) else None

    def _anchored(self) -> bool:
        """Whether a side fixes the constant: Dirichlet, or Robin with a rate that is not zero everywhere."""
        sides = [c for pair in self.grid.conditions for c in pair]
        return any(
            isinstance(c, Dirichlet) or (isinstance(c, Robin) and bool((torch.as_tensor(c.rate) != 0).any()))
            for c in sides
        )

    def homogeneous(self) -> LinearOperator:
        """The same operator with all side values zero."""
        return replace(self, grid=self.grid.homogeneous())

    def null_space(self) -> tuple[Tensor, ...]:
        """The normalised constant, if nothing fixes it."""
        if self._anchored() or bool((torch.as_tensor(self.reaction) != 0).any()):
            return ()
        return (torch.full((1, *self.space.shape), self.space.size**-0.5, dtype=self.dtype, device=self.device),)

    @property
    def faces(self) -> tuple[Tensor, ...]:
        """Conductances ``K``: per axis a tensor ``(batch or 1, *shape)`` with one more entry along that axis.

        Entry ``j`` belongs to the face between nodes ``j - 1`` and ``j``; end faces lead to the Dirichlet boundary, are
        zero (Neumann, Robin) or both hold the wrap (periodic).
        """
        if torch.is_grad_enabled() and any(
            isinstance(v, Tensor) and v.requires_grad for v in (self.coefficient, self.reaction)
        ):
            return self._faces()
        kept: tuple[Tensor, ...] = self._kept("faces", self._faces)
        return kept

    def _kept(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` gives without a derivative, computed again when a tensor was changed in place."""
        stamp = tuple(leaf.tensor._version for leaf in leaves(self) if not leaf.tensor.is_inference())
        held = self.__dict__.setdefault("_held", {})
        if name not in held or held[name][0] != stamp:
            with torch.no_grad():
                held[name] = (stamp, make())
        return held[name][1]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_held"}

    def _faces(self) -> tuple[Tensor, ...]:
        dim, widths = self.grid.dim, self.grid.widths(self.dtype, self.device)
        k = self.coefficient
        field_ = (
            k.squeeze(1)
            if isinstance(k, Tensor) and k.ndim
            else torch.as_tensor(k, dtype=self.dtype, device=self.device).reshape(1, *[1] * dim)
        )
        result = []
        for axis, (info, pair) in enumerate(zip(self.grid.axes(), self.grid.conditions, strict=True)):
            n, at = info.n, 1 + axis
            mean = _face_mean(field_, at, n, info.periodic)
            ends = torch.ones(n + 1, dtype=self.dtype, device=self.device)
            for where, condition in zip((0, n), pair, strict=True):
                ends[where] = 0.0 if isinstance(condition, Neumann | Robin) else 1.0
            face = mean * (ends / info.spacing).reshape([-1 if a == axis else 1 for a in range(dim)])
            for other in range(dim):
                if other != axis:
                    face = face * widths[other].reshape([-1 if a == other else 1 for a in range(dim)])
            result.append(face)
        return tuple(result)

    @property
    def mass(self) -> Tensor | None:
        """The term ``m_i``: reaction times volume plus Robin rates times area, ``(batch or 1, *shape)``; None if zero."""
        grid, dim = self.grid, self.grid.dim
        total: Tensor | None = None
        c = self.reaction
        if isinstance(c, Tensor) or c != 0:
            value = (
                c.squeeze(1)
                if isinstance(c, Tensor) and c.ndim
                else torch.as_tensor(c, dtype=self.dtype, device=self.device).reshape(1, *[1] * dim)
            )
            total = value * grid.volumes(self.dtype, self.device)
        for axis, pair in enumerate(grid.conditions):
            for side, condition in enumerate(pair):
                if isinstance(condition, Robin):
                    term = self._on_side(axis, side, condition.rate)
                    total = term if total is None else total + term
        return total

    def _area(self, axis: int) -> Tensor:
        area = torch.ones((1, *[1] * self.grid.dim), dtype=self.dtype, device=self.device)
        for other, width in enumerate(self.grid.widths(self.dtype, self.device)):
            if other != axis:
                area = area * width.reshape([-1 if a == other else 1 for a in range(self.grid.dim)])
        return area

    def _on_side(self, axis: int, side: int, value: Tensor | float, weight: Tensor | None = None) -> Tensor:
        """A side value times its area (or ``weight``), as a field that is zero away from the side's layer of nodes."""
        weight = self._area(axis) if weight is None else weight
        layer = weight * (value.squeeze(1) if isinstance(value, Tensor) and value.ndim else value)
        n = self.grid.shape[axis]
        shape = (layer.shape[0], *[1 if a == axis else m for a, m in enumerate(self.grid.shape)])
        pad = [0, 0] * (self.grid.dim - 1 - axis) + ([0, n - 1] if side == 0 else [n - 1, 0])
        return torch.nn.functional.pad(layer.expand(shape), pad)

    def load(self, source: Tensor) -> Tensor:
        """``volume * source`` plus ``K g`` (Dirichlet), ``area h`` (Neumann) and ``area g`` (Robin)."""
        total = source * self.grid.volumes(self.dtype, self.device)
        for axis, pair in enumerate(self.grid.conditions):
            for side, condition in enumerate(pair):
                if isinstance(condition, Periodic):
                    continue
                value = condition.value
                if not isinstance(value, Tensor) and value == 0:
                    continue
                weight = None
                if isinstance(condition, Dirichlet):
                    end = -1 if side else 0
                    weight = self.faces[axis].narrow(1 + axis, self.grid.shape[axis] if end else 0, 1)
                total = total + self._on_side(axis, side, value, weight).unsqueeze(1)
        return total

    def source_of(self, rhs: Tensor) -> Tensor:
        """``rhs / volume``."""
        return rhs / self.grid.volumes(self.dtype, self.device)

    def __call__(self, u: Tensor) -> Tensor:
        if not torch.is_grad_enabled() and not u.is_complex():
            return self._in_place(u)
        result: Tensor | None = None
        for axis, (face, info) in enumerate(zip(self.faces, self.grid.axes(), strict=True)):
            at = u.ndim - self.grid.dim + axis
            face = face.unsqueeze(1)
            ends = (
                (u.narrow(at, info.n - 1, 1), u.narrow(at, 0, 1))
                if info.periodic
                else (torch.zeros_like(u.narrow(at, 0, 1)),) * 2
            )
            flux = torch.diff(torch.cat((ends[0], u, ends[1]), at), dim=at) * face
            term = torch.diff(flux, dim=at)
            result = -term if result is None else result - term
        mass = self.mass
        assert result is not None
        return result if mass is None else result + mass.unsqueeze(1) * u

    def _in_place(self, u: Tensor) -> Tensor:
        """The same product into one new array: no temporaries, no derivative."""
        diagonal: Tensor = self._kept("diagonal", self.diagonal)
        result = diagonal * u
        for axis, (face, info) in enumerate(zip(self.faces, self.grid.axes(), strict=True)):
            at, n = u.ndim - self.grid.dim + axis, info.n
            face = face.unsqueeze(1)
            inner = face.narrow(2 + axis, 1, n - 1)
            result.narrow(at, 1, n - 1).addcmul_(inner, u.narrow(at, 0, n - 1), value=-1)
            result.narrow(at, 0, n - 1).addcmul_(inner, u.narrow(at, 1, n - 1), value=-1)
            if info.periodic:
                wrap = face.narrow(2 + axis, 0, 1)
                result.narrow(at, 0, 1).addcmul_(wrap, u.narrow(at, n - 1, 1), value=-1)
                result.narrow(at, n - 1, 1).addcmul_(wrap, u.narrow(at, 0, 1), value=-1)
        return result

    def adjoint(self, v: Tensor) -> Tensor:
        """The operator itself."""
        return self(v.conj()).conj() if v.is_complex() else self(v)

    def diagonal(self) -> Tensor:
        """Sum of the conductances around each node, plus the mass."""
        total = torch.zeros((1, *self.grid.shape), dtype=self.dtype, device=self.device)
        for axis, (face, n) in enumerate(zip(self.faces, self.grid.shape, strict=True)):
            total = total + face.narrow(1 + axis, 0, n) + face.narrow(1 + axis, 1, n)
        mass = self.mass
        return (total if mass is None else total + mass).unsqueeze(1)

    def size_bound(self) -> Tensor:
        """The largest 2-norm of a column, a lower bound of the 2-norm within a factor of two."""
        square = self.diagonal().squeeze(1).square()
        for axis, (face, info) in enumerate(zip(self.faces, self.grid.axes(), strict=True)):
            inner = face.square().clone()
            if not info.periodic:
                inner.narrow(1 + axis, 0, 1).zero_()
                inner.narrow(1 + axis, info.n, 1).zero_()
            square = square + inner.narrow(1 + axis, 0, info.n) + inner.narrow(1 + axis, 1, info.n)
        return square.flatten(1).amax(1).sqrt()

    def matrix(self, member: int = 0) -> scipy.sparse.csr_array:
        """The sparse matrix of one member, nodes in C order."""
        import numpy as np
        import scipy.sparse

        shape, size = self.grid.shape, self.space.size
        index = np.arange(size).reshape(shape)
        diagonal = self.diagonal()
        rows, columns, values = (
            [index.ravel()],
            [index.ravel()],
            [diagonal[min(member, diagonal.shape[0] - 1)].detach().cpu().numpy().ravel()],
        )
        for axis, (face, info) in enumerate(zip(self.faces, self.grid.axes(), strict=True)):
            conductance = (
                face[min(member, face.shape[0] - 1)]
                .detach()
                .cpu()
                .expand([n + (a == axis) for a, n in enumerate(shape)])
                .numpy()
            )
            low, high = np.take(index, range(info.n - 1), axis), np.take(index, range(1, info.n), axis)
            inner = np.take(conductance, range(1, info.n), axis)
            if info.periodic:
                low = np.concatenate([low, np.take(index, [info.n - 1], axis)], axis)
                high = np.concatenate([high, np.take(index, [0], axis)], axis)
                inner = np.concatenate([inner, np.take(conductance, [info.n], axis)], axis)
            rows += [low.ravel(), high.ravel()]
            columns += [high.ravel(), low.ravel()]
            values += [-inner.ravel(), -inner.ravel()]
        entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
        return scipy.sparse.csr_array(scipy.sparse.coo_array(entries, shape=(size, size)))

    def validate(self, name: str) -> None:
        """The coefficient must be positive, Robin rates not negative."""
        k = self.coefficient
        for part, value in (("coefficient", k), ("reaction", self.reaction)):
            if not isinstance(value, Tensor) and not math.isfinite(value):
                raise InputError(f"{name!r}: {part} is {value}; it must be a finite number")
        zero = (
            (torch.as_tensor(self.reaction) == 0).reshape(-1)
            if not isinstance(self.reaction, Tensor)
            else (self.reaction == 0).flatten(1).all(1)
            if self.reaction.ndim
            else (self.reaction == 0).reshape(1)
        )
        if not self._anchored() and bool(zero.any()) and not bool(zero.all()):
            raise InputError(
                f"{name!r}: some members have no reaction and no side that fixes the constant, others do; "
                "solve the singular members apart"
            )
        bad = ~(torch.as_tensor(k) > 0)
        if bool(bad.any()):
            where = _locate(k, bad, self.grid) if isinstance(k, Tensor) else f"{k}"
            raise InputError(f"{name!r}: coefficient is {where}; diffusion needs it positive")
        for axis, pair in enumerate(self.grid.conditions):
            for side, condition in enumerate(pair):
                side_name = f"{'xyz'[axis]}_{('lower', 'upper')[side]}"
                for part in ("value", "rate"):
                    number = getattr(condition, part, 0.0)
                    if not isinstance(number, Tensor) and not math.isfinite(number):
                        raise InputError(f"{name!r}: the {part} on side {side_name} is {number}; it must be finite")
                if isinstance(condition, Robin) and bool((torch.as_tensor(condition.rate) < 0).any()):
                    raise InputError(
                        f"{name!r}: the Robin rate on side {'xyz'[axis]}_{('lower', 'upper')[side]} is negative; it must not be"
                    )


def _face_mean(k: Tensor, at: int, n: int, periodic: bool) -> Tensor:
    if k.shape[at] == 1:
        return k
    left, right = k.narrow(at, 0, n - 1), k.narrow(at, 1, n - 1)
    inner = 2 * left * right / (left + right)
    first, last = k.narrow(at, 0, 1), k.narrow(at, n - 1, 1)
    if periodic:
        wrap = 2 * first * last / (first + last)
        return torch.cat((wrap, inner, wrap), at)
    return torch.cat((first, inner, last), at)


def _nodal(name: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    if value.ndim == 0 or (
        value.ndim == len(shape) + 2
        and value.shape[1] == 1
        and all(m in (1, n) for m, n in zip(value.shape[2:], shape, strict=True))
    ):
        return value
    if value.ndim == 1 and len(shape) > 1:
        return value.reshape(-1, 1, *[1] * len(shape))
    if value.shape == torch.Size(shape):
        return value.reshape(1, 1, *shape)
    raise InputError(
        f"{name} has shape {tuple(value.shape)}; give a number, the grid's shape {shape}, or (batch, 1, *shape)"
    )


def _locate(k: Tensor, bad: Tensor, grid: Grid) -> str:
    index = tuple(int(i) for i in torch.nonzero(bad)[0]) if k.ndim else ()
    text = f"{float(k[index].detach()):.3g}"
    if k.ndim and k.shape[2:] == torch.Size(grid.shape):
        where = zip("xyz", grid.coordinates(), index[2:], strict=False)
        text += " at " + ", ".join(f"{axis}={float(points[i]):.3g}" for axis, points, i in where)
    return text + (f" of member {index[0]}" if k.ndim and k.shape[0] > 1 else "")


def laplacian(u: Tensor, space: Space) -> Tensor:
    """The discrete Laplacian of ``u`` with the side conditions of the space's grid, per volume (strong form)."""
    return _integrated_laplacian(u, space) / space.weights(u.dtype)


def _integrated_laplacian(u: Tensor, space: Space) -> Tensor:
    grid = space.grid
    operator = Diffusion(grid, 1.0, dtype=u.dtype, device=u.device)
    return operator.load(torch.zeros((1, 1, *grid.shape), dtype=u.dtype, device=u.device)) - operator(u)


def example() -> Any:
    """A small operator with every kind of side, on an uneven box."""
    grid = Grid(
        (9, 14, 11), (1.0, 2.0, 0.7), {"x": Dirichlet(1.0), "y": (Neumann(0.5), Robin(2.0, 1.0)), "z": Periodic()}
    )
    x, y, z = grid.points()
    return Diffusion(grid, 1 + 0.5 * torch.sin(x + 2 * y) * torch.cos(6.283185307179586 * z / 0.7))
