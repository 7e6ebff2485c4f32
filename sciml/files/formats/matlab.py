"""MATLAB files: v5 (in memory), v7.3 by h5py (lazy, with the axes reversed back to MATLAB's order).

Axes come from `dims=`, from coordinate vectors beside the field (`x`, `t`), or from the two well-known
neural-operator layouts: `coeff` and `sol` are (sample, x, y); `a` and `u` are (sample, x...) with time last in
`u` when it has one axis more. A complex array whose imaginary part is rounding (below 1.5e-8 of the largest
real part, the square root of double precision) is made real.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.files.axes import SPACE, Dims, assemble
from sciml.files.heaps import attribute

if TYPE_CHECKING:
    import xarray

__all__ = ["read", "recognise", "shapes", "whole"]

ROUNDING = 1.5e-8


def recognise(path: str) -> bool:
    """True when the file starts with MATLAB's text header (v5 and v7.3)."""
    with Path(path).open("rb") as file:
        head = file.read(128)
    return len(head) == 128 and head[:6] == b"MATLAB" and head[126:128] in (b"IM", b"MI")


def read(path: str, names: Mapping[str, str] | None = None, dims: Dims = None) -> xarray.Dataset:
    """Read the numeric arrays of a MATLAB file; structures, cells and text are left out.

    Raises:
        InputError: damaged file, missing variable, axes that nobody named.
    """
    from sciml.files.formats import hdf5

    arrays = _read_reversed(path) if hdf5.recognise(path) else _read_five(path)
    return assemble(path, arrays, names, dims, _known(arrays))


def shapes(path: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the variables of the file (cells and structures too in v5), from the first bytes of each."""
    from sciml.files.formats import hdf5, matlab_five

    if not hdf5.recognise(path):
        return matlab_five.shapes(path)
    return {name: tuple(array.shape) for name, array in _read_reversed(path).items()}


def whole(path: str) -> dict[str, Any]:
    """The numeric arrays of the file, in memory, as MATLAB shows them.

    Raises:
        InputError: damaged file.
    """
    from sciml.files.formats import hdf5, matlab_five
    from sciml.files.lazy import entire

    if not hdf5.recognise(path):
        return dict(matlab_five.arrays(path))
    return {name: entire(array) for name, array in _read_reversed(path).items()}


def _read_five(path: str) -> dict[str, Any]:
    import numpy as np

    from sciml.files.formats import matlab_five

    return {name: np.ascontiguousarray(_real(value)) for name, value in matlab_five.arrays(path).items()}


def _real(value: Any) -> Any:
    import numpy as np

    if value.dtype.kind != "c" or not value.size:
        return value
    small = np.abs(value.imag).max() <= ROUNDING * np.abs(value.real).max()
    return value.real if small else value


def _read_reversed(path: str) -> dict[str, Any]:
    from sciml.files.formats import hdf5
    from sciml.files.lazy import HDF5Array, open_hdf5

    with open_hdf5(path) as handle:
        found = [
            name
            for name in hdf5.numeric(handle)
            if not name.startswith("#") and attribute(handle[name], "MATLAB_class", "") not in ("char", "cell")
        ]
    return {name: HDF5Array(path, name, reverse=True) for name in found}


def _known(arrays: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Axes of the neural-operator sets whose layout is fixed by their names."""
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if {"coeff", "sol"} <= set(shapes):
        count = len(shapes["coeff"])
        if shapes["sol"] == shapes["coeff"] and 2 <= count <= 4:
            alike = [name for name, shape in shapes.items() if shape == shapes["coeff"]]
            return dict.fromkeys(alike, ("sample", *SPACE[: count - 1]))
    if {"a", "u"} <= set(shapes):
        start, later = shapes["a"], shapes["u"]
        if 2 <= len(start) <= 4 and later[: len(start)] == start and len(later) - len(start) in (0, 1):
            axes = ("sample", *SPACE[: len(start) - 1])
            return {"a": axes, "u": axes if later == start else (*axes, "time")}
    return {}
