"""Names for variables and axes: what the user said, checked against what the file holds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError

if TYPE_CHECKING:
    import xarray

__all__ = ["COORDINATES", "SPACE", "Dims", "assemble", "check_names", "label", "nearest", "plain", "scalar"]

SPACE = ("x", "y", "z")
COORDINATES = {
    "x-coordinate": "x",
    "y-coordinate": "y",
    "z-coordinate": "z",
    "t-coordinate": "time",
    "x": "x",
    "y": "y",
    "z": "z",
    "t": "time",
    "tt": "time",
    "time": "time",
}
"""Names under which files keep coordinate vectors, and the axis each belongs to."""

Dims = Sequence[str] | Mapping[str, Sequence[str]] | None
"""Names of axes: one tuple for all variables, or one per variable."""


def nearest(name: str, available: Iterable[str]) -> str:
    """The end of a sentence about a missing name: the nearest names, or all of them."""
    known = sorted(available)
    if not known:
        return "it holds no variables"
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "the nearest names are " + ", ".join(f"'{item}'" for item in close)
    return "it holds " + ", ".join(f"'{item}'" for item in known[:12])


def check_names(path: str, names: Mapping[str, str] | None, available: Iterable[str]) -> dict[str, str]:
    """Check a map from file names to ours: every key exists, no two variables get one name.

    Raises:
        InputError: a name is missing (the nearest are shown) or given twice.
    """
    known = list(available)
    chosen = dict(names or {})
    for name in chosen:
        if name not in known:
            raise InputError(f"'{path}' has no variable '{name}'; {nearest(name, known)}.")
    ours = list(chosen.values())
    for target in ours:
        if not isinstance(target, str) or not target:
            raise InputError(
                f"names= maps a variable to {target!r}; give it a name, as in names={{'nu': 'coefficient'}}."
            )
        if ours.count(target) > 1:
            raise InputError(f"names= gives two variables of '{path}' the name '{target}'; use one name for each.")
    return chosen


def _for(name: str, chosen: Mapping[str, str], dims: Dims) -> tuple[str, ...] | None:
    if isinstance(dims, Mapping):
        found = dims.get(name, dims.get(chosen.get(name, name)))
        return None if found is None else _as_dims(found)
    return None if dims is None else _as_dims(dims)


def _as_dims(dims: Sequence[str]) -> tuple[str, ...]:
    found = (dims,) if isinstance(dims, str) else tuple(dims)
    if not all(isinstance(name, str) and name for name in found) or len(set(found)) != len(found):
        raise InputError(f"dims={dims!r} must be different names of axes, as in dims=('sample', 'x', 'y').")
    return found


def label(
    path: str, shapes: Mapping[str, tuple[int, ...]], dims: Dims, chosen: Mapping[str, str]
) -> dict[str, tuple[str | None, ...]]:
    """Give every axis of every variable a name; None marks an axis of length one that is dropped.

    A variable with more axes than names loses axes of length one (last first). A variable with fewer takes the
    names whose sizes match, in order, when there is only one way to do it.

    Raises:
        InputError: the count cannot be made to fit, the sizes disagree, or the match is not unique.
    """
    found: dict[str, tuple[str | None, ...]] = {}
    sizes: dict[str, tuple[int, str]] = {}
    short: list[str] = []

    def settle(name: str, labels: tuple[str | None, ...]) -> None:
        for axis, size in zip(labels, shapes[name], strict=True):
            if axis is None:
                continue
            known = sizes.setdefault(axis, (size, name))
            if known[0] != size:
                raise InputError(
                    f"'{name}' of '{path}' has {size} along '{axis}' where '{known[1]}' has {known[0]}; "
                    "give dims= for each variable, as in dims={'" + name + "': (...)}."
                )
        found[name] = labels

    for name, shape in shapes.items():
        wanted = _for(name, chosen, dims)
        if wanted is None:
            raise InputError(
                f"'{path}' does not say what the axes of '{name}' {shape} are; "
                "give dims=, as in dims=('sample', 'x', 'y')."
            )
        surplus = len(shape) - len(wanted)
        ones = [axis for axis, size in enumerate(shape) if size == 1]
        if surplus == 0:
            settle(name, wanted)
        elif surplus > 0 and len(ones) >= surplus:
            dropped = set(ones[-surplus:])
            names = iter(wanted)
            settle(name, tuple(None if axis in dropped else next(names) for axis in range(len(shape))))
        elif surplus < 0 and not isinstance(dims, Mapping):
            short.append(name)
        else:
            raise InputError(
                f"'{name}' of '{path}' has {len(shape)} axes {shape} and dims names {len(wanted)} {wanted}; "
                "name each axis once, in the order of the file."
            )
    for name in short:
        shape = shapes[name]
        wanted = _for(name, chosen, dims) or ()
        fits = [
            pick
            for pick in combinations(wanted, len(shape))
            if all(axis in sizes and sizes[axis][0] == size for axis, size in zip(pick, shape, strict=True))
        ]
        if len(fits) != 1:
            how = "no axes of these sizes" if not fits else f"{len(fits)} ways to match it"
            raise InputError(
                f"'{name}' of '{path}' has shape {shape} and there are {how} among dims={wanted}; "
                "name its axes, as in dims={'" + name + "': (...), ...}."
            )
        settle(name, fits[0])
    return found


def assemble(
    path: str,
    arrays: Mapping[str, Any],
    names: Mapping[str, str] | None,
    dims: Dims,
    default: Mapping[str, Sequence[str]] | None = None,
    attrs: Mapping[str, Any] | None = None,
    variable_attrs: Mapping[str, Mapping[str, Any]] | None = None,
) -> xarray.Dataset:
    """An xarray.Dataset from arrays (in memory or lazy) whose axes the file itself does not name.

    `default` holds what a layout knows; `dims` from the user wins. With `names`, only the variables that were asked
    for, those in `default` (unless `dims` is given) and coordinate vectors are kept. Numbers become variables without
    axes.
    """
    import numpy as np
    import xarray
    from xarray.core import indexing

    given = dict(attrs or {})
    chosen = check_names(path, names, [*arrays, *given])
    vectors = {
        name: axis
        for name, axis in COORDINATES.items()
        if name in arrays and name not in chosen and _is_vector(arrays[name].shape) and not _named_by_user(name, dims)
    }
    known = dict(default or {})
    fields = [
        name
        for name in arrays
        if name not in vectors and (not chosen or name in chosen or (dims is None and name in known))
    ]
    numbers = [
        name
        for name in fields
        if all(size == 1 for size in arrays[name].shape) and name not in known and not _named_by_user(name, dims)
    ]
    fields = [name for name in fields if name not in numbers]
    if not fields:
        raise InputError(f"'{path}' holds no array that can be a variable; {nearest('u', arrays)}.")
    per_variable: Dims = dims
    if dims is None or isinstance(dims, Mapping):
        user = dict(dims or {})
        spelled = {name: found for name in fields if (found := _for(name, chosen, user)) is not None}
        rest = {name: tuple(known[name]) for name in fields if name in known and name not in spelled}
        left = {name: arrays[name].shape for name in fields if name not in spelled and name not in rest}
        matched = _by_vectors(left, {axis: max(arrays[name].shape) for name, axis in vectors.items()})
        per_variable = {**matched, **rest, **spelled}
    labels = label(path, {name: tuple(arrays[name].shape) for name in fields}, per_variable, chosen)
    sizes = {axis: size for name in fields for axis, size in zip(labels[name], arrays[name].shape, strict=True) if axis}

    def wrap(array: Any) -> Any:
        return array if isinstance(array, np.ndarray) else indexing.LazilyIndexedArray(array)

    variables: dict[str, Any] = {}
    for name in fields:
        ours = chosen.get(name, name)
        if ours in sizes:
            raise InputError(
                f"'{name}' of '{path}' has the name of an axis; rename it, as in names={{'{name}': 'coefficient'}}."
            )
        temporary = [axis if axis else f"_{index}" for index, axis in enumerate(labels[name])]
        variable = xarray.Variable(temporary, wrap(arrays[name]), dict((variable_attrs or {}).get(name, {})))
        drop = {axis: 0 for axis, kept in zip(temporary, labels[name], strict=True) if kept is None}
        if ours in variables:
            raise InputError(f"'{path}' has two variables that would be called '{ours}'; rename one with names=.")
        variables[ours] = variable.isel(drop) if drop else variable
    for name in numbers:
        variable = xarray.Variable([f"_{index}" for index in range(len(arrays[name].shape))], wrap(arrays[name]))
        variables[chosen.get(name, name)] = variable.isel(dict.fromkeys(variable.dims, 0))
    coordinates: dict[str, Any] = {}
    for name, axis in vectors.items():
        if axis in sizes and axis not in coordinates:
            coordinates[axis] = (axis, _fit_vector(path, name, axis, arrays[name], sizes[axis]))
    for name, ours in chosen.items():
        if name in given:
            given[ours] = given.pop(name)
    return xarray.Dataset(variables, coords=coordinates, attrs=given)


def _named_by_user(name: str, dims: Dims) -> bool:
    return isinstance(dims, Mapping) and name in dims


def _is_vector(shape: Sequence[int]) -> bool:
    return len(shape) >= 1 and sum(size != 1 for size in shape) <= 1 and all(size > 0 for size in shape)


def _by_vectors(shapes: Mapping[str, tuple[int, ...]], lengths: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Axes named by the only coordinate vector that has their length."""
    found = {}
    for name, shape in shapes.items():
        axes = [[axis for axis, length in lengths.items() if length == size] for size in shape]
        if all(len(options) == 1 for options in axes):
            picked = tuple(options[0] for options in axes)
            if len(set(picked)) == len(picked):
                found[name] = picked
    return found


def _fit_vector(path: str, name: str, axis: str, array: Any, size: int) -> Any:
    """The values of a coordinate vector; a time vector of interval edges loses its last entry."""
    import numpy as np
    import xarray
    from xarray.core import indexing

    lazy = (
        array
        if isinstance(array, np.ndarray)
        else xarray.Variable(tuple(str(i) for i in range(len(array.shape))), indexing.LazilyIndexedArray(array)).values
    )
    values = np.asarray(lazy).reshape(-1)
    if axis == "time" and values.size == size + 1:
        values = values[:-1]
    if values.size != size:
        raise InputError(
            f"'{name}' of '{path}' has {values.size} entries for an axis of {size}; "
            f"give dims= if '{axis}' is not the axis it belongs to."
        )
    return values


def plain(value: Any) -> Any:
    """An attribute as Python sees it best: text for bytes, a number for an array of one, a list for text arrays."""
    import numpy as np

    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        if value.size == 1:
            return plain(value.reshape(-1)[0])
        if value.dtype.kind in "OSU":
            return [plain(item) for item in value.reshape(-1)]
        return value
    if isinstance(value, np.generic):
        return value.item()
    return value


def scalar(value: Any) -> float | None:
    """The value as a real number, or None when it is not one."""
    found = plain(value)
    if isinstance(found, (bool, int, float)):
        return float(found)
    return None
