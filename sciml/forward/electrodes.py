r"""Electrode models of impedance tomography: how currents enter a conductor and which potential is read.

With ``sigma`` the conductivity, ``u`` the potential, electrodes ``e_l`` on the boundary with currents ``I_l`` and potentials ``U_l``:

* complete: ``u + z_l sigma du/dn = U_l`` on ``e_l`` with the contact impedance ``z_l``, ``int_{e_l} sigma du/dn = I_l`` (Somersalo, Cheney
  and Isaacson, SIAM J. Appl. Math. 52, 1992, doi 10.1137/0152060). The model that explains measurements to their precision.
* shunt: its limit ``z = 0``, ``u = U_l`` on ``e_l``.
* gap: ``sigma du/dn = I_l / |e_l|`` on ``e_l``; the mean of ``u`` over ``e_l`` is read.
* point: the current enters at a node, whose potential is read.

Everywhere else on the boundary no current flows. In the plane a conductivity is per unit of thickness: with ``sigma`` in siemens (S/m times
the height of the tank), currents in amperes give volts, and ``z`` is in ohm times the unit of length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciml.discretise.triangles import TriangleElements
from sciml.domains.errors import InputError
from sciml.domains.mesh import Mesh

__all__ = ["CompleteElectrodes", "Electrodes", "GapElectrodes", "PointElectrodes", "ShuntElectrodes", "Wiring"]


@dataclass(frozen=True, eq=False)
class Wiring:
    """What a model adds to the finite elements: the unknown of every one of theirs, ``(n,)`` of ``count``; entries of the matrix that are multiplied by
    ``1 / z`` of an electrode; and the load of one unit of current into every electrode, ``(count, electrodes)``, whose transpose reads potentials."""

    unknowns: Tensor
    count: int
    load: Tensor
    rows: Tensor
    columns: Tensor
    electrode: Tensor
    values: Tensor


class Electrodes(ABC):
    """Abstract: ``number`` electrodes on a mesh. ``sides`` names them in order; empty: all sides called ``electrode_0``, ``electrode_1``, ..."""

    sides: tuple[str, ...]

    @abstractmethod
    def wiring(self, mesh: Mesh, elements: TriangleElements) -> Wiring:
        """The model on a mesh."""

    def impedances(self) -> Tensor | None:
        """Contact impedances, where the model has them."""
        return None

    def names(self, mesh: Mesh) -> tuple[str, ...]:
        """The sides of the electrodes, in order."""
        if self.sides:
            return self.sides
        found = [name for name in mesh.sides if name.startswith("electrode_") and name[10:].isdigit()]
        if not found:
            raise InputError(
                f"the mesh has no sides electrode_0, electrode_1, ... (its sides: {', '.join(mesh.sides) or 'none'}); name them with sides=(...), or make the mesh with electrodes=16"
            )
        return tuple(sorted(found, key=lambda name: int(name[10:])))

    def number(self, mesh: Mesh) -> int:
        """How many there are."""
        return len(self.names(mesh))

    def validate(self, name: str, mesh: Mesh) -> None:  # noqa: B027 - most models have no number to refuse
        """Raise InputError for numbers that make no model."""


def _plain(unknowns: Tensor, count: int, load: Tensor) -> Wiring:
    none = torch.zeros(0, dtype=torch.int64)
    return Wiring(unknowns, count, load, none, none, none, torch.zeros(0, dtype=torch.float64))


def _apart(mesh: Mesh, names: tuple[str, ...]) -> None:
    """Electrodes that touch short each other."""
    owner: dict[int, str] = {}
    for name in names:
        for node in torch.unique(mesh.side(name)).tolist():
            if owner.setdefault(node, name) != name:
                raise InputError(f"{owner[node]} and {name} share node {node}; leave a gap between electrodes")


@dataclass(frozen=True, eq=False)
class CompleteElectrodes(Electrodes):
    """The complete electrode model. ``contact`` are the contact impedances, a number or one per electrode, positive.

    *Fails when* they are many orders of magnitude below ``h / sigma`` (the size of a triangle): rounding; take ShuntElectrodes.
    """

    contact: Tensor | float = field(default=0.01, metadata={"shared": True})
    sides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        contact = torch.as_tensor(self.contact)
        contact = contact if contact.is_floating_point() else contact.to(torch.float64)
        object.__setattr__(
            self, "contact", contact.to(torch.float64) if not isinstance(self.contact, Tensor) else contact
        )

    def impedances(self) -> Tensor:
        """``contact``."""
        assert isinstance(self.contact, Tensor)
        return self.contact

    def validate(self, name: str, mesh: Mesh) -> None:
        """Impedances are positive and as many as electrodes."""
        z, count = self.impedances().detach(), self.number(mesh)
        if z.ndim > 1 or z.numel() not in (1, count):
            raise InputError(
                f"{name!r}: there are {count} electrodes and contact impedances of shape {tuple(z.shape)}; give a number, or one per electrode"
            )
        if not bool((z > 0).all()) or not bool(torch.isfinite(z).all()):
            raise InputError(
                f"{name!r}: a contact impedance is {float(z.min()):.3g}; it must be positive and finite (ShuntElectrodes is the limit of none)"
            )

    def wiring(self, mesh: Mesh, elements: TriangleElements) -> Wiring:
        """One unknown per electrode beside the nodes; the edges of an electrode give ``(u - U)^2 / z`` integrated over it."""
        names, n = self.names(mesh), elements.count(mesh)
        _apart(mesh, names)
        local, sums = elements.mass, elements.mass.sum(1)
        rows, columns, plates, values = [], [], [], []
        for plate, name in enumerate(names):
            edges = mesh.side(name)
            h, own = mesh.lengths(edges), elements.along(mesh, edges)
            k = own.shape[1]
            mine = torch.full_like(own, n + plate)
            for row, column, share in (
                (own.unsqueeze(2).expand(-1, k, k), own.unsqueeze(1).expand(-1, k, k), h.reshape(-1, 1, 1) * local),
                (own, mine, -h.unsqueeze(1) * sums),
                (mine, own, -h.unsqueeze(1) * sums),
                (mine[:, 0], mine[:, 0], h),
            ):
                rows.append(row.reshape(-1))
                columns.append(column.reshape(-1))
                values.append(share.reshape(-1))
                plates.append(torch.full_like(rows[-1], plate))
        load = torch.zeros((n + len(names), len(names)), dtype=torch.float64)
        load[n:] = torch.eye(len(names), dtype=torch.float64)
        tied = torch.cat(rows), torch.cat(columns), torch.cat(plates), torch.cat(values)
        return Wiring(torch.arange(n), n + len(names), load, *tied)


@dataclass(frozen=True, eq=False)
class ShuntElectrodes(Electrodes):
    """The shunt model: an electrode has one potential."""

    sides: tuple[str, ...] = ()

    def wiring(self, mesh: Mesh, elements: TriangleElements) -> Wiring:
        """The nodes of an electrode are one unknown."""
        names, n = self.names(mesh), elements.count(mesh)
        _apart(mesh, names)
        head = torch.arange(n)
        for name in names:
            nodes = torch.unique(elements.along(mesh, mesh.side(name)))
            head[nodes] = nodes[0]
        kept, unknowns = torch.unique(head, return_inverse=True)
        load = torch.zeros((len(kept), len(names)), dtype=torch.float64)
        for plate, name in enumerate(names):
            load[unknowns[mesh.side(name)[0, 0]], plate] = 1.0
        return _plain(unknowns, len(kept), load)


@dataclass(frozen=True, eq=False)
class GapElectrodes(Electrodes):
    """The gap model: a current is spread evenly over its electrode, and the mean potential is read."""

    sides: tuple[str, ...] = ()

    def wiring(self, mesh: Mesh, elements: TriangleElements) -> Wiring:
        """Loads integrated over the edges."""
        names, n = self.names(mesh), elements.count(mesh)
        load = torch.zeros((n, len(names)), dtype=torch.float64)
        for plate, name in enumerate(names):
            edges = mesh.side(name)
            h = mesh.lengths(edges)
            share = (h / h.sum()).unsqueeze(1) * elements.mass.sum(1)
            load[:, plate].index_add_(0, elements.along(mesh, edges).reshape(-1), share.reshape(-1))
        return _plain(torch.arange(n), n, load)


@dataclass(frozen=True, eq=False)
class PointElectrodes(Electrodes):
    """The point model at the nodes with these numbers; empty: at the middle nodes of the sides.

    *Fails when* the mesh is refined: the potential at a point source grows with the logarithm of ``1/h``. Differences of potentials at other
    electrodes converge.
    """

    nodes: tuple[int, ...] = ()
    sides: tuple[str, ...] = ()

    def names(self, mesh: Mesh) -> tuple[str, ...]:
        """Numbers as names, where nodes are given."""
        return tuple(f"node_{i}" for i in self.nodes) if self.nodes else super().names(mesh)

    def wiring(self, mesh: Mesh, elements: TriangleElements) -> Wiring:
        """Loads at single nodes."""
        n, count = len(mesh.nodes), elements.count(mesh)
        places = list(self.nodes)
        for name in () if self.nodes else self.names(mesh):
            nodes = torch.unique(mesh.side(name))
            away = (mesh.nodes[nodes] - mesh.nodes[nodes].mean(0)).square().sum(1)
            places.append(int(nodes[away.argmin()]))
        if len(set(places)) != len(places) or not all(0 <= i < n for i in places):
            raise InputError(f"point electrodes stand at {len(places)} different nodes out of {n}, not at {places}")
        load = torch.zeros((count, len(places)), dtype=torch.float64)
        load[torch.tensor(places), torch.arange(len(places))] = 1.0
        return _plain(torch.arange(count), count, load)


def example() -> CompleteElectrodes:
    """Electrodes with a contact impedance each."""
    return CompleteElectrodes(torch.tensor([0.02, 0.05, 0.01, 0.03], dtype=torch.float64))
