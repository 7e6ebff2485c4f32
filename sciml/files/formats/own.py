"""sciml's own layout: PDEBench's single-file layout, with the names of the axes, units and recipe written down.

At the root: one contiguous dataset per field of the problem (`coefficient`, `u`), each with the attributes `dims`
(names of its axes) and `units`; `x-coordinate`, `y-coordinate`, `z-coordinate`, `t-coordinate`; and the root
attributes `sciml` (version of the layout), `recipe` and `grid` (JSON) and the numbers of the equation.
`grid` is `{"shape": [85], "extent": [1.0], "origin": [0.0], "sides": [["dirichlet", "dirichlet"]]}`; on reading, every
variable carries it and the recipe too, so that one taken by itself still knows where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError
from sciml.files.axes import Dims, assemble, check_names
from sciml.files.checkpoint import replacing
from sciml.files.heaps import attribute, attributes

if TYPE_CHECKING:
    import numpy
    import xarray

__all__ = ["VERSION", "Variable", "read", "recognise", "write"]

VERSION = 1
VECTOR = {"x": "x-coordinate", "y": "y-coordinate", "z": "z-coordinate", "time": "t-coordinate"}


@dataclass(frozen=True)
class Variable:
    """What is written about one field: its axes (`sample` first when it has members), shape, type and units."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str = "float32"
    units: str = ""


def recognise(path: str) -> bool:
    """True for an HDF5 file whose root has the attribute `sciml`."""
    from sciml.files.formats import hdf5
    from sciml.files.lazy import open_hdf5

    if not hdf5.recognise(path):
        return False
    with open_hdf5(path) as handle:
        return "sciml" in handle.attrs


def read(path: str, names: Mapping[str, str] | None = None, dims: Dims = None) -> xarray.Dataset:
    """Read lazily; the root attributes become attributes of the data set.

    Raises:
        InputError: truncated file, missing variable, a file of a later version.
    """
    from sciml.files.formats import hdf5
    from sciml.files.lazy import HDF5Array, open_hdf5

    with open_hdf5(path) as handle:
        attrs = attributes(handle)
        version = attrs.get("sciml")
        if not isinstance(version, int) or version > VERSION:
            raise InputError(
                f"'{path}' has version {version!r} of the layout and this sciml reads up to {VERSION}; upgrade sciml."
            )
        found = hdf5.numeric(handle)
        extra: dict[str, dict[str, Any]] = {}
        known: dict[str, tuple[str, ...]] = {}
        for name in found:
            extra[name] = {key: value for key, value in attributes(handle[name]).items() if key != "dims"}
            if name in VECTOR.values():
                continue
            if "dims" not in handle[name].attrs and found[name]:
                raise InputError(f"'{name}' of '{path}' has lost its 'dims' attribute; generate the file again.")
            listed = attribute(handle[name], "dims", [])
            extra[name] |= {key: attrs[key] for key in ("grid", "recipe") if key in attrs}
            known[name] = (listed,) if isinstance(listed, str) else tuple(str(axis) for axis in listed)
    check_names(path, names, [*found, *attrs])
    arrays = {name: HDF5Array(path, name) for name in found}
    return assemble(path, arrays, names, dims, known, attrs, extra)


def write(
    path: str,
    variables: Mapping[str, Variable],
    coordinates: Mapping[str, numpy.ndarray[Any, Any]],
    attrs: Mapping[str, Any],
    blocks: Iterable[Mapping[str, numpy.ndarray[Any, Any]]],
    *,
    folder: str | None = None,
) -> None:
    """Write a file member block by member block; it appears under its name only when it is whole and on disk.

    Args:
        path: the file to make.
        variables: axes, shape and type of every field.
        coordinates: one vector per axis name among `x y z time`.
        attrs: root attributes; text and numbers.
        blocks: consecutive runs of members; each maps every field with a `sample` axis to its values. Fields
            without that axis are taken from the first block.
        folder: where the unfinished file lies (on the same disk); beside `path` by default.

    Raises:
        InputError: the folder is not writable, the disk is full, or the blocks do not fill the fields.
    """
    import h5py
    import numpy as np

    with replacing(path, folder) as temporary:
        with h5py.File(temporary, "w", locking=False) as handle:
            handle.attrs["sciml"] = VERSION
            for key, value in attrs.items():
                handle.attrs[key] = value
            made = {}
            for name, variable in variables.items():
                made[name] = handle.create_dataset(name, shape=variable.shape, dtype=variable.dtype)
                made[name].attrs["dims"] = np.array(variable.dims, dtype=h5py.string_dtype())
                made[name].attrs["units"] = variable.units
            for axis, values in coordinates.items():
                handle.create_dataset(VECTOR[axis], data=np.asarray(values, dtype=np.float64))
            done = 0
            for index, block in enumerate(blocks):
                done += _fill(path, variables, made, block, done, first=index == 0)
            for name, variable in variables.items():
                if "sample" in variable.dims and variable.shape[0] != done:
                    raise InputError(
                        f"'{name}' for '{Path(path).name}' needs {variable.shape[0]} members and got {done}; "
                        "pass blocks that fill it."
                    )


def _fill(
    path: str,
    variables: Mapping[str, Variable],
    made: Mapping[str, Any],
    block: Mapping[str, numpy.ndarray[Any, Any]],
    done: int,
    *,
    first: bool,
) -> int:
    counts = set()
    for name, variable in variables.items():
        if "sample" not in variable.dims:
            if first:
                made[name][...] = block[name]
            continue
        values = block[name]
        if values.shape[1:] != variable.shape[1:] or done + len(values) > variable.shape[0]:
            raise InputError(
                f"a block of '{name}' for '{Path(path).name}' has shape {values.shape} where "
                f"{variable.shape} was announced from member {done}; pass blocks of the announced shape."
            )
        made[name][done : done + len(values)] = values
        counts.add(len(values))
    if len(counts) > 1:
        raise InputError(f"one block for '{Path(path).name}' has {sorted(counts)} members; use one count.")
    return counts.pop() if counts else 0
