"""Volumes of the fastMRI data set (Zbontar et al. 2018, arXiv:1811.08839).

HDF5 files: `kspace` complex64 (slice, coil, readout, phase), or (slice, readout, phase) for the emulated single coil;
`ismrmrd_header` (XML); `reconstruction_rss` or `reconstruction_esc` (slice, row, column), the images that results are
compared with; in test and challenge volumes `mask` (phase) of the lines that were kept. k-space is centred (its zero lies
at index n // 2) and its readout is sampled twice as finely as the image needs; nothing of this is changed here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError
from sciml.files.axes import Dims, check_names, nearest, plain
from sciml.files.heaps import attributes
from sciml.files.ismrmrd_header import Encoding, read_header

if TYPE_CHECKING:
    import xarray

__all__ = ["read", "recognise"]

TARGETS = ("reconstruction_rss", "reconstruction_esc")
BESIDE = (*TARGETS, "ismrmrd_header", "mask")


def recognise(path: str) -> bool:
    """True for an HDF5 file with `kspace` or a reconstruction at its root and another part of the layout beside it."""
    from sciml.files.formats import hdf5
    from sciml.files.lazy import open_hdf5

    if not hdf5.recognise(path):
        return False
    with open_hdf5(path) as handle:
        count = sum(name in handle for name in BESIDE)
        return count >= 1 and ("kspace" in handle or (count >= 2 and "ismrmrd_header" in handle))


def read(path: str, names: Mapping[str, str] | None = None, dims: Dims = None) -> xarray.Dataset:
    """Read lazily. With `dims=` the arrays are read as they are, as from any HDF5 file.

    Returns:
        `kspace` (slice, coil, kx, ky) or (slice, kx, ky), kx along the readout, complex64, in the scanner's units;
        `mask` (ky), True for the lines that hold data; `reconstruction_rss`, `reconstruction_esc` (slice, x, y). Attributes:
        those of the file (`acquisition`, `max`, `norm`, `patient_id`, `acceleration`), `encoded_matrix`, `image_matrix`,
        their `..._field_of_view` in mm, `oversampling`, `source`.

    Raises:
        InputError: truncated file, a missing, empty, real or mismatched dataset, a header that is no XML, a mask that
            keeps nothing.

    *Fails when* `mask` is taken for an undersampling pattern: in training volumes it only leaves out the padding.
    """
    import numpy as np
    import xarray
    from xarray.core import indexing

    from sciml.files.formats import hdf5
    from sciml.files.lazy import HDF5Array, open_hdf5

    if dims is not None:
        return hdf5.read(path, names, dims)
    with open_hdf5(path) as handle:
        if "kspace" not in handle:
            raise InputError(f"'{path}' has no 'kspace'; {nearest('kspace', handle)}; copy the volume again.")
        found = hdf5.numeric(handle)
        shape = found.get("kspace", ())
        if len(shape) not in (3, 4) or min(shape) < 1 or handle["kspace"].dtype.kind != "c":
            kind = getattr(handle["kspace"], "dtype", "a group")
            raise InputError(
                f"'kspace' of '{path}' is {kind} of shape {shape}; it must be complex, (slice, coil, readout, phase) or "
                "(slice, readout, phase); give dims= to read it as it is."
            )
        header = _header(path, handle)
        mask = _mask(path, handle, header, shape[-1])
        targets = [name for name in TARGETS if name in found]
        for name in targets:
            if len(found[name]) != 3 or found[name][0] != shape[0]:
                raise InputError(
                    f"'{name}' of '{path}' has shape {found[name]} for {shape[0]} slices of 'kspace'; it must be "
                    f"({shape[0]}, rows, columns)."
                )
        attrs = attributes(handle)
    if header is not None:
        attrs |= {**header.attributes(), "oversampling": header.oversampling()}

    def lazily(axes: tuple[str, ...], name: str, about: dict[str, str]) -> Any:
        return xarray.Variable(axes, indexing.LazilyIndexedArray(HDF5Array(path, name)), about)

    axes = ("slice", "coil", "kx", "ky") if len(shape) == 4 else ("slice", "kx", "ky")
    about = {"units": "1", "long_name": "signal, in the scanner's own unit; k = 0 at index n // 2"}
    variables = {"kspace": lazily(axes, "kspace", about)}
    variables["mask"] = xarray.Variable(("ky",), np.asarray(mask), {"long_name": "True for the lines that hold data"})
    for name in targets:
        variables[name] = lazily(("slice", "x", "y"), name, {"units": "1", "long_name": "magnitude of the image"})
    chosen = check_names(path, names, [*variables, *attrs])
    attrs = {chosen.get(name, name): value for name, value in attrs.items()}
    return xarray.Dataset(
        {chosen.get(name, name): value for name, value in variables.items()},
        attrs={**attrs, "source": path.replace("\\", "/").rsplit("/", 1)[-1]},
    )


def _header(path: str, handle: Any) -> Encoding | None:
    if "ismrmrd_header" not in handle:
        return None
    stored = plain(handle["ismrmrd_header"][()]) if hasattr(handle["ismrmrd_header"], "dtype") else None
    if not isinstance(stored, (str, bytes)):
        raise InputError(f"'ismrmrd_header' of '{path}' is no text; copy the volume again.")
    return read_header(path, stored)[0]


def _mask(path: str, handle: Any, header: Encoding | None, lines: int) -> Any:
    """The lines that were kept, without those that only pad."""
    import numpy as np

    mask = np.ones(lines, dtype=bool)
    if "mask" in handle:
        stored = np.asarray(handle["mask"][()]).reshape(-1)
        if stored.size != lines or stored.dtype.kind not in "fiub":
            raise InputError(
                f"'mask' of '{path}' has {stored.size} entries of type {stored.dtype} for {lines} lines of 'kspace'; "
                "write one number per line, or give dims= to read the arrays as they are."
            )
        if not np.isfinite(stored).all():
            raise InputError(f"'mask' of '{path}' holds what is not a number; write 1 for the lines that were kept.")
        mask = stored != 0
    step = "kspace_encoding_step_1"
    if header is not None and header.encoded is not None and {step} <= set(header.centre) & set(header.largest):
        first = header.encoded[1] // 2 - header.centre[step]
        last = first + header.largest[step]
        if 0 <= first <= last < lines:
            at = np.arange(lines)
            mask = mask & (at >= first) & (at <= last)
        else:
            warnings.warn(
                f"the header of '{path}' puts lines {first} to {last} of {lines} in 'kspace'; its padding was ignored.",
                stacklevel=2,
            )
    if not mask.any():
        raise InputError(f"'mask' of '{path}' keeps none of the {lines} lines; there is nothing to reconstruct from.")
    return mask
