r"""Gaussian processes on tensor grids: the matrix of an equation without mixed derivatives as a sum of Kronecker products.

For ``L = sum over axes of L_a`` with constant coefficients and a product kernel, with ``K_a``, ``C_a = L_a k_a`` and ``S_a = L_a L_a' k_a`` on the nodes of
an axis,

    K = sum_a S_a (x) K_b... + sum_(a /= b) C_a (x) C_b^T (x) K_c...

One basis per axis, orthonormal for ``K_a / tr K_a + S_a / tr S_a``, makes ``K_a`` and ``S_a`` diagonal, and with them the first sum. By the inequality of Cauchy
and Schwarz ``K`` is at most ``dim`` times the first sum, and where the parts of ``L u`` along the axes are not negatively correlated, at least the first sum:
conjugate gradients with its inverse then need some twenty steps whatever the grid. Draws follow from draws of the prior by one solve (Matheron's rule).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from sciml.domains.grid import Grid
from sciml.learned._kernels import AxisCovariance
from sciml.learned._linear_form import LinearForm
from sciml.learned._posterior import EPS, JITTERS, Prior, factored

__all__ = ["Kronecker"]

STEPS = 600
PATIENCE = 60
TOLERANCE = 1e-13


@dataclass(frozen=True, eq=False)
class _Axis:
    """One axis: its covariance, nodes, the orders of ``L_a``, and the basis ``V = R^-T Q`` with ``R R^T = K/tr K + S/tr S``.

    ``plain`` and ``both`` are the diagonals of ``V^T K V`` and ``V^T S V``, ``left`` is ``V^T C V``. ``V`` is applied by triangular
    solves: products with its entries would lose all digits where the kernel is smooth.
    """

    covariance: AxisCovariance
    nodes: Tensor
    orders: dict[int, float]
    lower: Tensor
    rotation: Tensor
    plain: Tensor
    both: Tensor
    left: Tensor
    jitter: float

    @staticmethod
    def of(covariance: AxisCovariance, nodes: Tensor, orders: dict[int, float]) -> _Axis | None:
        """None where no jitter makes the matrices definite."""
        plain = covariance(nodes, 0, nodes, 0)
        left = _applied(covariance, nodes, orders, nodes, {0: 1.0})
        both = _applied(covariance, nodes, orders, nodes, orders)
        one, two = float(plain.diagonal().mean()), float(both.diagonal().mean())
        if not (one > 0 and two > 0):
            return None
        metric = plain / one + both / two
        scale = metric.diagonal().sqrt()
        found = factored((metric + metric.T) / 2 / scale / scale.unsqueeze(1))
        if found is None:
            return None
        lower, jitter = found[0] * scale.unsqueeze(1), found[1]

        def inner(matrix: Tensor) -> Tensor:
            half = torch.linalg.solve_triangular(lower, matrix, upper=False)
            whole: Tensor = torch.linalg.solve_triangular(lower, half.mT, upper=False).mT
            return whole

        # Jitter counts as part of S: what the metric has beyond K.
        kappa = inner(plain / one)
        share, rotation = torch.linalg.eigh((kappa + kappa.T) / 2)
        kept = rotation.T @ inner(left) @ rotation
        for more in JITTERS:
            share = torch.maximum(share, torch.full_like(share, max(more, 4 * EPS)))
            k, s = one * share, two * (1 - share + max(more, 4 * EPS))
            # What holds of any covariances: rounding has broken it where the kernel is too smooth for the spacing.
            if bool((kept.square() <= (1 + 1e-6) * s.unsqueeze(1) * k).all()):
                return _Axis(covariance, nodes, orders, lower, rotation, k, s, kept, max(jitter, more))
        return None

    def turn(self, columns: Tensor) -> Tensor:
        """``V^T columns``, ``(n, many)``."""
        result: Tensor = self.rotation.T @ torch.linalg.solve_triangular(self.lower, columns, upper=False)
        return result

    @property
    def dual(self) -> Tensor:
        """``V^-T``: covariances of the nodes with the basis, before the diagonals."""
        return self.lower @ self.rotation

    def features(self, x: Tensor, order: int) -> tuple[Tensor, Tensor]:
        """Covariances ``(len(x), n)`` of ``d^order u`` at ``x`` with ``V^T u`` and with ``V^T L_a u``."""
        plain = self.covariance(x, order, self.nodes, 0)
        right = _applied(self.covariance, x, {order: 1.0}, self.nodes, self.orders)
        return self.turn(plain.T).T, self.turn(right.T).T


@dataclass(frozen=True, eq=False)
class Kronecker:
    """Observations of the interior equation at all nodes of a grid; nothing larger than one axis squared is formed."""

    prior: Prior
    axes: tuple[_Axis, ...]
    diagonal: Tensor

    @staticmethod
    def of(prior: Prior, grid: Grid, form: LinearForm) -> Kronecker | None:
        """None where a coefficient varies or a derivative is mixed, an axis has no derivative, or its matrices lose definiteness beyond repair."""
        if not form.uniform or any(len(set(index)) > 1 for index in form.factors):
            return None
        orders: list[dict[int, float]] = [{} for _ in range(grid.dim)]
        for index, c in form.factors.items():
            orders[index[0] if index else 0][len(index)] = float(c[0])
        if not all(orders):
            return None
        axes = []
        for covariance, x, own in zip(prior.axes, grid.coordinates(torch.float64), orders, strict=True):
            axis = _Axis.of(covariance, x, own)
            if axis is None:
                return None
            axes.append(axis)
        diagonal = torch.zeros((), dtype=torch.float64)
        for a in range(grid.dim):
            part = torch.ones((), dtype=torch.float64)
            for b, axis in enumerate(axes):
                part = part * _spread(axis.both if a == b else axis.plain, b, grid.dim)
            diagonal = diagonal + part
        return Kronecker(prior, tuple(axes), diagonal)

    @property
    def jitter(self) -> float:
        """The largest of the axes."""
        return max(axis.jitter for axis in self.axes)

    @property
    def count(self) -> int:
        """Number of nodes."""
        return self.diagonal.numel()

    def turn(self, data: Tensor) -> Tensor:
        """Data at the nodes in the basis, ``(count, ...)`` for ``(count, ...)``."""
        z = data.reshape(*self.diagonal.shape, -1)
        for a, axis in enumerate(self.axes):
            moved = z.movedim(a, 0)
            z = axis.turn(moved.reshape(len(moved), -1)).reshape(moved.shape).movedim(0, a)
        return z.reshape(data.shape)

    def solve(self, turned: Tensor) -> Tensor:
        """Conjugate gradients in the basis, all columns together."""
        many = 1 if turned.ndim == 1 else turned.shape[1]
        b = turned.reshape(self.count, many).T.reshape(many, *self.diagonal.shape)
        x = self._steps(b).reshape(many, self.count).T
        return x[:, 0] if turned.ndim == 1 else x

    def _steps(self, b: Tensor) -> Tensor:
        root = self.diagonal.sqrt()
        b = b / root
        x, r = torch.zeros_like(b), b
        p, rho = r, _dot(r, r)
        goal, best, idle = TOLERANCE**2 * rho, rho, 0
        for _ in range(STEPS):
            if bool((rho <= goal).all()) or idle > PATIENCE:
                break
            image = self._matrix(p / root) / root
            size = _dot(p, image)
            active = (rho > goal) & (size > 0)
            step = torch.where(active, rho / torch.where(active, size, torch.ones_like(size)), torch.zeros_like(rho))
            x, r = x + step * p, r - step * image
            fresh = _dot(r, r)
            p = torch.where(active, r + fresh / torch.where(rho > 0, rho, torch.ones_like(rho)) * p, p)
            rho = torch.where(active, fresh, rho)
            idle = 0 if bool((active & (rho < 0.5 * best)).any()) else idle + 1  # at rounding, nothing improves
            best = torch.minimum(best, rho)
        return x / root

    def _matrix(self, z: Tensor) -> Tensor:
        """The matrix in the basis."""
        total, dim = self.diagonal * z, len(self.axes)
        for a, b in product(range(dim), repeat=2):
            if a != b:
                part = z
                for c in range(dim):
                    part = part * _spread(self.axes[c].plain, c, dim) if c not in (a, b) else part
                total = total + _along(_along(part, self.axes[a].left, a), self.axes[b].left.T, b)
        return total

    def cross(self, form: LinearForm) -> Tensor:
        """Covariances of other functionals with the observations, in the basis."""
        total = torch.zeros(len(form.points), self.count, dtype=torch.float64)
        for index, c in form.factors.items():
            pairs = [axis.features(form.points[:, a], index.count(a)) for a, axis in enumerate(self.axes)]
            for a in range(len(pairs)):
                row = c.unsqueeze(1)
                for b, (plain, right) in enumerate(pairs):
                    row = (row.unsqueeze(2) * (right if a == b else plain).unsqueeze(1)).flatten(1)
                total = total + row
        return total

    def mean(self, weights: Tensor) -> Tensor:
        """``k^T weights`` at the nodes, ``(many, *grid)`` for weights ``(many, count)`` in the basis."""
        w, dim = weights.reshape(-1, *self.diagonal.shape), len(self.axes)
        total = torch.zeros_like(w)
        for a in range(dim):
            part = w
            for b, axis in enumerate(self.axes):
                part = _along(part, axis.left.T, b) if a == b else part * _spread(axis.plain, b, dim)
            total = total + part
        for b, axis in enumerate(self.axes):
            total = _along(total, axis.dual, b)
        return total

    def draws(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws of the posterior's deviation from its mean, ``(count, *grid)``: ``u - k^T K^-1 L u`` for draws ``u`` of the prior."""
        shape, roots = self.diagonal.shape, []
        for axis in self.axes:
            x, own = axis.nodes, axis.orders
            plain, left = axis.covariance(x, 0, x, 0), _applied(axis.covariance, x, own, x, {0: 1.0})
            both = torch.cat(
                (torch.cat((plain, left.T), 1), torch.cat((left, _applied(axis.covariance, x, own, x, own)), 1))
            )
            size, q = torch.linalg.eigh(both)
            roots.append(q * size.clamp_min(0.0).sqrt())
        z = torch.randn(count, *(2 * n for n in shape), generator=generator, dtype=torch.float64)
        for a, root in enumerate(roots):
            z = _along(z, root, a)
        u = z[(slice(None), *(slice(0, n) for n in shape))]
        image = torch.zeros_like(u)
        for a in range(len(shape)):
            image = image + z[(slice(None), *(slice(n, None) if a == b else slice(0, n) for b, n in enumerate(shape)))]
        weights = self.solve(self.turn(image.reshape(count, -1).T))
        return u - self.mean(weights.T)


def _spread(values: Tensor, axis: int, dim: int) -> Tensor:
    return values.reshape([-1 if a == axis else 1 for a in range(dim)])


def _applied(
    covariance: AxisCovariance, x: Tensor, left: dict[int, float], y: Tensor, right: dict[int, float]
) -> Tensor:
    """``Cov(sum_a left_a d^a u(x), sum_b right_b d^b u(y))`` along an axis."""
    total = torch.zeros(len(x), len(y), dtype=x.dtype)
    for a, c in left.items():
        for b, d in right.items():
            total = total + c * d * covariance(x, a, y, b)
    return total


def _along(z: Tensor, matrix: Tensor, axis: int) -> Tensor:
    return (matrix @ z.movedim(axis + 1, -2)).movedim(-2, axis + 1) if z.ndim - 2 != axis else z @ matrix.T


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))
