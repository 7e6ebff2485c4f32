"""One file = one layout; each has `recognise(path)` and `read(path, names, dims)`."""

from __future__ import annotations

from sciml.files.formats import hdf5, matlab, own, pdebench, torch_file

__all__ = ["hdf5", "matlab", "own", "pdebench", "torch_file"]
