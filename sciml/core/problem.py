"""What is to be solved: Linear and Equation (one state), Evolution (a state in time).

A problem is a frozen dataclass whose tensors are its parameters. It knows its space, its fields by name, its targets,
and how to judge an answer; solvers know none of that.
"""

from __future__ import annotations

import copyreg
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from sciml.core import strong
from sciml.core.bounds import backward_error
from sciml.core.continuous import Continuous
from sciml.core.linear import LinearOperator
from sciml.core.recipe import Recipe, portable
from sciml.core.solution import Answer, Check, Code
from sciml.core.tree import Leaf, leaves, plain, rebuild, tensors
from sciml.domains.errors import InputError
from sciml.domains.space import Space, usable

__all__ = ["Linear", "Problem"]


def opaque(default: Any = None) -> Any:
    """A dataclass field that is not searched for tensors."""
    return field(default=default, metadata={"opaque": True}, repr=False)


class Problem(ABC):
    """Abstract: what every problem can do with its tensors, its recipe and an answer."""

    name: str
    recipe: Recipe | None
    recommend: Callable[[Any], Any] | None
    goals: Mapping[str, float]
    unknown: str
    symmetries: tuple[Any, ...]
    continuous: Continuous | None

    if TYPE_CHECKING:

        @property
        def space(self) -> Space:
            """The space of the unknown."""

    @abstractmethod
    def certify(self, answer: Answer | Tensor) -> tuple[Check, ...]:
        """The problem's own checks of an answer, in float64; gates have a target."""

    @abstractmethod
    def gauge(self, u: Tensor) -> Tensor:
        """The representative of an answer that is determined up to a null space; ``u`` itself otherwise."""

    @abstractmethod
    def default_targets(self) -> dict[str, float]:
        """Targets that hold unless ``with_target`` says otherwise; they know the dtype."""

    def __str__(self) -> str:
        """One line: what it is, how many members of what shape, its gates; ``repr`` shows every tensor."""
        gates = ", ".join(f"{name} {target:.2g}" for name, target in self.targets.items())
        members = f"{self.batch} member{'s' if self.batch > 1 else ''}"
        kind = str(self.space.dtype).removeprefix("torch.")
        return (
            f"{self.name}: {type(self).__name__}, {members} of shape {tuple(self.space.shape)}, {kind}, gates: {gates}"
        )

    @property
    def targets(self) -> Mapping[str, float]:
        """Named targets of the gates."""
        return {**self.default_targets(), **self.goals}

    @property
    def batch(self) -> int:
        """Number of members."""
        return max((leaf.tensor.shape[0] for leaf in leaves(self) if not leaf.shared), default=1)

    @property
    def fields(self) -> dict[str, Tensor]:
        """The problem's named fields, ``(batch or 1, channel, *space)``: what data sets are made of."""
        space = self.space.shape[1:]
        return {
            leaf.name: leaf.tensor
            for leaf in leaves(self)
            if not leaf.told and leaf.tensor.ndim == len(space) + 2 and leaf.tensor.shape[2:] == space
        }

    def parameters(self) -> dict[str, Tensor]:
        """Every tensor that the answer depends on, by name."""
        return tensors(self)

    def replace(self, **changes: Tensor | float) -> Self:
        """A copy with the named tensors replaced; shapes may change in the batch axis only."""
        known = self.parameters()
        fresh: dict[str, Tensor] = {}
        for name, value in changes.items():
            if name not in known:
                raise InputError(f"{self.name!r} has no tensor {name!r}; it has {', '.join(known) or 'none'}")
            old = known[name]
            new = value if isinstance(value, Tensor) else torch.full_like(old[:1] if old.ndim else old, value)
            fresh[name] = _fit(self.name, name, new, old)
        copy = rebuild(self, lambda leaf: fresh[leaf.name] if leaf.name in fresh and not leaf.told else leaf.tensor)
        copy = copy._without_truth() if fresh else copy
        return copy._with_recipe("replace", fresh)

    def _without_truth(self) -> Self:
        return dataclasses.replace(self, exact=None) if getattr(self, "exact", None) is not None else self  # type: ignore[type-var]

    def member(self, i: int) -> Self:
        """Member ``i`` as a problem of batch one."""
        batch = self.batch
        if not -batch <= i < batch:
            raise InputError(f"{self.name!r} has {batch} members; there is no member {i}")
        i %= batch

        def slice_(leaf: Leaf) -> Tensor:
            return leaf.tensor if leaf.shared or leaf.tensor.shape[0] == 1 else leaf.tensor[i : i + 1]

        return rebuild(self, slice_)._with_recipe("member", i) if batch > 1 else self

    def to(
        self,
        *where: torch.dtype | torch.device | str,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Self:
        """A copy in another dtype or on another device (complex tensors follow the precision)."""
        for one in where:
            if isinstance(one, torch.dtype):
                dtype = one
            else:
                device = one
        place = None if device is None else usable(device)

        def move(leaf: Leaf) -> Tensor:
            t, kind = leaf.tensor, dtype
            if kind is not None and not t.is_floating_point() and not t.is_complex():
                kind = None
            if kind is not None and t.is_complex() and not kind.is_complex:
                kind = torch.complex64 if kind == torch.float32 else torch.complex128
            same = (kind is None or t.dtype == kind) and (place is None or t.device == place)
            return t if same else t.to(device=place, dtype=kind)

        def settle(name: str, value: Any) -> Any:
            if isinstance(value, torch.dtype):
                return value if dtype is None or value == dtype else dtype
            return value if place is None or value == place else place

        copy = rebuild(self, move, settle)
        if copy is self or copy.recipe is None:
            return copy
        change: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
        if place is not None:
            change["device"] = str(place)
        for key, value in change.items():
            copy = copy._with_recipe("to", {key: value})
        return copy

    def with_target(self, **goals: float) -> Self:
        """A copy with other targets for its named gates."""
        for name, value in goals.items():
            if name not in self.targets:
                raise InputError(f"{self.name!r} has no gate {name!r}; its gates are {', '.join(self.targets)}")
            if not value > 0 or not math.isfinite(value):
                raise InputError(f"the target {name}={value} must be a positive number")
        copy: Self = dataclasses.replace(self, goals={**self.goals, **goals})  # type: ignore[type-var]
        return copy._with_recipe("with_target", goals)

    def _with_recipe(self, verb: str, argument: Any) -> Self:
        if self.recipe is None:
            return self
        return dataclasses.replace(self, recipe=self.recipe.changed(verb, argument))  # type: ignore[type-var]

    def explain(self, code: Code, answer: Answer) -> str:
        """One sentence on how it ended."""
        return answer.sentence or code.sentence

    def validate(self) -> None:
        """Raise InputError naming what is not finite, of another dtype or device, or of another batch."""
        space, batch = self.space, self.batch
        for leaf in leaves(self):
            t = leaf.tensor
            if t.numel() == 0:
                raise InputError(
                    f"{self.name!r}: {leaf.name} is empty, shape {tuple(t.shape)}; give at least one member"
                )
            if t.device != space.device:
                raise InputError(
                    f"{self.name!r}: {leaf.name} is on {t.device}, the space on {space.device}; move the whole with problem.to({str(space.device)!r})"
                )
            if t.is_complex() and not (space.complex or space.dtype.is_complex):
                raise InputError(f"{self.name!r}: {leaf.name} is complex, the space is real; pass its real part")
            if t.is_floating_point() and t.dtype != space.dtype and not leaf.told and not space.dtype.is_complex:
                raise InputError(
                    f"{self.name!r}: {leaf.name} is {t.dtype}, the space is {space.dtype}; bring all to one dtype with .to(...)"
                )
            if not leaf.shared and t.shape[0] not in (1, batch):
                raise InputError(
                    f"{self.name!r}: {leaf.name} has {t.shape[0]} members, others have {batch}; batches must agree"
                )
            if not leaf.told and not torch.isfinite(t).all():
                raise InputError(
                    f"{self.name!r}: {leaf.name} is {self.locate(t, ~torch.isfinite(t))}; all data must be finite"
                )

    def locate(self, t: Tensor, bad: Tensor) -> str:
        """The first flagged value of a tensor and where it stands: ``-0.2 at x=1.37, y=0.05``."""
        index = tuple(int(i) for i in torch.nonzero(bad)[0]) if t.ndim else ()
        value = float(t[index].detach().real) if t.is_complex() else float(t[index].detach())
        domain, shape = self.space.domain, self.space.shape[1:]
        text = f"{value:.3g}"
        if domain is not None and t.ndim == len(shape) + 2 and t.shape[2:] == shape:
            where = zip("xyz", domain.coordinates(), index[2:], strict=False)
            text += " at " + ", ".join(f"{axis}={float(points[i]):.3g}" for axis, points, i in where)
        elif index:
            text += f" at index {index}"
        return text + (f" of member {index[0]}" if t.ndim and t.shape[0] > 1 else "")

    def __reduce__(self) -> Any:
        recipe = self.recipe
        if recipe is None or not recipe.complete:
            return copyreg.__newobj__, (type(self),), portable(self.__dict__)  # type: ignore[attr-defined]
        known, again = self.parameters(), recipe.build()
        found = again.parameters()
        if known.keys() != found.keys() or plain(self) != plain(again):
            # Parts that no recipe tells of were changed behind its back (dataclasses.replace): pickle what there is.
            state = {**self.__dict__, "recipe": dataclasses.replace(recipe, complete=False)}
            return copyreg.__newobj__, (type(self),), portable(state)  # type: ignore[attr-defined]
        if known.keys() == found.keys():
            # Tensors changed so are put into it.
            changed = {key: value for key, value in known.items() if not torch.equal(value, found[key])}
            recipe = recipe.changed("replace", changed) if changed else recipe
        if dict(again.goals) != dict(self.goals):
            recipe = recipe.changed("with_target", dict(self.goals))
        return recipe.build, ()


def _fit(problem: str, name: str, new: Tensor, old: Tensor) -> Tensor:
    """``new`` in the canonical shape of ``old``: missing leading axes added, the batch axis free."""
    if new.ndim == 0 and new.is_floating_point():
        new = new.to(old.dtype)  # a number has no precision of its own
    if new.dtype != old.dtype and not new.is_complex():
        raise InputError(
            f"{problem!r}: the new {name} is {new.dtype}, the old one {old.dtype}; cast it with .to({old.dtype})"
        )
    if new.shape == old.shape:
        return new
    if old.ndim == 0:
        if new.ndim <= 1:
            return new.reshape(()) if new.numel() == 1 else new
    else:
        one = [n for n in old.shape[1:] if n != 1]
        if [n for n in new.shape if n != 1] == one:
            return new.reshape(1, *old.shape[1:])
        if new.ndim and [n for n in new.shape[1:] if n != 1] == one:
            return new.reshape(new.shape[0], *old.shape[1:])
    raise InputError(
        f"{problem!r}: the new {name} has shape {tuple(new.shape)}, the old one {tuple(old.shape)}; only the batch axis may differ"
    )


def as_field(name: str, value: Tensor | float, space: Space) -> Tensor:
    """A tensor in canonical field shape ``(batch, channel, *space)``; a number becomes a constant field."""
    if not isinstance(value, Tensor):
        return torch.full((1, *space.shape), float(value), dtype=space.dtype, device=space.device)
    shape = space.shape
    full = value
    if full.ndim == 0:
        return full.expand(1, *shape)
    if full.ndim <= len(shape):
        full = full.reshape((1,) * (len(shape) + 1 - full.ndim) + full.shape)
    if full.ndim != len(shape) + 1 or full.shape[1:] != torch.Size(shape):
        raise InputError(
            f"{name} has shape {tuple(value.shape)}; fields here are {tuple(shape[1:])}, or (batch, channel, *space) = (B, {', '.join(map(str, shape))})"
        )
    return full


def unpack(problem: Problem, answer: Answer | Tensor, shape: tuple[int, ...]) -> Tensor:
    """The value of an answer, checked for shape, in the highest precision of its kind."""
    value = answer.value if isinstance(answer, Answer) else answer
    if not isinstance(value, Tensor):
        raise InputError(f"{problem.name!r} certifies a tensor or an Answer, not {type(value).__name__}")
    if value.ndim == len(shape):
        value = value.unsqueeze(0)
    if value.is_complex() and not (problem.space.complex or problem.space.dtype.is_complex):
        raise InputError(f"{problem.name!r}: the answer is complex, the problem is real; certify its real part")
    if value.shape[1:] != torch.Size(shape) or value.shape[0] not in (1, problem.batch) and problem.batch != 1:
        raise InputError(
            f"{problem.name!r}: the answer has shape {tuple(value.shape)}; expected ({problem.batch}, {', '.join(map(str, shape))})"
        )
    return value.detach().to(torch.complex128 if value.is_complex() else torch.float64)


@dataclass(frozen=True, eq=False)
class Linear(Problem):
    """``operator(u) = operator.load(source)``: source plus boundary data, in integrated form.

    ``exact`` is a known solution at the nodes, kept for comparison only. Gate: ``discrete``, the normwise backward error
    ``|b - A u| / (|A| |u| + |b|)`` in float64 with a lower bound for ``|A|`` (Rigal and Gaches, J. ACM 14, 1967).
    """

    name: str
    operator: LinearOperator
    source: Tensor
    exact: Tensor | None = field(default=None, metadata={"told": True})
    continuous: Continuous | None = opaque()
    symmetries: tuple[Any, ...] = opaque(())
    goals: Mapping[str, float] = field(default_factory=dict, metadata={"opaque": True})
    recipe: Recipe | None = opaque()
    recommend: Callable[[Any], Any] | None = opaque()
    unknown: str = "u"

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", as_field("source", self.source, self.operator.codomain))
        if self.exact is not None:
            object.__setattr__(self, "exact", as_field("exact", self.exact, self.operator.space))

    @property
    def space(self) -> Space:
        """The operator's."""
        return self.operator.space

    @property
    def rhs(self) -> Tensor:
        """The integrated right-hand side, boundary data included."""
        return self.operator.load(self.source)

    def residual(self, u: Tensor) -> Tensor:
        """``operator(u) - rhs``."""
        return self.operator(u) - self.rhs

    def tangent(self, u: Tensor) -> LinearOperator:
        """The operator."""
        return self.operator

    def transposed(self, u: Tensor, gradient: Tensor) -> Linear:
        """The problem ``operator^H lambda = gradient``; for a singular operator the gradient is made compatible."""
        adjoint = self.operator.H
        gradient = project_out(gradient, adjoint.null_space())
        return Linear(f"{self.name}, transposed", adjoint, adjoint.source_of(gradient), goals=self.goals)

    def gauge(self, u: Tensor) -> Tensor:
        """``u`` without its part in the null space, if the operator has one."""
        return project_out(u, self.operator.null_space())

    def default_targets(self) -> dict[str, float]:
        """1e-10 in double precision, 1e-6 in single; those of functions beside."""
        discrete = 1e-10 if self.space.dtype in (torch.float64, torch.complex128) else 1e-6
        return {"discrete": discrete, **strong.targets(self)}

    def certify(self, answer: Answer | Tensor) -> tuple[Check, ...]:
        """The discrete backward error; of a function ``strong``, ``sides`` and ``agreement``."""
        u = unpack(self, answer, self.space.shape)
        with torch.no_grad():
            high = self.to(torch.float64).to(device=u.device)
            value = backward_error(high.residual(u), high.operator.size_bound(), u, high.rhs)
        return strong.judged(self, answer, (Check("discrete backward error", value, self.targets["discrete"]),))

    def validate(self) -> None:
        """Tensors, the operator's own conditions, and compatibility of the right-hand side with the null space."""
        super().validate()
        self.operator.validate(self.name)
        if self.operator.codomain.shape != self.operator.space.shape:
            raise InputError(
                f"{self.name!r}: the operator maps {self.operator.space.shape} to {self.operator.codomain.shape}; a Linear problem needs a square one"
            )
        with torch.no_grad():
            rhs = self.rhs
            for null in self.operator.H.null_space():
                off = (null * rhs).flatten(1).sum(1).abs()
                size = torch.linalg.vector_norm(rhs.flatten(1), dim=1)
                # Beyond rounding: the sum of n terms of which the target's share may be wrong.
                allowed = max(self.targets["discrete"], 64 * torch.finfo(self.space.dtype).eps) * size
                if (off > allowed).any():
                    member = int((off - allowed).argmax())
                    share = float(off[member] / size[member])
                    raise InputError(
                        f"{self.name!r} is singular and its right-hand side is incompatible: {share:.1e} of it lies in the null space (member {member}); subtract its mean, source - (source and boundary flux integrated) / volume"
                    )


def project_out(field_: Tensor, null: tuple[Tensor, ...]) -> Tensor:
    """``field_`` without its components along orthonormal null vectors."""
    for vector in null:
        axes = tuple(range(1, field_.ndim))
        field_ = field_ - vector * (vector.conj() * field_).sum(axes, keepdim=True)
    return field_
