"""The strong form of a problem, for methods that solve with functions instead of grid values.

Plain functions of ``At``, closing over no tensor: ``at.u``, ``at.d(0, 0)`` (second derivative along x), ``at.dt``,
``at["viscosity"]``, ``at.d(0, of="coefficient")``. The same functions check the discrete form (``checks.consistent``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["At", "Continuous"]


@dataclass(frozen=True, eq=False)
class At:
    """Points, and everything known there. ``x`` are the coordinates, one tensor per axis, all of one shape.

    ``function(*x)`` (``function(t, *x)`` for an evolution) is the candidate solution and must be differentiable;
    ``parameters`` are the problem's tensors: numbers, or functions of the coordinates.
    """

    x: tuple[Tensor, ...]
    function: Callable[..., Tensor]
    parameters: Mapping[str, Tensor | Callable[..., Tensor]] = field(default_factory=dict)
    t: Tensor | None = None

    def _inputs(self) -> tuple[Tensor, ...]:
        return self.x if self.t is None else (self.t, *self.x)

    @property
    def u(self) -> Tensor:
        """The candidate at the points."""
        return self.function(*self._inputs())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.parameters:
            raise InputError(
                f"the strong form asks for {name!r}; the problem has {', '.join(self.parameters) or 'no parameters'}"
            )
        value = self.parameters[name]
        return value if isinstance(value, Tensor) else value(*self.x)

    def d(self, *axes: int, of: str | None = None) -> Tensor:
        """A partial derivative of ``u``, or of the named parameter, along space axes in turn."""
        if of is not None and isinstance(self.parameters.get(of), Tensor):
            return torch.zeros_like(self.x[0])
        inputs = tuple(p.detach().requires_grad_() for p in self._inputs())
        points = inputs if self.t is None else inputs[1:]
        parameter = self.parameters.get(of) if of is not None else None
        result = parameter(*points) if callable(parameter) else self.function(*inputs)
        for axis in axes:
            result = _derivative(result, points[axis])
        return result.detach()

    @property
    def dt(self) -> Tensor:
        """The time derivative of ``u``."""
        if self.t is None:
            raise InputError("the strong form asks for a time derivative, but no time was given")
        inputs = tuple(p.detach().requires_grad_() for p in self._inputs())
        return _derivative(self.function(*inputs), inputs[0]).detach()


def _derivative(value: Tensor, along: Tensor) -> Tensor:
    (result,) = torch.autograd.grad(value.sum(), along, create_graph=True, allow_unused=True)
    return torch.zeros_like(along) if result is None else result


@dataclass(frozen=True, eq=False)
class Continuous:
    """The strong form: ``interior(at)`` vanishes inside, ``sides(at, name)`` on each side of the domain.

    ``energy`` and ``weak`` are integrands for variational methods; ``lift`` turns a free function into one that meets the
    side conditions; ``features`` maps coordinates to inputs that respect periodicity.
    """

    interior: Callable[[At], Tensor]
    sides: Callable[[At, str], Tensor] | None = None
    energy: Callable[[At], Tensor] | None = None
    weak: Callable[..., Tensor] | None = None
    lift: Callable[..., Tensor] | None = None
    features: Callable[..., Tensor] | None = None
