"""One file = one layout; each has `recognise(path)` and `read(path, names, dims)`."""

from __future__ import annotations

from sciml.files.formats import data_exchange, hdf5, htc2022, ktc2023, matlab, own, pdebench, torch_file

__all__ = ["data_exchange", "hdf5", "htc2022", "ktc2023", "matlab", "own", "pdebench", "torch_file"]
