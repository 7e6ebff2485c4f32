"""PDEBench's single-file family (Takamoto et al. 2022, arXiv:2210.07182).

Fields lie at the root as plain float datasets, (sample, time, x[, y, z]) or (sample, x, y); beside them lie
`x-coordinate`, `y-coordinate`, `z-coordinate` and `t-coordinate`; the parameters of the equation are attributes
of the root. Two quirks are undone here: `t-coordinate` holds the edges of the output intervals and so is one
longer than the time axis (the last edge is dropped), and the Darcy `tensor` has an axis of length one where the
others have time (it is removed).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError
from sciml.files.axes import SPACE, Dims, assemble, check_names
from sciml.files.heaps import attributes

if TYPE_CHECKING:
    import xarray

__all__ = ["read", "recognise"]

VECTORS = ("x-coordinate", "y-coordinate", "z-coordinate", "t-coordinate")


def recognise(path: str) -> bool:
    """True for an HDF5 file with `x-coordinate` and at least one field of two axes or more at its root."""
    from sciml.files.formats import hdf5
    from sciml.files.lazy import open_hdf5

    if not hdf5.recognise(path):
        return False
    with open_hdf5(path) as handle:
        return "x-coordinate" in handle and bool(_fields(handle))


def read(path: str, names: Mapping[str, str] | None = None, dims: Dims = None) -> xarray.Dataset:
    """Read lazily. Parameters of the equation become attributes of the data set; `names` may rename them too.

    Raises:
        InputError: truncated file, missing variable, axes that do not match the coordinates.
    """
    from sciml.files.lazy import HDF5Array, open_hdf5

    with open_hdf5(path) as handle:
        attrs = attributes(handle)
        shapes = _fields(handle)
        vectors = {name: int(handle[name].size) for name in VECTORS if name in handle}
        extra = {
            name: {key: value for key, value in attributes(handle[name]).items() if key != "dims"} for name in shapes
        }
    check_names(path, names, [*shapes, *vectors, *attrs])
    arrays = {name: HDF5Array(path, name) for name in [*shapes, *vectors]}
    known = {name: axes(path, name, shape, vectors) for name, shape in shapes.items()}
    drop = {name: [axis for axis, kept in enumerate(found) if kept is None] for name, found in known.items()}
    default = {name: tuple(axis for axis in found if axis) for name, found in known.items()}
    if dims is None:
        lengths = {axis: vectors[vector] for axis, vector in zip(SPACE, VECTORS, strict=False) if vector in vectors}
        for name, shape in shapes.items():
            sizes = [size for axis, size in enumerate(shape) if axis not in drop[name]]
            for axis, size in zip(default[name], sizes, strict=True):
                if lengths.get(axis, size) != size:
                    raise InputError(
                        f"'{name}' of '{path}' has {size} points along {axis} and '{axis}-coordinate' has "
                        f"{lengths[axis]}; give dims= to name its axes."
                    )
    return assemble(path, arrays, names, dims, default, attrs, extra)


def _fields(handle: Any) -> dict[str, tuple[int, ...]]:
    import h5py

    return {
        name: tuple(int(n) for n in item.shape)
        for name, item in handle.items()
        if isinstance(item, h5py.Dataset) and name not in VECTORS and item.dtype.kind in "fiub" and len(item.shape) >= 2
    }


def axes(path: str, name: str, shape: tuple[int, ...], vectors: Mapping[str, int]) -> tuple[str | None, ...]:
    """The axes of a field of the layout; None is the axis of length one that is removed."""
    space = tuple(axis for axis, vector in zip(SPACE, VECTORS, strict=False) if vector in vectors)
    if len(shape) == len(space) + 1:
        return ("sample", *space)
    if len(shape) == len(space) + 2:
        return ("sample", None if shape[1] == 1 else "time", *space)
    raise InputError(
        f"'{name}' of '{path}' has {len(shape)} axes {shape} and the file has coordinates for {len(space)}; "
        "give dims=, as in dims=('sample', 'time', 'x')."
    )
