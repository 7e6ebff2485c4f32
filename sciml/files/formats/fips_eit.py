"""The open archive of two-dimensional impedance tomography of the University of Eastern Finland (Hauptmann et al. 2017,
arXiv:1704.01178).

MATLAB files with `CurrentPattern` (electrode, injection) in milliamperes, `MeasPattern`, whose columns or rows are the
differences that were measured, and `Uel` (measurement, injection) in volts: 16 electrodes, 79 injections, 16 differences of
neighbours. The tank is round, 28 cm wide, with electrodes 2.5 cm wide at equal distances.

The variables, axes, units and attributes are those of `ktc2023`. The matrix of patterns is square; it is read the way
that reciprocity asks for (`sciml.files.impedance`). The file does not say where the first electrode is nor which way
they are numbered: `electrode_angle` starts at the x axis and runs counterclockwise, so that a picture may stand turned
or mirrored; and it does not say whether currents are amplitudes or effective values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError
from sciml.files.axes import Dims, check_names, nearest
from sciml.files.impedance import Tank, dataset, differences

if TYPE_CHECKING:
    import xarray

__all__ = ["TANK", "read", "recognise"]

SPELLED = ("Uel", "CurrentPattern", "MeasPattern")
ELECTRODES = 16
TANK = Tank(
    0.14, 0.025, 0.0, 2 * math.pi / ELECTRODES, "the tank of arXiv:1704.01178; place and sense of numbering assumed"
)


def recognise(path: str) -> bool:
    """True for a MATLAB file with at least two of `Uel`, `CurrentPattern`, `MeasPattern`, the latter two being its own."""
    from sciml.files.formats import matlab

    if not matlab.recognise(path):
        return False
    found = set(matlab.shapes(path))
    return len(found & set(SPELLED)) >= 2


def read(path: str, names: Mapping[str, str] | None = None, dims: Dims = None) -> xarray.Dataset:
    """Read into memory. With `dims=` the arrays are read as they are, as from any MATLAB file.

    Raises:
        InputError: damaged file, a missing, empty, non-numeric or mismatched array, no voltage at all, currents that do
            not sum to zero.

    Warns:
        of missing voltages, with their count; of currents whose size is not that of milliamperes; of negative power.

    *Fails when* the tank is another one: only its number of electrodes says so.
    """
    import numpy as np

    from sciml.files.formats import matlab

    if dims is not None:
        return matlab.read(path, names, dims)
    arrays = matlab.whole(path)
    parts: dict[str, Any] = {}
    for name in SPELLED:
        if name not in arrays:
            raise InputError(f"'{path}' has no '{name}'; {nearest(name, arrays)}; add it to the file.")
        if arrays[name].dtype.kind not in "fiu" or arrays[name].ndim != 2 or not arrays[name].size:
            raise InputError(
                f"'{name}' of '{path}' is {arrays[name].dtype} of shape {arrays[name].shape}; write a matrix of real numbers."
            )
        parts[name] = np.ascontiguousarray(arrays[name], dtype=float)
    voltage, current, patterns = (parts[name].T for name in SPELLED)  # injection, injection, measurement first
    if voltage.shape != (len(current), len(patterns)) or patterns.shape[1] != current.shape[1]:
        if parts["MeasPattern"].shape == (voltage.shape[1], current.shape[1]) and len(voltage) == len(current):
            patterns = parts["MeasPattern"]
        else:
            raise InputError(
                f"'{path}' has 'Uel' {parts['Uel'].shape}, 'CurrentPattern' {parts['CurrentPattern'].shape} and "
                f"'MeasPattern' {parts['MeasPattern'].shape}; they must be (measurement, injection), (electrode, "
                "injection) and (electrode, measurement)."
            )
    elif patterns.shape[0] == patterns.shape[1] and np.isfinite(patterns).all() and np.isfinite(current).all():
        patterns = differences(voltage, current, parts["MeasPattern"])
    tank = TANK if current.shape[1] == ELECTRODES else None
    found = dataset(path, voltage, current, np.ascontiguousarray(patterns), tank, SPELLED)
    return found.rename(check_names(path, names, map(str, found.data_vars)))
