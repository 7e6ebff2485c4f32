"""One file = one layout; each has `recognise(path)` and `read(path, names, dims)`."""

from __future__ import annotations

from sciml.files.formats import (
    data_exchange,
    fastmri,
    fips_eit,
    hdf5,
    htc2022,
    ismrmrd,
    ktc2023,
    matlab,
    numpy_file,
    own,
    pdebench,
    torch_file,
)

__all__ = [
    "data_exchange",
    "fastmri",
    "fips_eit",
    "hdf5",
    "htc2022",
    "ismrmrd",
    "ktc2023",
    "matlab",
    "numpy_file",
    "own",
    "pdebench",
    "torch_file",
]
