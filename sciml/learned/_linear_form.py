"""A strong form that is linear in ``u``, as coefficients of its derivatives: read off by asking it for one derivative at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciml.core.continuous import At
from sciml.domains.errors import InputError

__all__ = ["LinearForm", "linear_form"]

LARGE = 2.0**30
Index = tuple[int, ...]  # the axes along which is differentiated, sorted; () is the value


@dataclass(frozen=True, eq=False)
class _Probe(At):
    """Points at which ``u`` and its derivatives are given numbers, not those of a function."""

    jets: Mapping[Index, Tensor] = field(default_factory=dict)
    asked: set[Index] = field(default_factory=set)

    @property
    def u(self) -> Tensor:
        """The number given for the value."""
        return self._jet(())

    def d(self, *axes: int, of: str | None = None) -> Tensor:
        """The number given for a derivative of ``u``; derivatives of parameters are what they are."""
        return super().d(*axes, of=of) if of is not None else self._jet(tuple(sorted(axes)))

    @property
    def dt(self) -> Tensor:
        """The number given for the time derivative, whose axis comes after those of space."""
        if self.t is None:
            raise InputError("the strong form asks for a time derivative, but no time was given")
        return self._jet((len(self.x),))

    def _jet(self, index: Index) -> Tensor:
        self.asked.add(index)
        value = self.jets.get(index)
        return torch.zeros_like(self.x[0]) if value is None else value


@dataclass(frozen=True, eq=False)
class LinearForm:
    """``sum over indices of factors[index] D^index u + constant`` at points ``(N, axes)``; factors and constant are ``(N,)``."""

    points: Tensor
    factors: Mapping[Index, Tensor]
    constant: Tensor

    @property
    def uniform(self) -> bool:
        """Whether every factor is the same at all points, to rounding."""
        return all(float((c - c[0]).abs().max()) <= 1e-12 * float(c.abs().max()) for c in self.factors.values())

    def same(self, other: LinearForm) -> bool:
        """Whether the factors and the points, not the constants, are equal."""
        return (
            self.factors.keys() == other.factors.keys()
            and torch.equal(self.points, other.points)
            and all(torch.equal(c, other.factors[index]) for index, c in self.factors.items())
        )

    def parts(self, size: int = 512) -> Iterator[LinearForm]:
        """The same, some points at a time."""
        for i in range(0, len(self.points), size):
            cut = slice(i, i + size)
            yield LinearForm(self.points[cut], {index: c[cut] for index, c in self.factors.items()}, self.constant[cut])


def linear_form(
    function: Callable[[At], Tensor],
    x: tuple[Tensor, ...],
    parameters: Mapping[str, Tensor | Callable[..., Tensor]],
    t: Tensor | None = None,
) -> LinearForm | None:
    """The form that ``function`` states at points ``x`` (one tensor ``(N,)`` per axis); None if it is not linear in ``u``."""
    x = tuple(p.reshape(-1) for p in x)
    once = {name: value if isinstance(value, Tensor) else _Once(value) for name, value in parameters.items()}

    def ask(jets: Mapping[Index, Tensor]) -> tuple[Tensor, set[Index]]:
        probe = _Probe(x, _nowhere, once, t, jets)
        with torch.enable_grad():  # for derivatives of parameters
            value = torch.as_tensor(function(probe), dtype=torch.float64).detach()
        return value.expand(x[0].shape), probe.asked

    constant, asked = ask({})
    large = torch.full_like(x[0], LARGE)  # so that the constant leaves no rounding in the factors
    found = {index: _tidy((ask({index: large})[0] - constant) / LARGE) for index in sorted(asked)}
    if not all(bool(torch.isfinite(c).all()) for c in (constant, *found.values())):
        return None
    number = torch.arange(len(large), dtype=torch.float64)
    for size in (1.0, -3.0):
        jets = {index: size * (0.3 + torch.cos(number * (1.7 + i))) for i, index in enumerate(found)}
        meant, again = ask(jets)
        terms = [constant, *(c * jets[index] for index, c in found.items())]
        gap = (meant - torch.stack(terms).sum(0)).abs()
        if again != asked or not bool((gap <= 1e-9 * torch.stack(terms).abs().sum(0) + 1e-300).all()):
            return None
    axes = (*x, t) if t is not None else x
    sizes = {index: float(c.abs().max()) for index, c in found.items()}
    least = 1e-13 * max(sizes.values(), default=0.0)  # rounding of derivatives of parameters
    return LinearForm(torch.stack(axes, 1), {index: c for index, c in found.items() if sizes[index] > least}, constant)


class _Once:
    """A parameter as a function of position that remembers the last points it was asked for."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function, self.at, self.value = function, tuple[Tensor, ...](), torch.zeros(())

    def __call__(self, *x: Tensor) -> Tensor:
        if any(p.requires_grad for p in x):
            return self.function(*x)
        if len(x) != len(self.at) or any(p is not q for p, q in zip(x, self.at, strict=True)):
            self.at, self.value = x, self.function(*x).detach()
        return self.value


def _tidy(c: Tensor) -> Tensor:
    """Rounded to 48 bits: members whose data differ get the very same factors."""
    mantissa, exponent = torch.frexp(c)
    return torch.ldexp(torch.round(mantissa * 2.0**48) / 2.0**48, exponent)


def _nowhere(*_: Tensor) -> Tensor:
    raise InputError("the strong form evaluates u at points of its own choice; it must use at.u and at.d")
