"""Measurements, segmentations and the mesh of the Kuopio Tomography Challenge 2023 (doi:10.5281/zenodo.8252370).

MATLAB files. A measurement holds `Inj` (electrode, injection) in milliamperes, `Mpat` (electrode, measurement) and `Uel`
(injection * measurement, 1), or (measurement, injection), in volts, the measurement running fastest; the empty tank
spells them `Injref` and `Uelref`. Voltages of removed electrodes are not numbers. A segmentation holds `truth` (256, 256):
0 water, 1 resistive, 2 conductive; its first row is the top of the tank. The organisers' mesh holds nodes `g` in metres,
triangles `H` counted from zero and the edges under each electrode, `elfaces`.

What is read, with named axes:

======================  ==========================  =====  ====================================================
variable                axes                        unit   meaning
======================  ==========================  =====  ====================================================
``voltage``             (injection, measurement)    V      difference of potentials, NaN where nothing was measured
``measured``            (injection, measurement)           False where nothing was measured
``current_pattern``     (injection, electrode)      mA     current into the body, rows sum to zero
``voltage_pattern``     (measurement, electrode)    1      weights: voltage = voltage_pattern @ potentials
``electrode_angle``     (electrode)                 rad    coordinate: the middle, counterclockwise from the x axis
``truth``               (y, x)                             0 water, 1 resistive, 2 conductive; x and y in m
``node``                (index, component)          m      nodes of the mesh
``element``             (triangle, vertex)                 nodes of each triangle, counted from zero
``electrode_edge``      (electrode, edge, end)             nodes of the edges under each electrode
======================  ==========================  =====  ====================================================

Attributes of a measurement: ``radius`` (0.115), ``electrode_width`` (half the pitch), ``length_unit`` (m), ``geometry``
(where this is known from), ``missing`` (how many voltages are), ``missing_told`` (a sentence), ``source``. With currents in
mA the conductivity of a two-dimensional model, a sheet, comes out in mS. The tank stands the same in every file: the
first electrode is at the top, 90 degrees, and they are numbered counterclockwise; each covers half of its pitch. That was
read off the organisers' mesh.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError
from sciml.files.axes import Dims, check_names, nearest
from sciml.files.impedance import Tank, dataset

if TYPE_CHECKING:
    import numpy
    import xarray

__all__ = ["TANK", "read", "recognise"]

ELECTRODES, RADIUS, PIXELS = 32, 0.115, 256
TANK = Tank(
    RADIUS,
    math.pi * RADIUS / ELECTRODES,
    math.pi / 2,
    2 * math.pi / ELECTRODES,
    "the tank of the challenge: 32 electrodes, the first at the top, counterclockwise, each over half of its pitch",
)
MEASURED, EMPTY = ("Uel", "Inj", "Mpat"), ("Uelref", "Injref", "Mpat")
MESH = ("g", "H", "elfaces")


def recognise(path: str) -> bool:
    """True for a MATLAB file with voltages and currents, with the organisers' mesh, or with a segmentation alone."""
    from sciml.files.formats import matlab

    if not matlab.recognise(path):
        return False
    found = matlab.shapes(path)
    return _spelling(found) is not None or set(MESH) <= set(found) or _is_truth(found)


def read(path: str, names: Mapping[str, str] | None = None, dims: Dims = None) -> xarray.Dataset:
    """Read into memory. With `dims=` the arrays are read as they are, as from any MATLAB file.

    Raises:
        InputError: damaged file, a missing, empty, non-numeric or mismatched array, no voltage at all, currents that do
            not sum to zero, labels other than 0, 1, 2.

    Warns:
        of missing voltages, with their count; of currents whose size is not that of milliamperes; of negative power.

    *Fails when* the tank is another one: only its name says so, and `radius` and `electrode_angle` are of the challenge.
    """
    import xarray

    from sciml.files.formats import matlab

    if dims is not None:
        return matlab.read(path, names, dims)
    arrays = matlab.whole(path)
    found = xarray.Dataset()
    if (spelled := _spelling(arrays)) is not None:
        found = _measurement(path, arrays, spelled)
    if set(MESH) <= set(matlab.shapes(path)):
        mesh = _mesh(path, arrays)
        found = found.merge(mesh).assign_attrs({**mesh.attrs, **found.attrs})
    if _is_truth({name: value.shape for name, value in arrays.items()}):
        found = found.merge(_truth(path, arrays["truth"]))
    chosen = check_names(path, names, map(str, found.data_vars))
    return found.rename(chosen).assign_attrs(source=path.replace("\\", "/").rsplit("/", 1)[-1])


def _spelling(found: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """How the file calls voltages, currents and patterns; a file that lacks one of the three still counts."""
    for spelled in (MEASURED, EMPTY):
        if sum(name in found for name in spelled) >= 2 and spelled[0] in found:
            return spelled
        if all(name in found for name in spelled[1:]):
            return spelled
    return None


def _is_truth(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return shapes.get("truth") == (PIXELS, PIXELS)


def _measurement(
    path: str, arrays: Mapping[str, numpy.ndarray[Any, Any]], spelled: tuple[str, str, str]
) -> xarray.Dataset:
    voltage, current, patterns = (_real(path, name, arrays) for name in spelled)
    for name, value in zip(spelled[1:], (current, patterns), strict=True):
        if value.ndim != 2 or value.shape[0] != current.shape[0]:
            raise InputError(
                f"'{name}' of '{path}' has shape {value.shape}; it must be ({current.shape[0]}, patterns), one row per "
                "electrode."
            )
    injections, measurements = current.shape[1], patterns.shape[1]
    if voltage.size != injections * measurements:
        raise InputError(
            f"'{spelled[0]}' of '{path}' has {voltage.size} voltages where {injections} injections and {measurements} "
            f"measurements make {injections * measurements}; save all of them, those not measured as NaN."
        )
    tank = TANK if current.shape[0] == ELECTRODES else None
    rows = voltage.T if voltage.shape == (measurements, injections) else voltage.reshape(injections, measurements)
    return dataset(path, rows, current.T, patterns.T, tank, spelled)


def _real(path: str, name: str, arrays: Mapping[str, numpy.ndarray[Any, Any]]) -> Any:
    import numpy as np

    if name not in arrays:
        raise InputError(f"'{path}' has no '{name}'; {nearest(name, arrays)}; add it to the file.")
    value = arrays[name]
    if value.dtype.kind not in "fiu" or not value.size:
        raise InputError(f"'{name}' of '{path}' is {value.dtype} of shape {value.shape}; write real numbers there.")
    return np.ascontiguousarray(value, dtype=float)


def _truth(path: str, truth: numpy.ndarray[Any, Any]) -> xarray.Dataset:
    import numpy as np
    import xarray

    labels = np.unique(truth)
    if not np.isin(labels, (0, 1, 2)).all():
        raise InputError(
            f"'truth' of '{path}' holds {labels[:6]}; its labels are 0 (water), 1 (resistive) and 2 (conductive)."
        )
    middles = (np.arange(PIXELS) - (PIXELS - 1) / 2) * (2 * RADIUS / PIXELS)
    about = {"long_name": "kind of material", "flag_values": [0, 1, 2], "flag_meanings": "water resistive conductive"}
    return xarray.Dataset(
        {"truth": (("y", "x"), truth.astype(np.uint8), about)},
        coords={"y": ("y", middles[::-1], {"units": "m"}), "x": ("x", middles, {"units": "m"})},
    )


def _mesh(path: str, arrays: Mapping[str, numpy.ndarray[Any, Any]]) -> xarray.Dataset:
    import numpy as np
    import xarray

    from sciml.files.formats import hdf5, matlab_five

    nodes, triangles = _real(path, "g", arrays), _real(path, "H", arrays).astype(np.int64)
    if nodes.ndim != 2 or nodes.shape[1] != 2 or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise InputError(f"'g' and 'H' of '{path}' have shapes {nodes.shape} and {triangles.shape}; (n, 2) and (m, 3).")
    variables: dict[str, Any] = {
        "node": (("index", "component"), nodes, {"units": "m", "long_name": "nodes of the mesh"}),
        "element": (("triangle", "vertex"), triangles, {"long_name": "nodes of each triangle, from zero"}),
    }
    faces = [] if hdf5.recognise(path) else matlab_five.cells(path).get("elfaces", [])
    if faces and all(face is not None and face.shape == faces[0].shape for face in faces):
        edges = np.stack(faces).astype(np.int64)
        variables["electrode_edge"] = (
            ("electrode", "edge", "end"),
            edges,
            {"long_name": "nodes of each edge, from zero"},
        )
    if max(int(v[1].max()) for name, v in variables.items() if name != "node") >= len(nodes) or triangles.min() < 0:
        raise InputError(f"'H' or 'elfaces' of '{path}' names a node that is not in 'g'; copy the mesh again.")
    return xarray.Dataset(variables)
