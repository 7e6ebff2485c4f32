"""Walking the tensors of nested frozen dataclasses: what gives problems their parameters, ``replace``, ``member``, ``to``.

A leaf is a tensor in a dataclass field, a tuple or a mapping. Its name is the name of its field (or its key); values of
side conditions are named for their side (``x_lower``, ``y_upper_rate``). The same tensor may stand in several places;
of two different tensors of one name the later one
goes by its whole path (``law_parameters_source``).

Field metadata: ``shared`` marks a tensor without batch axis; ``told`` one that the problem does not depend on (an exact
solution kept for comparison): it is sliced and moved with the rest but is no parameter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

__all__ = ["Leaf", "described", "leaves", "plain", "rebuild", "tensors", "unified"]

T = TypeVar("T")
AXES = "xyz"


class Leaf(NamedTuple):
    """A tensor found in a tree: where, under which name, and what its field says of it."""

    name: str
    path: tuple[str | int, ...]
    tensor: Tensor
    shared: bool
    told: bool


def leaves(tree: Any) -> Iterator[Leaf]:
    """All tensors below a dataclass, depth first."""
    yield from _walk(tree, (), False, False)


def _walk(node: Any, path: tuple[str | int, ...], shared: bool, told: bool) -> Iterator[Leaf]:
    if isinstance(node, Tensor):
        yield Leaf(_name(path), path, node, shared or node.ndim == 0, told)
    elif dataclasses.is_dataclass(node) and not isinstance(node, type):
        for field in dataclasses.fields(node):
            if field.metadata.get("opaque"):
                continue
            marks = field.metadata
            yield from _walk(
                getattr(node, field.name),
                (*path, field.name),
                shared or bool(marks.get("shared")),
                told or bool(marks.get("told")),
            )
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _walk(value, (*path, key), shared, told)
    elif isinstance(node, tuple | list):
        for index, value in enumerate(node):
            yield from _walk(value, (*path, index), shared, told)


def _name(path: tuple[str | int, ...]) -> str:
    if "sides" in path:
        at = path.index("sides")
        axis, side, part = path[at + 1 : at + 4]
        name = f"{AXES[int(axis)]}_{('lower', 'upper')[int(side)]}"
        return name if part == "value" else f"{name}_{part}"
    words = [step for step in path if isinstance(step, str)]
    return words[-1] if words else "tensor"


def described(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Everything a tree consists of: tensors, numbers, functions, with their paths."""
    if isinstance(node, Tensor):
        yield path, node
    elif dataclasses.is_dataclass(node) and not isinstance(node, type):
        yield path, type(node)
        for field in dataclasses.fields(node):
            yield from described(getattr(node, field.name), (*path, field.name))
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from described(value, (*path, key))
    elif isinstance(node, tuple | list):
        for index, value in enumerate(node):
            yield from described(value, (*path, index))
    else:
        yield path, node


def plain(problem: Any) -> dict[tuple[str | int, ...], Any]:
    """What a problem consists of beside its parameters: kinds of parts, numbers, and which told tensors there are."""
    told = {leaf.path for leaf in leaves(problem) if leaf.told}
    own = ("recipe", "recommend", "goals", "continuous", "symmetries")
    return {
        path: part.shape if isinstance(part, Tensor) else part
        for path, part in described(problem)
        if path
        and path[0] not in own
        and (path in told or not isinstance(part, Tensor))
        and (isinstance(part, Tensor | type | int | float | str | tuple) or part is None)
    }


def tensors(tree: Any) -> dict[str, Tensor]:
    """The parameters of a tree by name. Of two different tensors of one name the later one goes by its whole path."""
    names, found = _resolved(tree), {}
    for leaf in leaves(tree):
        if not leaf.told:
            found[names[leaf.path]] = leaf.tensor
    return found


def _resolved(tree: Any) -> dict[tuple[str | int, ...], str]:
    """The name of the leaf at each path."""
    names: dict[tuple[str | int, ...], str] = {}
    first: dict[str, Tensor] = {}
    for leaf in leaves(tree):
        mine = leaf.told or first.setdefault(leaf.name, leaf.tensor) is leaf.tensor
        names[leaf.path] = leaf.name if mine else "_".join(map(str, leaf.path))
    return names


def rebuild(tree: T, change: Callable[[Leaf], Tensor], other: Callable[[str, Any], Any] | None = None) -> T:
    """A copy in which each tensor is ``change(leaf)``; branches without a change stay the same objects.

    A tensor that stands in several places is changed once and stays one. ``other(field name, value)`` may change what is
    not a tensor (a dtype, a device).
    """
    done: dict[tuple[int, str, bool, bool], Tensor] = {}
    names = _resolved(tree)

    def once(leaf: Leaf) -> Tensor:
        leaf = leaf._replace(name=names[leaf.path])
        key = (id(leaf.tensor), leaf.name, leaf.shared, leaf.told)
        if key not in done:
            done[key] = change(leaf)
        return done[key]

    return _rebuild(tree, (), False, False, once, other)  # type: ignore[no-any-return]


def unified(tree: T, seen: dict[str, Tensor]) -> T:
    """A copy in which tensors of one name that are the same view of one tensor are one object; ``seen`` is added to.

    Two parts of a problem may each have given a tensor the axes they need.
    """

    def first(leaf: Leaf) -> Tensor:
        known, own = seen.setdefault(leaf.name, leaf.tensor), leaf.tensor
        same = known._base is not None and known._base is own._base and known.shape == own.shape
        same = same and known.stride() == own.stride() and known.storage_offset() == own.storage_offset()
        return known if same else own

    return rebuild(tree, first)


def _rebuild(
    node: Any,
    path: tuple[str | int, ...],
    shared: bool,
    told: bool,
    change: Callable[[Leaf], Tensor],
    other: Callable[[str, Any], Any] | None,
) -> Any:
    if isinstance(node, Tensor):
        return change(Leaf(_name(path), path, node, shared or node.ndim == 0, told))
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        new: dict[str, Any] = {}
        for field in dataclasses.fields(node):
            if field.metadata.get("opaque") or not field.init:
                continue
            old, marks = getattr(node, field.name), field.metadata
            value = _rebuild(
                old,
                (*path, field.name),
                shared or bool(marks.get("shared")),
                told or bool(marks.get("told")),
                change,
                other,
            )
            if other is not None and value is old and isinstance(old, torch.dtype | torch.device):
                value = other(field.name, old)
            if value is not old:
                new[field.name] = value
        return dataclasses.replace(node, **new) if new else node
    if isinstance(node, Mapping):
        items = {key: _rebuild(value, (*path, key), shared, told, change, other) for key, value in node.items()}
        return node if all(items[key] is node[key] for key in node) else items
    if isinstance(node, tuple) and not hasattr(node, "_fields"):
        row = tuple(_rebuild(value, (*path, index), shared, told, change, other) for index, value in enumerate(node))
        return node if all(a is b for a, b in zip(row, node, strict=True)) else row
    return node
