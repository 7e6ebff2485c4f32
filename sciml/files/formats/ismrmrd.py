"""Raw data of a magnetic resonance scan in ISMRMRD, version 1 (Inati et al. 2017, doi:10.1002/mrm.26089).

An HDF5 file with a group, usually `dataset`, of `xml` (the header) and `data`, one row per readout: `head` with counters
and flags, `data` (coil, sample) as pairs of float32, and `traj` (sample, component). Fields are found by name, because
writers pad rows differently.

Readouts on a grid are put where they belong: sample i of a readout at kx = i - center_sample + n // 2, its counters at
ky and kz, moved so that the middle of k-space lies at n // 2; reversed readouts are turned, discarded samples left out,
readouts of one place averaged. Where the readout was sampled more finely than the image needs, the surplus of the field of
view is cut off (a Fourier transform along kx, exact). Noise scans become `noise_covariance`; navigators, phase correction
and separate calibration lines are left out; `left_out` counts them. Readouts along a trajectory stay as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError
from sciml.files.axes import Dims, check_names
from sciml.files.ismrmrd_header import Encoding, read_header
from sciml.files.readout_grid import GridOfReadouts
from sciml.files.readouts import COUNTERS, ReadoutsAsTheyAre, Rows, select

if TYPE_CHECKING:
    import numpy
    import xarray

__all__ = ["read", "recognise"]

ON_A_GRID = ("", "cartesian", "epi")


def recognise(path: str) -> bool:
    """True for an HDF5 file with a group that holds `xml` and rows of `head` and `data`."""
    from sciml.files.formats import hdf5
    from sciml.files.lazy import open_hdf5

    if not hdf5.recognise(path):
        return False
    with open_hdf5(path) as handle:
        return bool(_groups(handle))


def read(path: str, names: Mapping[str, str] | None = None, dims: Dims = None) -> xarray.Dataset:
    """Read; the heads of all rows at once, samples when they are indexed (slice by slice if there are several).

    Returns:
        On a grid: `kspace` (counters that vary, coil, kz, ky, kx), complex64, k = 0 at index n // 2, kz only if there is
        more than one; `mask`, True where something was measured, with the axes (of the counters, kz, ky, kx) along which
        it varies and always ky. Along a trajectory: `kspace` (readout, coil, sample) and `trajectory` (readout, sample,
        component) in the file's unit, with the counters that vary as coordinates of `readout`. With noise scans:
        `noise_covariance` (coil, coil_conjugate). Counters: `slice, repetition, contrast, phase, set, average`.
        Attributes: `encoded_matrix`, `image_matrix`, their `..._field_of_view` in mm, `trajectory_kind`,
        `oversampling_removed`, `left_out`, `source`.

    Raises:
        InputError: truncated file, damaged header, rows that contradict their heads or the header, readouts of several
            lengths or numbers of coils, nothing but noise.

    Warns:
        of readouts that were averaged, of groups that were passed over, of a matrix taken from the counters.

    *Fails when* a grid was sampled on ramps (EPI with a trajectory is treated as a trajectory), or for images and waveforms,
    which are not read.
    """
    import xarray

    from sciml.files.formats import hdf5

    if dims is not None:
        return hdf5.read(path, names, dims)
    group, header = _group_and_header(path)
    rows = Rows.of(path, f"{group}/data")
    kept, noise, told = select(rows)
    encoding = _encoding(path, rows, kept, header)
    attrs: dict[str, Any] = {**encoding.attributes(), "left_out": told}
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    about = {"units": "1", "long_name": "signal, in the scanner's own unit"}
    curved = encoding.trajectory not in ON_A_GRID or (
        encoding.trajectory == "epi" and int(rows.head["trajectory_dimensions"][kept].max()) > 0
    )
    if curved:
        plain = ReadoutsAsTheyAre.of(rows, kept)
        variables["kspace"] = xarray.Variable(("readout", "coil", "sample"), plain.samples(), about)
        variables["trajectory"] = xarray.Variable(
            ("readout", "sample", "component"), plain.path(), {"long_name": "place in k-space, in the unit of the file"}
        )
        for name in COUNTERS:
            counted = rows.counter(name)[kept]
            if counted.max() > counted.min():
                coords[name] = ("readout", counted)
    else:
        grid = GridOfReadouts.of(rows, kept, encoding)
        variables["kspace"] = xarray.Variable(grid.axes, grid.samples(), {**about, "k_zero": "at index n // 2"})
        axes, mask = grid.mask()
        variables["mask"] = xarray.Variable(axes, mask, {"long_name": "True where something was measured"})
        attrs["oversampling_removed"] = grid.surplus
    if noise.size:
        covariance = {"units": "1", "long_name": "mean of n n^H over the noise scans, real and imaginary part together"}
        variables["noise_covariance"] = xarray.Variable(
            ("coil", "coil_conjugate"), _covariance(rows, noise), covariance
        )
    chosen = check_names(path, names, variables)
    return xarray.Dataset(
        {chosen.get(name, name): value for name, value in variables.items()},
        coords=coords,
        attrs={**attrs, "source": path.replace("\\", "/").rsplit("/", 1)[-1]},
    )


def _groups(handle: Any) -> dict[str, int]:
    """Groups that look like a scan and how many readouts each has."""
    found = {}
    for name, item in handle.items():
        if not hasattr(item, "keys") or "data" not in item:
            continue
        fields = set(getattr(getattr(item["data"], "dtype", None), "names", None) or ())
        if {"head", "data"} <= fields and item["data"].ndim == 1:
            found[str(name)] = int(item["data"].shape[0])
    return found


def _group_and_header(path: str) -> tuple[str, tuple[Encoding, ...]]:
    from sciml.files.lazy import open_hdf5

    with open_hdf5(path) as handle:
        found = _groups(handle)
        group = max(found, key=lambda name: found[name])
        if len(found) > 1:
            warnings.warn(
                f"'{path}' holds the scans {', '.join(found)}; '{group}' with {found[group]} readouts was read.",
                stacklevel=3,
            )
        if not found[group]:
            raise InputError(f"'{group}/data' of '{path}' holds no readout; copy or convert the scan again.")
        if "xml" not in handle[group]:
            raise InputError(f"'{path}' has no '{group}/xml', the header of the scan; convert it again.")
        text = handle[group]["xml"][()]
    stored = text.reshape(-1)[0] if getattr(text, "size", 0) else text
    if not isinstance(stored, (bytes, str)):
        raise InputError(f"'{group}/xml' of '{path}' is no text; convert the scan again.")
    return group, read_header(path, stored)


def _encoding(path: str, rows: Rows, kept: numpy.ndarray[Any, Any], header: tuple[Encoding, ...]) -> Encoding:
    index = int(rows.head["encoding_space_ref"][kept[0]])
    if index >= len(header):
        raise InputError(f"the readouts of '{path}' refer to encoding {index} and its header has {len(header)}.")
    return header[index]


def _covariance(rows: Rows, noise: numpy.ndarray[Any, Any]) -> Any:
    import numpy as np

    total, count = 0.0, 0
    for index in noise:
        samples = rows.samples(int(index)).astype(complex)
        total = total + samples @ samples.conj().T
        count += samples.shape[1]
    return np.asarray(total) / max(count, 1)
