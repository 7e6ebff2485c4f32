"""Files of `torch.save`: a dictionary of tensors, read without unpickling anything else.

neuraloperator's sets (`x`, `y`, and `visc` for Burgers) are known: `x` is (sample, x...), `y` the same or with
time after sample. Without `names=` their variables are called `input` and `output`, because `x` and `y` are axes.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError
from sciml.files.axes import SPACE, Dims, assemble

if TYPE_CHECKING:
    import xarray

__all__ = ["read", "recognise"]

LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""torch's magic number as the first pickled integer."""


def recognise(path: str) -> bool:
    """True for torch's zip archive, whole or cut short, and for the pickle stream of older versions."""
    with Path(path).open("rb") as file:
        head = file.read(14)
    if head[:4] == b"PK\x03\x04":
        if not zipfile.is_zipfile(path):  # its directory, at the end, is missing
            return True
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    return head[:1] == b"\x80" and head.endswith(LEGACY)


def read(path: str, names: Mapping[str, str] | None = None, dims: Dims = None) -> xarray.Dataset:
    """Read a dictionary of tensors with `torch.load(weights_only=True, map_location="cpu")`.

    Raises:
        InputError: damaged file, a file that holds anything but tensors, axes that nobody named.
    """
    import torch

    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise InputError(
            f"'{path}' holds objects other than tensors, which are never unpickled; save a dictionary of tensors."
        ) from error
    except Exception as error:  # torch raises many kinds on damaged bytes
        raise InputError(f"'{path}' is a damaged torch file ({type(error).__name__}); copy it again.") from error
    if isinstance(found, torch.Tensor):
        found = {"tensor": found}
    if not isinstance(found, dict):
        raise InputError(f"'{path}' holds a {type(found).__name__}; save a dictionary of tensors by name.")
    arrays = {str(name): _array(value) for name, value in found.items() if isinstance(value, torch.Tensor)}
    default = _known(arrays)
    chosen = names
    if default and names is None:
        chosen = {name: {"x": "input", "y": "output"}.get(name, name) for name in arrays}
    return assemble(path, arrays, chosen, dims, default)


def _array(tensor: Any) -> Any:
    import torch

    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.is_sparse:
        plain = plain.to_dense()
    if plain.dtype in (torch.bfloat16,):
        plain = plain.to(torch.float32)
    return plain.contiguous().numpy()


def _known(arrays: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    if not {"x", "y"} <= set(arrays):
        return {}
    start, later = arrays["x"].shape, arrays["y"].shape
    if not 2 <= len(start) <= 4 or start[0] != later[0]:
        return {}
    axes = ("sample", *SPACE[: len(start) - 1])
    if later == start:
        return {"x": axes, "y": axes}
    if len(later) == len(start) + 1 and later[2:] == start[1:]:
        return {"x": axes, "y": ("sample", "time", *axes[1:])}
    return {}
