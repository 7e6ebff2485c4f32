"""Fan-beam scans as the Helsinki Tomography Challenge 2022 publishes them (doi:10.5281/zenodo.6984868).

A MATLAB file (v5, or v7.3 = HDF5 with reversed axes and text as numbers) with a structure such as `CtDataFull` or
`CtDataLimited`: `sinogram` (view, bin), line integrals of the central slice of a cone-beam scan, and `parameters` with
`angles` in degrees, `distanceSourceOrigin`, `distanceSourceDetector`, `distanceUnit` and the size of a detector pixel
(`pixelSizePost` after binning, otherwise `pixelSize`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError
from sciml.files.axes import Dims, check_names, nearest
from sciml.files.heaps import attribute

if TYPE_CHECKING:
    import xarray

__all__ = ["read", "recognise"]

MILLIMETRES = {"mm": 1.0, "cm": 10.0, "m": 1000.0}


def recognise(path: str) -> bool:
    """True for a MATLAB file with a structure that has the fields `sinogram` and `parameters`."""
    from sciml.files.formats import matlab

    return matlab.recognise(path) and bool(_structures(path))


def read(path: str, names: Mapping[str, str] | None = None, dims: Dims = None) -> xarray.Dataset:
    """Read into memory.

    Returns:
        `sinogram` and `measured` (False where the sinogram is not a number), both (view, bin). Coordinates `angle` (view)
        in radians and `position` (bin) on the detector in mm from its middle. Attributes: `geometry`,
        `source_to_origin`, `source_to_detector` and `pitch` in mm, `bad_pixels`, `title`, `source`.

    Raises:
        InputError: damaged file, a missing, empty, non-numeric or mismatched field, more than one scan in the file.

    *Fails when* the variance is wanted: these files hold no counts.
    """
    import numpy as np
    import xarray

    from sciml.files.formats import hdf5
    from sciml.files.tomography import bad_pixels

    found = _structures(path)
    if len(found) > 1:
        raise InputError(f"'{path}' holds {len(found)} scans ({', '.join(found)}); save each in a file of its own.")
    name = next(iter(found))
    scan = _read_reversed(path, name) if hdf5.recognise(path) else _read_five(path, name)
    facts = scan["parameters"]
    if not isinstance(facts, dict):
        raise InputError(f"'{name}.parameters' of '{path}' is no structure; it must hold angles and distances.")
    sinogram = _array(path, f"{name}.sinogram", scan.get("sinogram"))
    angles = _array(path, f"{name}.parameters.angles", _field(path, name, facts, "angles")).reshape(-1)
    if sinogram.ndim != 2 or sinogram.shape[0] != angles.size:
        raise InputError(
            f"'{name}.sinogram' of '{path}' has shape {sinogram.shape} for {angles.size} angles; it must be "
            f"({angles.size}, bins)."
        )
    if not np.isfinite(angles).all():
        raise InputError(f"'{name}.parameters.angles' of '{path}' holds what is not a number; write degrees there.")
    measured = np.isfinite(sinogram)
    if 2 * int(measured.sum()) < sinogram.size:
        raise InputError(
            f"'{name}.sinogram' of '{path}' is not a number in {int((~measured).sum())} of {sinogram.size} places; "
            "copy or generate it again."
        )
    unit = facts.get("distanceUnit", "mm")
    if unit not in MILLIMETRES:
        raise InputError(f"'{name}.parameters.distanceUnit' of '{path}' is {unit!r}; it must be mm, cm or m.")
    lengths = {
        "source_to_origin": _length(path, name, facts, "distanceSourceOrigin") * MILLIMETRES[unit],
        "source_to_detector": _length(path, name, facts, "distanceSourceDetector") * MILLIMETRES[unit],
        "pitch": _length(path, name, facts, "pixelSizePost" if "pixelSizePost" in facts else "pixelSize"),
    }
    if not lengths["source_to_detector"] > lengths["source_to_origin"]:
        raise InputError(
            f"'{path}' puts the detector at {lengths['source_to_detector']:g} mm and the axis at "
            f"{lengths['source_to_origin']:g} mm from the source; the detector must lie behind the axis."
        )
    views, bins = sinogram.shape
    places = [(0, int(view), int(place)) for view, place in np.argwhere(~measured)]
    title = facts.get("projectName")
    variables = {
        "sinogram": (("view", "bin"), sinogram, {"long_name": "line integral of the attenuation", "units": "1"}),
        "measured": (("view", "bin"), measured, {"long_name": "False where nothing was measured"}),
    }
    chosen = check_names(path, names, variables)
    return xarray.Dataset(
        {chosen.get(key, key): value for key, value in variables.items()},
        coords={
            "angle": ("view", np.deg2rad(angles), {"units": "rad"}),
            "position": ("bin", (np.arange(bins) - (bins - 1) / 2) * lengths["pitch"], {"units": "mm"}),
        },
        attrs={
            "geometry": "fan",
            **lengths,
            "bad_pixels": bad_pixels([], places[:64], views, max(0, len(places) - 64)),
            "title": title if isinstance(title, str) else name,
            "source": path.replace("\\", "/").rsplit("/", 1)[-1],
        },
    )


def _structures(path: str) -> list[str]:
    """Names of the structures that look like a scan."""
    from sciml.files.formats import hdf5, matlab_five
    from sciml.files.lazy import open_hdf5

    wanted = {"sinogram", "parameters"}
    if not hdf5.recognise(path):
        return [name for name, fields in matlab_five.fields(path).items() if wanted <= set(fields)]
    with open_hdf5(path) as handle:
        groups = [name for name in handle if not name.startswith("#") and hasattr(handle[name], "keys")]
        return [name for name in groups if wanted <= set(handle[name])]


def _read_five(path: str, name: str) -> dict[str, Any]:
    from sciml.files.formats import matlab_five

    found = matlab_five.structures(path)
    if name not in found:
        raise InputError(f"'{name}' of '{path}' is an array of structures; save one scan by itself.")
    return found[name]


def _read_reversed(path: str, name: str) -> dict[str, Any]:
    from sciml.files.lazy import open_hdf5

    with open_hdf5(path) as handle:
        return _group(handle[name], 2)


def _group(group: Any, depth: int) -> dict[str, Any]:
    """A structure of a v7.3 file: numbers with the axes reversed, `char` as text, groups as structures."""
    import h5py
    import numpy as np

    found: dict[str, Any] = {}
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            found[name] = _group(item, depth - 1) if depth else None
        elif isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
            value = item[...].T
            text = attribute(item, "MATLAB_class", "") == "char" and item.dtype.kind == "u"
            found[name] = value.astype("<u2").tobytes().decode("utf-16-le", "replace") if text else np.array(value)
        else:
            found[name] = None
    return found


def _field(path: str, name: str, facts: Mapping[str, Any], field: str) -> Any:
    if field not in facts:
        raise InputError(
            f"'{name}.parameters' of '{path}' has no '{field}'; {nearest(field, facts)}; add it to the structure."
        )
    return facts[field]


def _array(path: str, name: str, value: Any) -> Any:
    import numpy as np

    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise InputError(f"'{name}' of '{path}' is {kind}, not an array of real numbers; write numbers there.")
    if not value.size:
        raise InputError(f"'{name}' of '{path}' is empty, of shape {value.shape}; copy or write it again.")
    return value.astype(float)


def _length(path: str, name: str, facts: Mapping[str, Any], field: str) -> float:
    value = _array(path, f"{name}.parameters.{field}", _field(path, name, facts, field)).reshape(-1)
    if value.size != 1 or not 0 < value[0] < float("inf"):
        raise InputError(f"'{name}.parameters.{field}' of '{path}' is {value}; it must be one positive length.")
    return float(value[0])
