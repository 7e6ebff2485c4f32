"""What a user gives as numbers, as a tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["numbers"]


def numbers(name: str, given: Any) -> Tensor:
    """A tensor of a tensor, an array or a list (whose numbers are float64, as Python's); raises InputError, which calls it
    ``name``, where that makes none."""
    import numpy as np

    try:
        return torch.as_tensor(given if hasattr(given, "dtype") else np.asarray(given))
    except (TypeError, ValueError, RuntimeError) as error:
        told = str(error).partition(". ")[0].partition("\n")[0]
        raise InputError(f"{name} is a {type(given).__name__} that makes no tensor ({told}); give numbers") from error
