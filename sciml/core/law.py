"""A law: a plain function of the state, with named tensors instead of hidden ones."""

from __future__ import annotations

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
        try:
            seen = inspect.getclosurevars(function)
            hidden = [n for where in (seen.nonlocals, seen.globals) for n, v in where.items() if isinstance(v, Tensor)]
        except TypeError:
            hidden = []
        if hidden:
            raise InputError(
                f"the law hides the tensor {hidden[0]!r}; pass it by name, Law(function, {hidden[0]}={hidden[0]}), and take it as a keyword"
            )
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "parameters", named)

    def shaped(self, dim: int) -> Law:
        """The law with per-member numbers ``(batch,)`` given the axes ``(batch, 1, ...)`` that broadcast with fields."""
        changed = {k: v.reshape(-1, *[1] * (dim + 1)) if v.ndim == 1 else v for k, v in self.parameters.items()}
        return self if all(changed[k] is v for k, v in self.parameters.items()) else Law(self.function, changed)

    def __call__(self, *state: float | Tensor, space: Space) -> Tensor:
        """Evaluate at ``(u,)`` or ``(t, u)``."""
        wants = inspect.signature(self.function).parameters
        extra = {"space": space} if "space" in wants else {}
        result = self.function(*state, **self.parameters, **extra)
        if not isinstance(result, Tensor):
            raise InputError(f"the law returned {type(result).__name__}; it must return a tensor of the shape of u")
        return result


def no_law(t: float, u: Tensor) -> Tensor:
    """The zero right-hand side."""
    return torch.zeros_like(u)
