"""Currents through electrodes and the voltages between them, as electrical impedance tomography measures them.

Current pattern i is a row :math:`I_i` over the electrodes whose entries sum to zero. The potentials of the electrodes
:math:`U_i` are seen through differences :math:`v_{ij} = P_j \\cdot U_i`, one for every row :math:`P_j` of the voltage
patterns. In every passive body the power :math:`I_i \\cdot U_i` is positive, which tells a wrong sign from a right one, and
:math:`I_i \\cdot U_k = I_k \\cdot U_i` (reciprocity), which tells columns of a square pattern matrix from its rows.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError

if TYPE_CHECKING:
    import numpy
    import xarray

__all__ = ["Tank", "current_unit", "dataset", "differences", "potentials", "power"]

LARGEST_AMPERES, LARGEST_MILLIAMPERES = 0.05, 50.0
"""Below the first a largest current is taken for amperes, below the second for milliamperes."""
CLOSED = 1e-6
"""Largest sum of a current pattern, over its largest current, that counts as rounding."""


@dataclass(frozen=True)
class Tank:
    """A round tank with equal electrodes on its wall.

    Args:
        radius: in metres.
        width: of an electrode along the wall, in metres.
        first: angle of the middle of the first electrode, in radians, counterclockwise from the x axis.
        step: angle from one electrode to the next, in radians; negative if they are numbered clockwise.
        told: where this is known from.
    """

    radius: float
    width: float
    first: float
    step: float
    told: str

    def angles(self, count: int) -> numpy.ndarray[Any, Any]:
        """Angle of the middle of every electrode in [0, 2 pi)."""
        import numpy as np

        return np.asarray(np.mod(self.first + self.step * np.arange(count), 2 * math.pi))


def current_unit(path: str, name: str, current: numpy.ndarray[Any, Any]) -> str:
    """Unit of the currents by their size; anything but milliamperes is said aloud.

    Raises:
        InputError: all currents are zero.
    """
    import numpy as np

    largest = float(np.abs(current).max(initial=0))
    if not largest:
        raise InputError(f"'{name}' of '{path}' is zero everywhere, so no current flows; write the injected currents.")
    if largest <= LARGEST_AMPERES:
        warnings.warn(
            f"the largest current in '{name}' of '{path}' is {largest:.3g} and was taken as amperes; if they are "
            "milliamperes, set the attribute units='mA'.",
            stacklevel=3,
        )
        return "A"
    if largest > LARGEST_MILLIAMPERES:
        warnings.warn(
            f"the largest current in '{name}' of '{path}' is {largest:.3g}, too much for milliamperes, and was taken as "
            "microamperes; set the attribute units if it is not.",
            stacklevel=3,
        )
        return "uA"
    return "mA"


def potentials(voltage: numpy.ndarray[Any, Any], patterns: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    """Potentials (injection, electrode) from their differences (injection, measurement) by least squares.

    What the differences leave open is zero; missing ones, not numbers, are left out.
    """
    import numpy as np

    found = np.zeros((len(voltage), patterns.shape[1]))
    for row, kept in zip(voltage, found, strict=True):
        seen = np.isfinite(row)
        if seen.any():
            kept[:] = np.linalg.lstsq(patterns[seen], row[seen], rcond=None)[0]
    return found


def power(
    voltage: numpy.ndarray[Any, Any], current: numpy.ndarray[Any, Any], patterns: numpy.ndarray[Any, Any]
) -> float:
    """Sum over the injections of currents times potentials, in the unit of current times that of voltage.

    Args:
        voltage: (injection, measurement); not a number where nothing was measured.
        current: (injection, electrode).
        patterns: (measurement, electrode).
    """
    return float((current * potentials(voltage, patterns)).sum())


def differences(
    voltage: numpy.ndarray[Any, Any], current: numpy.ndarray[Any, Any], square: numpy.ndarray[Any, Any]
) -> numpy.ndarray[Any, Any]:
    """The voltage patterns (measurement, electrode) out of a square matrix whose rows or columns they are.

    The reading that violates reciprocity, :math:`I_i \\cdot U_k = I_k \\cdot U_i`, less is taken; columns if both are equal.
    """
    import numpy as np

    faults = []
    for patterns in (square.T, square):
        works = current @ potentials(voltage, patterns).T
        faults.append(float(np.abs(works - works.T).sum()))
    return square if faults[1] < faults[0] else square.T


def dataset(
    path: str,
    voltage: numpy.ndarray[Any, Any],
    current: numpy.ndarray[Any, Any],
    patterns: numpy.ndarray[Any, Any],
    tank: Tank | None,
    spelled: tuple[str, str, str],
) -> xarray.Dataset:
    """One measurement as a data set with named axes.

    Args:
        path: the file, for messages.
        voltage: (injection, measurement) in volts; not a number where nothing was measured.
        current: (injection, electrode), unit by its size.
        patterns: (measurement, electrode).
        tank: where the electrodes lie, if it is known.
        spelled: what the file calls the three.

    Returns:
        `voltage`, `measured`, `current_pattern`, `voltage_pattern`; coordinate `electrode_angle` and attributes of the
        tank if it is known; attributes `missing` (count), `missing_told`, `source`.

    Raises:
        InputError: shapes that do not match, currents that are no numbers or do not sum to zero, no voltage at all.
    """
    import numpy as np
    import xarray

    electrodes = current.shape[1]
    if patterns.shape[1] != electrodes or voltage.shape != (len(current), len(patterns)):
        raise InputError(
            f"'{path}' has {voltage.shape} voltages in '{spelled[0]}', {current.shape} currents in '{spelled[1]}' and "
            f"{patterns.shape} patterns in '{spelled[2]}' (injection or measurement first); they do not belong together."
        )
    for name, value in ((spelled[1], current), (spelled[2], patterns)):
        if not np.isfinite(value).all():
            raise InputError(f"'{name}' of '{path}' holds what is not a number; write every pattern in full.")
    unit = current_unit(path, spelled[1], current)
    left = np.abs(current.sum(1)) > CLOSED * np.abs(current).max()
    if left.any():
        which = int(np.flatnonzero(left)[0])
        raise InputError(
            f"the currents of injection {which} in '{spelled[1]}' of '{path}' sum to {current[which].sum():.3g} {unit}, "
            "not to zero; what flows in must flow out."
        )
    told = _missing(path, voltage, current, patterns)
    measured = np.isfinite(voltage)
    if told:
        warnings.warn(told, stacklevel=3)
    if power(voltage, current, patterns) < 0:
        warnings.warn(
            f"the voltages and currents of '{path}' mean that the body gives off power; one of them has the wrong sign.",
            stacklevel=3,
        )
    attrs: dict[str, Any] = {"missing": int((~measured).sum()), "missing_told": told}
    coords = {}
    if tank is not None:
        attrs |= {"radius": tank.radius, "electrode_width": tank.width, "length_unit": "m", "geometry": tank.told}
        angles = {"units": "rad", "long_name": "middle of the electrode, counterclockwise from the x axis"}
        coords["electrode_angle"] = ("electrode", tank.angles(electrodes), angles)
    return xarray.Dataset(
        {
            "voltage": (
                ("injection", "measurement"),
                voltage,
                {"units": "V", "long_name": "difference of potentials; not a number where nothing was measured"},
            ),
            "measured": (("injection", "measurement"), measured, {"long_name": "False where nothing was measured"}),
            "current_pattern": (
                ("injection", "electrode"),
                current,
                {"units": unit, "long_name": "current into the body through each electrode"},
            ),
            "voltage_pattern": (
                ("measurement", "electrode"),
                patterns,
                {"units": "1", "long_name": "weight of each potential in a voltage"},
            ),
        },
        coords=coords,
        attrs={**attrs, "source": path.replace("\\", "/").rsplit("/", 1)[-1]},
    )


def _missing(
    path: str,
    voltage: numpy.ndarray[Any, Any],
    current: numpy.ndarray[Any, Any],
    patterns: numpy.ndarray[Any, Any],
) -> str:
    """A sentence about the voltages that are not there; empty if all are."""
    import numpy as np

    gone = ~np.isfinite(voltage)
    if not gone.any():
        return ""
    if gone.all():
        raise InputError(f"'{path}' has no voltage that is a number; copy or measure it again.")
    whole = int(gone.all(1).sum())
    lost = [
        index
        for index in range(current.shape[1])
        if gone[current[:, index] != 0].all() and gone[:, patterns[:, index] != 0].all()
    ]
    touched = [index for index in lost if (current[:, index] != 0).any() or (patterns[:, index] != 0).any()]
    about = f"; electrodes {', '.join(map(str, touched))} say nothing" if touched else ""
    return (
        f"{int(gone.sum())} of {gone.size} voltages of '{path}' are missing and left out: {whole} of {len(gone)} "
        f"injections wholly{about}."
    )
