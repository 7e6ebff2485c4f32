"""Any HDF5 file: axes come from `dims=`, from a `dims` attribute, or from attached dimension scales (netCDF-4).

Variables are named by their path inside the file, as in `exchange/data`. Text, compound and empty datasets are
left out; asking for one by name is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.files.axes import COORDINATES, Dims, assemble, check_names
from sciml.files.heaps import attribute, attributes

if TYPE_CHECKING:
    import xarray

__all__ = ["read", "recognise"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"


def recognise(path: str) -> bool:
    """True when the HDF5 signature stands at one of the offsets that the format allows."""
    with Path(path).open("rb") as file:
        offset = 0
        while True:
            file.seek(offset)
            found = file.read(8)
            if found == SIGNATURE:
                return True
            if len(found) < 8 or offset > 1 << 20:
                return False
            offset = 512 if offset == 0 else 2 * offset


def read(path: str, names: Mapping[str, str] | None = None, dims: Dims = None) -> xarray.Dataset:
    """Read lazily. Root attributes become attributes of the data set.

    Raises:
        InputError: truncated file, missing variable, or axes that nobody named.
    """
    from sciml.files.lazy import HDF5Array, open_hdf5

    with open_hdf5(path) as handle:
        attrs = {name: value for name, value in attributes(handle).items() if not name.startswith("_")}
        found = numeric(handle)
        known = {name: axes for name in found if (axes := _axes(handle[name])) is not None}
        extra = {name: _attributes(handle[name]) for name in found}
        scales = [name for name in found if _is_scale(handle[name])]
        axis_names = {axis for named in known.values() for axis in named}
        numbering = {
            name for name in scales if name in axis_names and name not in COORDINATES
        }  # of members or channels
        found = {name: shape for name, shape in found.items() if name not in numbering}
    chosen = check_names(path, names, [*found, *attrs])
    arrays = {
        name: HDF5Array(path, name)
        for name in found
        if not chosen or name in chosen or name in scales or len(found[name]) == 1
    }
    return assemble(path, arrays, chosen, dims, {k: v for k, v in known.items() if k in arrays}, attrs, extra)


def numeric(handle: Any) -> dict[str, tuple[int, ...]]:
    """Paths and shapes of the datasets that hold numbers."""
    import h5py

    found: dict[str, tuple[int, ...]] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            return
        if item.dtype.kind in "fiubc" or item.dtype.names == ("real", "imag"):
            found[name] = tuple(int(n) for n in item.shape)

    handle.visititems(visit)
    return found


def _is_scale(dataset: Any) -> bool:
    return bool(dataset.is_scale)


def _axes(dataset: Any) -> tuple[str, ...] | None:
    """Names of the axes when the file holds them."""
    named = attribute(dataset, "dims")
    if named is not None:
        listed = [named] if isinstance(named, str) else list(named)
        if len(listed) == len(dataset.shape):
            return tuple(str(name) for name in listed)
    if dataset.is_scale:
        return None
    axes = []
    for axis in dataset.dims:
        scale = list(axis.keys()) and axis[0].name.rsplit("/", 1)[-1]
        if not scale:
            return None
        axes.append(str(scale))
    return tuple(axes) if axes and len(set(axes)) == len(axes) else None


def _attributes(dataset: Any) -> dict[str, Any]:
    internal = ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME", "dims")
    return {
        name: value
        for name, value in attributes(dataset).items()
        if name not in internal and not name.startswith("_") and not name.startswith("MATLAB")
    }
