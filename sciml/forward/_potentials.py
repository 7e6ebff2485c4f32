"""Potentials of all electrodes from one factorisation: the pattern of the matrix, its values, and a solve with derivatives.

The matrix is ``A = sum_k sigma_k S_k + sum_l T_l / z_l`` without the row and column of one grounded unknown, so that it is symmetric and positive
definite. The order of the unknowns (reverse Cuthill-McKee) and the pattern belong to the mesh and are found once; the matrices of all members are factored in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sciml.discretise.triangles import TriangleElements
from sciml.domains.errors import InputError
from sciml.domains.mesh import Mesh
from sciml.forward._blocks import Factor, factored
from sciml.forward.electrodes import Wiring

MOST = {
    "cpu": 1,
    "cuda": 500_000_000,
}  # entries of factors made at a time: one member for the caches of a CPU, or the memory


class System:
    """The pattern of ``A`` on a mesh with electrodes; ``values`` are its lower entries in the order of the pattern."""

    def __init__(self, mesh: Mesh, elements: TriangleElements, wiring: Wiring) -> None:
        import numpy as np
        from scipy.sparse import coo_array, csr_array
        from scipy.sparse.csgraph import connected_components

        count, own = wiring.count, wiring.unknowns[elements.unknowns(mesh)]
        slopes, weights = elements.slopes(mesh)
        local = torch.einsum("mqid,mqjd,mq->mij", slopes, slopes, weights)
        m, k = own.shape
        rows = torch.cat((own.unsqueeze(2).expand(-1, k, k).reshape(-1), wiring.rows)).numpy()
        columns = torch.cat((own.unsqueeze(1).expand(-1, k, k).reshape(-1), wiring.columns)).numpy()
        graph = csr_array((np.ones(len(rows)), (rows, columns)), shape=(count, count))
        if connected_components(graph, directed=False)[0] > 1:
            raise InputError("the mesh falls into several parts; a current could not pass between them")
        ground = int(wiring.load[:, -1].abs().argmax())
        order = _ordered(graph, ground, mesh)
        place = np.full(count, -1, dtype=np.int64)
        place[order] = np.arange(len(order))
        self.place, self.size, self.count = torch.from_numpy(place), len(order), count
        i, j = place[rows], place[columns]
        kept = (i >= j) & (j >= 0)
        keys, slot = np.unique(j[kept] * self.size + i[kept], return_inverse=True)
        self.rows, self.columns = keys % self.size, keys // self.size
        entries = np.concatenate((local.reshape(-1).numpy(), wiring.values.numpy()))[kept]
        source = np.concatenate((np.repeat(np.arange(m), k * k), m + wiring.electrode.numpy()))[kept]
        self.electrodes = wiring.load.shape[1]
        width = m + self.electrodes
        made = coo_array((entries, (slot.reshape(-1), source)), shape=(len(keys), width)).tocsr()
        self.table, self.turned = made, made.T.tocsr()
        self.band = max(1, int((self.rows - self.columns).max()))
        self.blocks = -(-self.size // self.band)
        blocks, below = self.columns // self.band, self.rows // self.band - self.columns // self.band
        self.block = torch.from_numpy(2 * blocks + below)
        self.within = torch.from_numpy(self.rows % self.band * self.band + self.columns % self.band)
        self.row_index, self.column_index = torch.from_numpy(self.rows), torch.from_numpy(self.columns)
        load = torch.zeros((self.size, self.electrodes), dtype=torch.float64)
        mean = wiring.load.mean(1, keepdim=True)
        load[self.place[self.place >= 0]] = (wiring.load - mean)[self.place >= 0]
        self.load = load
        self.each = 2 * slopes.shape[1]  # numbers that make up the slope on an element
        rows = np.repeat(np.arange(m * self.each), k)
        steep = (slopes * weights.sqrt()[..., None, None]).mT.reshape(-1).numpy()
        corners = place[own.unsqueeze(1).expand(-1, self.each, k).reshape(-1).numpy()]
        inside = corners >= 0
        tilt = coo_array((steep[inside], (rows[inside], corners[inside])), shape=(m * self.each, self.size))
        self.tilt = tilt.tocsr()

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

    def factor(self, values: Tensor, room: Tensor | None = None) -> Factor:
        """The factorisation of every member; ``room`` is what an earlier call with as many members was given by ``blank``."""
        b, batch = self.band, len(values)
        whole = self.blank(values) if room is None else room
        whole.transpose(0, 1)[:, self.block.to(values.device), self.within.to(values.device)] = values.detach()
        whole = whole.reshape(self.blocks, 2, batch, b, b)
        rest = self.blocks * b - self.size
        if rest:
            whole[-1, 0, :, b - rest :, b - rest :] = torch.eye(rest, dtype=values.dtype, device=values.device)
        return factored(whole)

    def blank(self, values: Tensor) -> Tensor:
        """Zeros for the blocks of as many matrices; every matrix has its entries in the same places."""
        return values.new_zeros((2 * self.blocks, len(values), self.band**2))

    def solved(self, factor: Factor, right: Tensor) -> Tensor:
        """``A^-1`` of right-hand sides ``(batch or 1, size, k)``; NaN for members without a factor."""
        rest = self.blocks * self.band - self.size
        whole = torch.nn.functional.pad(right.detach(), (0, 0, 0, rest))
        whole = whole.reshape(len(whole), self.blocks, self.band, -1)
        return factor.solve(whole).flatten(1, 2)[:, : self.size]

    def potentials(self, values: Tensor) -> Tensor:
        """The potential of one unit of current into every electrode (out of all, evenly), ``(batch, size, electrodes)``."""
        if not (torch.is_grad_enabled() and values.requires_grad):
            return torch.cat(list(self._parts(values)))
        load = self.load.to(values.device).unsqueeze(0)
        found: Tensor = _Solve.apply(values, load.expand(len(values), -1, -1), self, self.factor(values))  # type: ignore[no-untyped-call]
        return found

    def _parts(self, values: Tensor) -> Iterator[Tensor]:
        """The potentials of a few members at a time."""
        load = self.load.to(values.device).unsqueeze(0)
        most = MOST.get(values.device.type, MOST["cpu"])
        room: Tensor | None = None
        for part in torch.split(values, max(1, most // (2 * self.blocks * self.band**2))):
            room = room if room is not None and room.shape[1] == len(part) else self.blank(part)
            yield self.solved(self.factor(part, room), load)

    def slopes(self, values: Tensor) -> Tensor:
        """Gradients of the potentials on the elements, times the roots of the weights: ``(batch, each * elements, electrodes)``."""
        if torch.is_grad_enabled() and values.requires_grad:
            found: Tensor = Rows.apply(self.potentials(values).mT, self.tilt, self.tilt.T.tocsr())  # type: ignore[no-untyped-call]
            return found.mT
        whole = roomy((len(values), self.tilt.shape[0], self.electrodes), values)
        member = 0
        for part in self._parts(values):
            for one in part.cpu().numpy():
                whole[member] = torch.from_numpy(self.tilt @ one)
                member += 1
        return whole

    def pair(self, y: Tensor, x: Tensor) -> Tensor:
        """The derivative of ``<y, A x>`` in the lower entries, ``(batch, entries)``."""
        i, j = self.row_index.to(x.device), self.column_index.to(x.device)
        found = (y[:, i] * x[:, j]).sum(2)
        return found + torch.where(i != j, (y[:, j] * x[:, i]).sum(2), torch.zeros_like(found))


def roomy(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Memory for large results: numpy asks the system for large pages, which are filled for the first time twice as fast."""
    import numpy as np

    if like.device.type != "cpu":
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, dtype=np.float32 if like.dtype == torch.float32 else np.float64))


def _ordered(graph: Any, ground: int, mesh: Mesh) -> Any:
    """All unknowns but the grounded one, in the order of the least bandwidth: reverse Cuthill-McKee with and without the ground, or along an axis."""
    import numpy as np
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    kept = np.delete(np.arange(graph.shape[0]), ground)
    whole = np.asarray(reverse_cuthill_mckee(graph, symmetric_mode=True))
    orders = [
        whole[whole != ground],
        kept[np.asarray(reverse_cuthill_mckee(graph[kept][:, kept], symmetric_mode=True))],
    ]
    if graph.shape[0] == len(mesh.nodes):
        orders += [kept[np.argsort(mesh.nodes[kept, axis].numpy(), kind="stable")] for axis in (0, 1)]
    rows, columns = graph.tocoo().coords
    inner = (rows != ground) & (columns != ground)

    def width(order: Any) -> int:
        place = np.empty(graph.shape[0], dtype=np.int64)
        place[order] = np.arange(len(order))
        return int(np.abs(place[rows[inner]] - place[columns[inner]]).max())

    return min(orders, key=width)


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
    def forward(ctx: Any, values: Tensor, right: Tensor, system: System, factor: Factor) -> Tensor:
        x = system.solved(factor, right)
        ctx.save_for_backward(values, x)
        ctx.system, ctx.factor, ctx.right = system, factor, right
        return x

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
        values, _ = ctx.saved_tensors
        system, factor = ctx.system, ctx.factor
        # The solution again, as a function of the entries, so that it can be differentiated once more.
        x = _Solve.apply(values, ctx.right, system, factor) if torch.is_grad_enabled() else ctx.saved_tensors[1]  # type: ignore[no-untyped-call]
        y: Tensor = _Solve.apply(values, upstream[0], system, factor)  # type: ignore[no-untyped-call]
        return -system.pair(y, x), y, None, None
