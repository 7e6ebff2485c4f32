"""What a user gives as numbers, as a tensor."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["numbers"]


def numbers(name: str, given: Any) -> Tensor:
    """A tensor of a tensor, an array, a list (whose numbers are float64, as Python's) or a data set of one variable.

    Raises InputError, which calls it ``name``, where that makes none.
    """
    import numpy as np

    if hasattr(given, "data_vars"):
        found = list(given.data_vars)
        if len(found) != 1:
            raise InputError(
                f"{name} is a data set of {', '.join(map(str, found)) or 'nothing'}; give one variable of it"
            )
        given = given[found[0]]
    try:
        if isinstance(given, str | os.PathLike):
            raise TypeError("open a file with sciml.open_dataset, its axes named by dims=")
        return torch.as_tensor(given if isinstance(given, Tensor) else np.asarray(given))
    except (TypeError, ValueError, RuntimeError) as error:
        told = str(error).partition(". ")[0].partition("\n")[0]
        raise InputError(f"{name} is a {type(given).__name__} that makes no tensor ({told}); give numbers") from error
