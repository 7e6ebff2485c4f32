"""One array in NumPy's own file (`.npy`), read without unpickling anything.

The file names neither its variable nor its axes. Complex numbers are taken for k-space of several coils, as MRI tools save
them: the variable is called `kspace` and its axes are guessed, aloud: (ky, kx), (coil, ky, kx), (slice, coil, ky, kx), or with
the coils last where that axis is the shorter one. Points that are exactly zero in all coils were not measured. Real numbers
are called `array` and need `dims=`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError
from sciml.files.axes import Dims, assemble

if TYPE_CHECKING:
    import xarray

__all__ = ["read", "recognise"]

GUESSES = {2: ("ky", "kx"), 3: ("coil", "ky", "kx"), 4: ("slice", "coil", "ky", "kx")}
COILS_LAST = {3: ("ky", "kx", "coil"), 4: ("slice", "ky", "kx", "coil")}


def recognise(path: str) -> bool:
    """True when NumPy's magic string stands at the start."""
    with Path(path).open("rb") as file:
        return file.read(6) == b"\x93NUMPY"


def read(path: str, names: Mapping[str, str] | None = None, dims: Dims = None) -> xarray.Dataset:
    """Read lazily, through a memory map.

    Returns:
        `kspace` or `array`; for k-space with axes ky and kx also `mask` (ky, kx), True where any coil is not zero.

    Raises:
        InputError: truncated file, objects that would have to be unpickled, axes that nobody named, k-space of zeros.

    Warns:
        of the axes that were guessed.

    *Fails when* the guess is wrong: two square axes look alike; give `dims=`.
    """
    from sciml.files.lazy import NumpyArray

    array = NumpyArray(path)
    if array.dtype.kind not in "fiubc":
        raise InputError(f"'{path}' holds {array.dtype}, not numbers; save numbers with numpy.save.")
    if not array.shape or 0 in array.shape:
        raise InputError(
            f"'{path}' holds an array of shape {array.shape}; save an array with at least one axis and number."
        )
    signal = array.dtype.kind == "c"
    name = "kspace" if signal else "array"
    default: dict[str, tuple[str, ...]] = {}
    if signal and dims is None and len(array.shape) in GUESSES:
        default[name] = _guess(array.shape)
        warnings.warn(
            f"the axes of '{path}', of shape {array.shape}, were guessed as ({', '.join(default[name])}); give dims= to name "
            "them.",
            stacklevel=2,
        )
    about = {name: {"units": "1", **({"long_name": "signal, in the scanner's own unit"} if signal else {})}}
    source = {"source": path.replace("\\", "/").rsplit("/", 1)[-1]}
    found = assemble(path, {name: array}, names, dims, default, source, about)
    ours = next(iter(found.data_vars))
    if signal and {"ky", "kx"} <= set(found[ours].dims) and "mask" not in found:
        found["mask"] = _measured(path, found[ours])
    return found


def _guess(shape: tuple[int, ...]) -> tuple[str, ...]:
    first = 1 if len(shape) == 4 else 0
    return COILS_LAST[len(shape)] if len(shape) > 2 and shape[-1] < shape[first] else GUESSES[len(shape)]


def _measured(path: str, signal: xarray.DataArray) -> Any:
    """Where any coil is not zero, looking at one block of the first axis after the other."""
    import numpy as np
    import xarray

    space = tuple(axis for axis in signal.dims if axis in ("kz", "ky", "kx"))
    others = [axis for axis in signal.dims if axis not in space]
    seen = np.zeros([signal.sizes[axis] for axis in space], dtype=bool)
    blocks = [signal.isel({others[0]: index}) for index in range(signal.sizes[others[0]])] if others else [signal]
    for block in blocks:
        values = np.asarray(block.transpose(..., *space).values)
        if not np.isfinite(values).all():
            raise InputError(f"'{path}' holds values that are not finite; save zeros where nothing was measured.")
        seen |= (values != 0).reshape(-1, *seen.shape).any(0)
    if not seen.any():
        raise InputError(f"'{path}' is zero everywhere, so nothing was measured; save the k-space itself.")
    return xarray.Variable(space, seen, {"long_name": "True where something was measured"})
