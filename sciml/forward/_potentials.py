"""Potentials of all electrodes from one factorisation: the pattern of the matrix, its values, and a solve with derivatives.

The matrix is ``A = sum_k sigma_k S_k + sum_l T_l / z_l`` without the row and column of one grounded unknown, so that it is symmetric and positive
definite. The order of the unknowns (reverse Cuthill-McKee) and the pattern belong to the mesh and are found once; a band of moderate width is
factored by LAPACK's banded Cholesky, a wide one by SuperLU in symmetric mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.domains.mesh import Mesh
from sciml.forward.electrodes import Wiring

Solve = Callable[[Any], Any]

WIDEST = 60_000_000  # entries of a band that is still quicker than a sparse factorisation


class System:
    """The pattern of ``A`` on a mesh with electrodes; ``values`` are its lower entries in the order of the pattern."""

    def __init__(self, mesh: Mesh, wiring: Wiring) -> None:
        import numpy as np
        from scipy.sparse import coo_array, csr_array
        from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee

        count, triangles = wiring.count, wiring.unknowns[mesh.triangles]
        table = mesh.gradients()
        local = torch.einsum("mid,mjd->mij", table, table) * mesh.areas().reshape(-1, 1, 1)
        rows = torch.cat((triangles.unsqueeze(2).expand(-1, 3, 3).reshape(-1), wiring.rows)).numpy()
        columns = torch.cat((triangles.unsqueeze(1).expand(-1, 3, 3).reshape(-1), wiring.columns)).numpy()
        graph = csr_array((np.ones(len(rows)), (rows, columns)), shape=(count, count))
        if connected_components(graph, directed=False)[0] > 1:
            raise InputError("the mesh falls into several parts; a current could not pass between them")
        ground = int(wiring.load[:, -1].abs().argmax())
        order = np.asarray(reverse_cuthill_mckee(graph, symmetric_mode=True))
        order = order[order != ground]
        place = np.full(count, -1, dtype=np.int64)
        place[order] = np.arange(len(order))
        self.place, self.size, self.count = torch.from_numpy(place), len(order), count
        i, j = place[rows], place[columns]
        kept = (i >= j) & (j >= 0)
        keys, slot = np.unique(j[kept] * self.size + i[kept], return_inverse=True)
        self.rows, self.columns = keys % self.size, keys // self.size
        entries = np.concatenate((local.reshape(-1).numpy(), wiring.values.numpy()))[kept]
        elements = len(triangles)
        source = np.concatenate((np.repeat(np.arange(elements), 9), elements + wiring.electrode.numpy()))[kept]
        self.electrodes = wiring.load.shape[1]
        width = elements + self.electrodes
        made = coo_array((entries, (slot.reshape(-1), source)), shape=(len(keys), width)).tocsr()
        self.table, self.turned = made, made.T.tocsr()
        self.band = int((self.rows - self.columns).max())
        self.where = self.columns * (self.band + 1) + self.rows - self.columns
        self.row_index, self.column_index = torch.from_numpy(self.rows), torch.from_numpy(self.columns)
        load = torch.zeros((self.size, self.electrodes), dtype=torch.float64)
        mean = wiring.load.mean(1, keepdim=True)
        load[self.place[self.place >= 0]] = (wiring.load - mean)[self.place >= 0]
        self.load = load
        self.full = torch.where(self.place >= 0, self.place, torch.full_like(self.place, self.size))

    def values(self, sigma: Tensor, admittance: Tensor | None) -> Tensor:
        """The lower entries ``(batch, entries)`` from conductivities ``(batch, elements)`` and ``1 / z`` ``(electrodes,)``."""
        batch = sigma.shape[0]
        rest = (
            sigma.new_zeros((batch, self.electrodes))
            if admittance is None
            else admittance.expand(batch, self.electrodes)
        )
        found: Tensor = Rows.apply(torch.cat((sigma, rest), 1), self.table, self.turned)  # type: ignore[no-untyped-call]
        return found

    def factors(self, values: Tensor) -> list[Solve | None]:
        """For each member a function that solves with right-hand sides ``(size, k)``; None where the matrix is not positive."""
        return [self._factor(row) for row in values.detach().cpu().numpy()]

    def _factor(self, values: Any) -> Solve | None:
        import numpy as np

        if not np.isfinite(values).all():
            return None
        if (self.band + 1) * self.size > WIDEST:
            return self._sparse(values)
        from scipy.linalg import lapack

        flat = np.zeros((self.band + 1) * self.size)
        flat[self.where] = values
        band, failed = lapack.dpbtrf(flat.reshape(self.size, self.band + 1).T, lower=1, overwrite_ab=1)
        if failed:
            return None
        return lambda right: lapack.dpbtrs(band, right, lower=1)[0]

    def _sparse(self, values: Any) -> Solve | None:
        import numpy as np
        from scipy.sparse import csc_array
        from scipy.sparse.linalg import splu

        off = self.rows != self.columns
        rows = np.concatenate((self.rows, self.columns[off]))
        columns = np.concatenate((self.columns, self.rows[off]))
        whole = csc_array((np.concatenate((values, values[off])), (rows, columns)), shape=(self.size, self.size))
        try:
            factor = splu(whole, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        except RuntimeError:
            return None
        solve: Solve = factor.solve
        return solve

    def solved(self, factors: list[Solve | None], right: Tensor) -> Tensor:
        """``A^-1`` of right-hand sides ``(batch or 1, size, k)``; NaN for members without a factor."""
        import numpy as np

        sides = right.detach().cpu().numpy()
        found = [
            np.full(sides.shape[1:], np.nan) if solve is None else solve(sides[i % len(sides)])
            for i, solve in enumerate(factors)
        ]
        return torch.from_numpy(np.stack(found)).to(right.device)

    def potentials(self, values: Tensor) -> Tensor:
        """The potential of one unit of current into every electrode (out of all, evenly), ``(batch, size, electrodes)``."""
        factors = self.factors(values)
        load = self.load.to(values.device).unsqueeze(0)
        if not (torch.is_grad_enabled() and values.requires_grad):
            return self.solved(factors, load)
        found: Tensor = _Solve.apply(values, load.expand(len(factors), -1, -1), self, factors)  # type: ignore[no-untyped-call]
        return found

    def everywhere(self, x: Tensor) -> Tensor:
        """All unknowns, the grounded one included: ``(batch, count, k)``."""
        return torch.nn.functional.pad(x, (0, 0, 0, 1))[:, self.full.to(x.device)]

    def pair(self, y: Tensor, x: Tensor) -> Tensor:
        """The derivative of ``<y, A x>`` in the lower entries, ``(batch, entries)``."""
        i, j = self.row_index.to(x.device), self.column_index.to(x.device)
        found = (y[:, i] * x[:, j]).sum(2)
        return found + torch.where(i != j, (y[:, j] * x[:, i]).sum(2), torch.zeros_like(found))


class Rows(torch.autograd.Function):
    """``x -> x table^T`` with a scipy table, and its transpose; linear, so that any derivative is one of the two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Any, turned: Any) -> Tensor:
        ctx.tables = table, turned
        return torch.from_numpy((table @ x.detach().cpu().numpy().T).T.copy()).to(x.device)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
        table, turned = ctx.tables
        return Rows.apply(upstream[0], turned, table), None, None  # type: ignore[no-untyped-call]


class _Solve(torch.autograd.Function):
    """``A^-1 right``, differentiable in the entries of ``A`` and in ``right``, any number of times, with one factorisation."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, right: Tensor, system: System, factors: list[Solve | None]) -> Tensor:
        x = system.solved(factors, right)
        ctx.save_for_backward(values, x)
        ctx.system, ctx.factors, ctx.right = system, factors, right
        return x

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
        values, _ = ctx.saved_tensors
        system, factors = ctx.system, ctx.factors
        # The solution again, as a function of the entries, so that it can be differentiated once more.
        x = _Solve.apply(values, ctx.right, system, factors) if torch.is_grad_enabled() else ctx.saved_tensors[1]  # type: ignore[no-untyped-call]
        y: Tensor = _Solve.apply(values, upstream[0], system, factors)  # type: ignore[no-untyped-call]
        return -system.pair(y, x), y, None, None
