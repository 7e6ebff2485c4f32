"""Side conditions as objects: what holds on one side of a domain.

With ``k`` the coefficient of the equation and ``n`` the outward normal,

* ``Dirichlet(g)``:   ``u = g``
* ``Neumann(h)``:     ``k du/dn = h``
* ``Robin(a, g)``:    ``k du/dn + a u = g``, ``a >= 0``
* ``Periodic()``:     the two sides of the axis are one.

A value is a number, or a tensor of the shape of the side (``grid.shape`` without that axis), or the same with leading
``(batch, channel)`` axes. Values are leaves of the problem: ``x_lower``, ``y_upper``, ... (``x_lower_rate`` for Robin's
``a``), so they can be replaced, differentiated and inverted for like any other tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Condition", "Dirichlet", "Neumann", "Periodic", "Robin"]

Value = float | Tensor


@dataclass(frozen=True, eq=False)
class Dirichlet:
    """``u = value`` on the side; the nodes on it are not unknowns."""

    value: Value = 0.0


@dataclass(frozen=True, eq=False)
class Neumann:
    """``k du/dn = value`` on the side (flux into the domain); the nodes on it are unknowns with half a cell."""

    value: Value = 0.0


@dataclass(frozen=True, eq=False)
class Robin:
    """``k du/dn + rate u = value`` on the side, ``rate >= 0``; the nodes on it are unknowns with half a cell."""

    rate: Value = 1.0
    value: Value = 0.0


@dataclass(frozen=True, eq=False)
class Periodic:
    """The axis closes on itself; both of its sides must say so."""


Condition = Dirichlet | Neumann | Robin | Periodic
