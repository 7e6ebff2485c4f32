"""Data Exchange: projections, white and dark frames of a parallel-beam scan (De Carlo et al. 2014,
doi:10.1107/S160057751401604X).

`exchange/data` holds counts (view, row, bin), `exchange/data_white` and `exchange/data_dark` repeated frames without the
object and without the beam, `exchange/theta` the angles in degrees. They become line integrals, their variance and a
mask, slice by slice (`sciml.files.tomography`), and the axis of rotation is found (`sciml.files.rotation_axis`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError
from sciml.files.axes import Dims, check_names, nearest, plain
from sciml.files.heaps import attribute
from sciml.files.tomography import Transmission, air_ratio, bad_pixels

if TYPE_CHECKING:
    import xarray

__all__ = ["read", "recognise"]

DATA, WHITE, DARK, THETA = "exchange/data", "exchange/data_white", "exchange/data_dark", "exchange/theta"
BESIDE = (WHITE, DARK, THETA)
PIXEL = tuple(f"measurement/instrument/detector/{name}" for name in ("x_pixel_size", "pixel_size_x", "pixel_size"))
METRES = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "\N{MICRO SIGN}m": 1e-6, "\N{GREEK SMALL LETTER MU}m": 1e-6, "nm": 1e-9}
METRES |= {"metre": 1.0, "meter": 1.0, "micron": 1e-6, "microns": 1e-6, "micrometer": 1e-6, "micrometre": 1e-6}
SLICES = 5
"""Slices that the axis of rotation is sought in."""
PASS_BYTES = 1 << 26
"""Counts looked at in one go while bad pixels are listed."""


def recognise(path: str) -> bool:
    """True for an HDF5 file with `exchange/data` of three axes and at least one of white, dark and theta beside it."""
    from sciml.files.formats import hdf5
    from sciml.files.lazy import open_hdf5

    if not hdf5.recognise(path):
        return False
    with open_hdf5(path) as handle:
        if DATA not in handle or not any(name in handle for name in BESIDE):
            return False
        return len(getattr(handle[DATA], "shape", None) or ()) in (0, 3)


def read(path: str, names: Mapping[str, str] | None = None, dims: Dims = None) -> xarray.Dataset:
    """Read; counts stay in the file and a slice is computed when it is indexed. One pass over the counts lists bad pixels.

    With `dims=` the arrays are read as they are, as from any HDF5 file.

    Returns:
        `sinogram`, `variance` and `measured`, each (slice, view, bin); where `measured` is False, `sinogram` is NaN and
        `variance` infinite. Coordinates `angle` (view) in radians and `position` (bin) from the middle of the detector, in bins
        (units "pixel") or in metres if the file states the size of a pixel. Attributes: `geometry`, `centre` (the axis,
        in the unit of `position`), `centre_spread`, `centre_method`, `gain`, `gain_method`, `air_ratio` and
        `air_ratio_successive` (noise in air over what counting predicts), `bad_pixels`, `title`, `source`.

    Raises:
        InputError: truncated file; a missing, empty, non-numeric or mismatched dataset; angles that are not numbers;
            more than half of the counts useless.

    *Fails when* the object moved or the beam drifted: `centre_spread` and `air_ratio` tell.
    """
    import numpy as np
    import xarray
    from xarray.core import indexing

    from sciml.files.formats import hdf5
    from sciml.files.lazy import ComputedArray, HDF5Array, entire

    if dims is not None:
        return hdf5.read(path, names, dims)
    frames, angles, pixel, title = _contents(path)
    views, rows, bins = frames[DATA]
    counts = HDF5Array(path, DATA)
    detector = Transmission.of(*(entire(HDF5Array(path, name)).reshape(-1, rows, bins) for name in (WHITE, DARK)))
    listed = _bad(path, counts, detector)
    scan = Scan(counts, detector)
    picks = np.unique(np.linspace(0, rows - 1, min(SLICES, rows)).round().astype(int))
    size, unit = (1.0, "pixel") if pixel is None else (pixel, "m")
    attrs = {
        "geometry": "parallel",
        **_axis(scan, picks, angles, size, unit),
        "gain": detector.gain,
        "gain_method": detector.told,
        "bad_pixels": listed,
        "title": title,
        "source": path.replace("\\", "/").rsplit("/", 1)[-1],
    }
    axes, shape = ("slice", "view", "bin"), (rows, views, bins)
    described: dict[str, tuple[Callable[[Any], Any], str, dict[str, str]]] = {
        "sinogram": (Integrals(scan), "float64", {"long_name": "line integral of the attenuation", "units": "1"}),
        "variance": (Variance(scan), "float64", {"long_name": "variance of the line integral", "units": "1"}),
        "measured": (Measured(scan), "bool", {"long_name": "False where nothing was measured"}),
    }
    chosen = check_names(path, names, described)
    variables = {
        chosen.get(name, name): xarray.Variable(
            axes, indexing.LazilyIndexedArray(ComputedArray(compute, shape, dtype)), about
        )
        for name, (compute, dtype, about) in described.items()
    }
    coords = {
        "angle": ("view", angles, {"units": "rad"}),
        "position": ("bin", (np.arange(bins) - (bins - 1) / 2) * size, {"units": unit}),
    }
    return xarray.Dataset(variables, coords=coords, attrs=attrs)


@dataclass(frozen=True)
class Scan:
    """The counts in their file and the detector that took them."""

    counts: Any
    detector: Transmission

    def rows(self, picks: Any) -> tuple[Any, Transmission]:
        """Counts (view, row, bin) as float64 and the detector of some rows."""
        import numpy as np
        from xarray.core import indexing

        found = self.counts[indexing.OuterIndexer((slice(None), np.asarray(picks), slice(None)))]
        return np.asarray(found, dtype=float), self.detector.rows(picks)


@dataclass(frozen=True)
class Integrals:
    """Line integrals (slice, view, bin) of some slices."""

    scan: Scan

    def __call__(self, picks: Any) -> Any:
        counts, detector = self.scan.rows(picks)
        return detector.integrals(counts).swapaxes(0, 1)


@dataclass(frozen=True)
class Variance:
    """Their variance."""

    scan: Scan

    def __call__(self, picks: Any) -> Any:
        counts, detector = self.scan.rows(picks)
        return detector.variance(counts).swapaxes(0, 1)


@dataclass(frozen=True)
class Measured:
    """Where they were measured."""

    scan: Scan

    def __call__(self, picks: Any) -> Any:
        counts, detector = self.scan.rows(picks)
        return detector.measured(counts).swapaxes(0, 1)


def _contents(path: str) -> tuple[dict[str, tuple[int, ...]], Any, float | None, str]:
    """Shapes, angles in radians, size of a pixel in metres, title; every mismatch refused."""
    from sciml.files.formats import hdf5
    from sciml.files.lazy import open_hdf5

    with open_hdf5(path) as handle:
        found = hdf5.numeric(handle)
        for name in (DATA, *BESIDE):
            if name not in handle:
                raise InputError(
                    f"'{path}' looks like Data Exchange and has no '{name}'; {nearest(name, found)}; add it to the file, "
                    "or give dims= to read the arrays as they are."
                )
            if name not in found or handle[name].dtype.kind not in "fiu":
                kind = getattr(handle[name], "dtype", "a group")
                raise InputError(
                    f"'{name}' of '{path}' is {kind}, not real numbers; write counts and angles as numbers."
                )
            if not handle[name].size:
                raise InputError(f"'{name}' of '{path}' is empty, of shape {found[name]}; copy or write it again.")
        shape = found[DATA]
        told = attribute(handle[DATA], "axes", "theta:y:x")
        if len(shape) != 3 or str(told).split(":") != ["theta", "y", "x"]:
            raise InputError(
                f"'{DATA}' of '{path}' has shape {shape} and axes '{told}'; it must be (theta, y, x): transpose it, "
                "or give dims= to read it as it is."
            )
        for name in (WHITE, DARK):
            if len(found[name]) not in (2, 3) or found[name][-2:] != shape[1:]:
                raise InputError(
                    f"'{name}' of '{path}' has shape {found[name]} where '{DATA}' has {shape}; the frames must be "
                    f"(frame, {shape[1]}, {shape[2]})."
                )
        angles = _radians(path, handle[THETA][...].reshape(-1), attribute(handle[THETA], "units", ""), shape[0])
        title = plain(handle["exchange/title"][()]) if "exchange/title" in handle else ""
        return found, angles, _pixel(path, handle), title if isinstance(title, str) else ""


def _radians(path: str, theta: Any, units: Any, views: int) -> Any:
    import numpy as np

    if theta.size != views:
        raise InputError(
            f"'{THETA}' of '{path}' has {theta.size} angles for {views} views in '{DATA}'; write one angle per view."
        )
    angles = theta.astype(float)
    if not np.isfinite(angles).all():
        view = int(np.flatnonzero(~np.isfinite(angles))[0])
        raise InputError(f"'{THETA}' of '{path}' is not a number in view {view}; write the angle in degrees there.")
    if str(units).lower().startswith("rad"):
        return angles
    if views > 8 and 0.9 * np.pi < np.ptp(angles) < 2.1 * np.pi:
        warnings.warn(
            f"the angles of '{path}' span {np.ptp(angles):.3g} and were taken as degrees, as the format says; if they are "
            "radians, set the attribute units='rad' of 'exchange/theta'.",
            stacklevel=2,
        )
    return np.deg2rad(angles)


def _pixel(path: str, handle: Any) -> float | None:
    """Size of a pixel in metres if the file states it."""
    from sciml.files.axes import scalar

    for name in PIXEL:
        if name not in handle or not hasattr(handle[name], "dtype"):
            continue
        value = scalar(handle[name][()])
        unit = str(attribute(handle[name], "units", "m")).strip()
        if value is not None and unit in METRES and 1e-9 < value * METRES[unit] < 1e-1:
            return value * METRES[unit]
        warnings.warn(
            f"'{name}' of '{path}' is {value} {unit}, which is no size of a pixel; positions are in bins.", stacklevel=2
        )
    return None


def _bad(path: str, counts: Any, detector: Transmission) -> str:
    """Every count is looked at once, some views at a time."""
    import numpy as np
    from xarray.core import indexing

    views, rows, bins = counts.shape
    block = max(1, PASS_BYTES // max(1, rows * bins * 8))
    missing = np.zeros((rows, bins), dtype=int)
    first: list[tuple[int, int, int]] = []
    for start in range(0, views, block):
        picks = slice(start, min(start + block, views))
        bad = ~detector.measured(counts[indexing.OuterIndexer((picks, slice(None), slice(None)))])
        missing += bad.sum(0)
        if bad.any():
            bad &= missing < start + bad.shape[0]  # pixels missing in all views so far come under another heading
            first += [(int(r), int(v) + start, int(b)) for v, r, b in np.argwhere(bad)[: 64 - len(first)]]
    total = int(missing.sum())
    if 2 * total > counts.shape[0] * rows * bins:
        raise InputError(
            f"'{path}' has {total} of {views * rows * bins} counts that are not numbers or not between dark and beam; "
            "check 'exchange/data', 'exchange/data_white' and 'exchange/data_dark'."
        )
    dead = [(int(r), int(b)) for r, b in np.argwhere(missing == views)]
    single = [place for place in first if missing[place[0], place[2]] < views]
    return bad_pixels(dead, single, views, total - len(dead) * views - len(single))


def _axis(scan: Scan, picks: Any, angles: Any, size: float, unit: str) -> dict[str, Any]:
    """The attributes about the axis of rotation and about the noise in air."""
    import numpy as np

    from sciml.files import rotation_axis

    counts, detector = scan.rows(picks)
    slices = detector.integrals(counts).swapaxes(0, 1)
    own = detector.own_variance(counts).swapaxes(0, 1)
    found = rotation_axis.find(slices, angles)
    ratios = []
    for p, variance in zip(slices, own, strict=True):
        if (edges := rotation_axis.air(rotation_axis.filled(p))) is not None:
            ratios.append(air_ratio(p, variance, edges))
    whole, successive = np.mean(ratios, axis=0) if ratios else (np.nan, np.nan)
    if found.method.startswith("assumed"):
        warnings.warn(f"no axis of rotation was found ({found.method}); set attrs['centre'].", stacklevel=2)
    return {
        "centre": found.centre * size,
        "centre_spread": found.spread * size,
        "centre_unit": unit,
        "centre_method": found.method,
        "air_ratio": float(whole),
        "air_ratio_successive": float(successive),
    }
