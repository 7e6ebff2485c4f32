"""A law: a plain function of the state, with named tensors instead of hidden ones."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.domains.space import Space

__all__ = ["Law"]


@dataclass(frozen=True, eq=False, init=False)
class Law:
    """``Law(function, viscosity=nu, ...)``: ``function(u, *, viscosity, ..., space)`` with the tensors by name.

    For an Evolution the function is ``function(t, u, *, ...)``. ``space`` is passed if the function takes it. Tensors of
    shape () hold for all members, shape ``(batch,)`` gives one number per member, more axes are fields
    ``(batch, channel, *space)``. Tensors in the function's closure are refused: they could not be replaced, moved,
    differentiated or inverted for.
    """

    function: Callable[..., Tensor] = field(metadata={"opaque": True})
    parameters: Mapping[str, Tensor]

    def __init__(
        self, function: Callable[..., Tensor], parameters: Mapping[str, Tensor] | None = None, **tensors: Tensor
    ) -> None:
        named = {**(parameters or {}), **tensors}
        for name, value in named.items():
            if not isinstance(value, Tensor):
                raise InputError(
                    f"the law's {name!r} is {value!r}; pass torch.tensor({value!r}) so that it can be replaced and differentiated"
                )
        hidden = [str(name) for name, value in _surroundings(function) if _holds_tensor(value)]
        if hidden:
            raise InputError(
                f"the law hides the tensor {hidden[0]!r}; pass it by name, Law(function, {hidden[0]}={hidden[0]}), and take it as a keyword"
            )
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "parameters", named)

    def shaped(self, space: Space) -> Law:
        """The law with its tensors in shapes that broadcast with fields: numbers per member, and fields of the grid."""
        changed = {name: _shaped(name, value, space) for name, value in self.parameters.items()}
        return self if all(changed[k] is v for k, v in self.parameters.items()) else Law(self.function, changed)

    def __call__(self, *state: float | Tensor, space: Space) -> Tensor:
        """Evaluate at ``(u,)`` or ``(t, u)``."""
        extra = {"space": space} if _asks_for_space(self.function) else {}
        result = self.function(*state, **self.parameters, **extra)
        if not isinstance(result, Tensor):
            raise InputError(f"the law returned {type(result).__name__}; it must return a tensor of the shape of u")
        u = state[-1]
        if isinstance(u, Tensor) and result.shape[1:] != u.shape[1:]:
            raise InputError(
                f"the law returned shape {tuple(result.shape)} for u of shape {tuple(u.shape)}; they must agree"
            )
        return result


@functools.lru_cache(maxsize=256)
def _asks_for_space(function: Callable[..., Tensor]) -> bool:
    return "space" in inspect.signature(function).parameters


def _shaped(name: str, value: Tensor, space: Space) -> Tensor:
    grid = torch.Size(space.shape[1:])
    if value.ndim == 0 and value.is_floating_point():
        return value.to(space.dtype)  # a number has no precision of its own
    if value.ndim == 0 or (
        value.ndim == len(grid) + 2 and all(m in (1, n) for m, n in zip(value.shape[2:], grid, strict=True))
    ):
        return value
    if value.shape == grid:
        return value.reshape(1, 1, *grid)
    if value.ndim == 1:
        return value.reshape(-1, *[1] * (len(grid) + 1))
    raise InputError(
        f"the law's {name!r} has shape {tuple(value.shape)}; give a number, one number per member, the grid's shape "
        f"{tuple(grid)}, or (batch, channel, *space)"
    )


def _surroundings(function: Callable[..., Tensor]) -> list[tuple[str, object]]:
    """What a function sees beside its arguments: closure, globals, defaults, arguments of a partial."""
    found: list[tuple[str, object]] = list(getattr(function, "keywords", {}).items())
    found += [("a partial argument", value) for value in getattr(function, "args", ())]
    inner = getattr(function, "func", function)
    try:
        seen = inspect.getclosurevars(inner)
        found += [*seen.nonlocals.items(), *seen.globals.items()]
        found += [(p.name, p.default) for p in inspect.signature(inner).parameters.values()]
    except (TypeError, ValueError):
        pass  # a callable without Python source has nothing to look into
    return found


def _holds_tensor(value: object) -> bool:
    """A tensor, or a plain container with one in it."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return isinstance(value, Tensor) or (
        isinstance(value, list | tuple | set) and any(isinstance(v, Tensor) for v in value)
    )


def no_law(t: float, u: Tensor) -> Tensor:
    """The zero right-hand side."""
    return torch.zeros_like(u)
