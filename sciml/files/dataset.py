"""Open a file of any known layout as an xarray.Dataset with named axes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sciml.domains.errors import InputError
from sciml.files import formats
from sciml.files.axes import Dims

if TYPE_CHECKING:
    import xarray

__all__ = ["open_dataset"]

LAYOUTS = (
    formats.htc2022,
    formats.fips_eit,
    formats.ktc2023,
    formats.matlab,
    formats.own,
    formats.pdebench,
    formats.data_exchange,
    formats.fastmri,
    formats.ismrmrd,
    formats.torch_file,
    formats.numpy_file,
    formats.hdf5,
)
"""In the order in which they are asked; the most particular first."""


def open_dataset(
    path: str | os.PathLike[str], *, names: Mapping[str, str] | None = None, dims: Dims = None
) -> xarray.Dataset:
    """Open a data set: sciml's own, PDEBench single-file, measured CT (Data Exchange, Helsinki Tomography Challenge), MRI
    (fastMRI, ISMRMRD) and impedance tomography (Kuopio challenge, the Finnish archive), MATLAB v5 and v7.3, `.pt`, `.npy`,
    or any HDF5 file.

    The layout is recognised by content. HDF5 stays on disk until it is indexed; the result pickles and may be
    used in forked and spawned processes. The axes are named `sample, time, channel, x, y, z`.

    Args:
        path: the file.
        names: names in the file -> names here, as in `{"nu": "coefficient", "tensor": "u"}`.
        dims: names of the axes where the layout does not say: one tuple for all variables (a variable with fewer
            axes takes those whose sizes match) or one tuple per variable.

    Returns:
        Fields as variables, coordinate vectors as coordinates, parameters and recipe as attributes.

    Raises:
        InputError: missing, truncated or unrecognised file, missing variable (the nearest names are shown),
            a wrong number of axes.

    *Fails when* the file needs a library that is not HDF5, MATLAB, NumPy or torch: convert it to HDF5 first.
    """
    location = os.fspath(path)
    if not Path(location).exists():
        raise InputError(f"there is no file '{location}'; check the path.")
    if not Path(location).is_file():
        raise InputError(f"'{location}' is not a file; give the path of one data file.")
    if not os.access(location, os.R_OK):
        raise InputError(f"'{location}' cannot be read: permission denied; change its mode or copy it.")
    if Path(location).stat().st_size == 0:
        raise InputError(f"'{location}' is empty; copy or generate it again.")
    if isinstance(names, (str, bytes)) or (names is not None and not isinstance(names, Mapping)):
        raise InputError(f"names={names!r} must map names of the file to names here, as in {{'nu': 'coefficient'}}.")
    try:
        for layout in LAYOUTS:
            if layout.recognise(location):
                found: xarray.Dataset = layout.read(location, names, dims)
                return found
    except InputError:
        raise
    except Exception as error:  # damaged bytes make the libraries raise nearly anything
        text = str(error).splitlines()[0] if str(error) else ""
        raise InputError(
            f"'{location}' cannot be decoded ({type(error).__name__}: {text}); copy or generate it again."
        ) from error
    raise InputError(
        f"'{location}' is in no layout that sciml knows (its own, PDEBench, Data Exchange, fastMRI, ISMRMRD, MATLAB, "
        "NumPy, torch, HDF5); convert it to HDF5."
    )
