"""Learned priors on disk: weights as safetensors, the rest as JSON beside them; no code and no pickle is read."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sciml.core.prior import Prior
from sciml.domains.errors import InputError
from sciml.files import load_tensors, save_tensors

__all__ = ["holds_prior", "load_prior", "save_prior"]

FORMAT = "sciml prior 1"
_FILE = "checkpoint.safetensors"


def save_prior(folder: str | os.PathLike[str], kind: type[Prior], network: nn.Module, words: Mapping[str, Any]) -> None:
    """Write the network and the other arguments (numbers and text) of a prior of this kind, whole or not at all.

    Raises:
        InputError: the network is not one of sciml.networks, so that nobody could build it again from its settings.
    """
    settings = getattr(network, "settings", None)
    if settings is None or _network(type(network).__name__) is not type(network):
        raise InputError(
            f"{type(network).__name__} is not in sciml.networks; save its state_dict with sciml.files.save_tensors"
        )
    head = {
        "format": FORMAT,
        "prior": kind.__name__,
        "network": type(network).__name__,
        "settings": settings,
        "words": dict(words),
    }
    save_tensors(Path(folder) / _FILE, network.state_dict(), {"sciml": json.dumps(head)})


def holds_prior(folder: str | os.PathLike[str]) -> bool:
    """Whether the checkpoint in a folder is that of a prior."""
    return bool(_head(load_tensors(Path(folder) / _FILE)[1]).get("format") == FORMAT)


def load_prior(folder: str | os.PathLike[str]) -> Any:
    """The prior that `save_prior` wrote into a folder (or the file in it), its weights frozen.

    Raises:
        InputError: nothing there, a damaged file, or one that holds no prior.
    """
    path = Path(folder)
    path = path / _FILE if path.is_dir() else path
    saved, text = load_tensors(path)
    head = _head(text)
    if head.get("format") != FORMAT:
        raise InputError(f"'{path}' holds no prior; open the weights of a fit with sciml.pretrained")
    make, kind = _network(str(head["network"])), _kind(str(head["prior"]))
    if make is None or kind is None:
        raise InputError(f"'{path}' holds a {head['prior']} of {head['network']}; this sciml has no such class")
    network = make(**head["settings"])
    have = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    want = {name: tuple(value.shape) for name, value in saved.items()}
    if have != want:
        raise InputError(f"the weights in '{path}' do not fit {head['network']}; the file is damaged, make it again")
    network.load_state_dict(saved)
    network.eval().requires_grad_(False)
    words = {name: tuple(value) if isinstance(value, list) else value for name, value in head["words"].items()}
    return kind(network, **words)


def _head(text: Mapping[str, str]) -> dict[str, Any]:
    found = json.loads(text.get("sciml", "{}"))
    return found if isinstance(found, dict) else {}


def _network(name: str) -> Any:
    import sciml.networks

    found = getattr(sciml.networks, name, None)
    return found if inspect.isclass(found) and issubclass(found, nn.Module) else None


def _kind(name: str) -> Any:
    import sciml.priors

    found = getattr(sciml.priors, name, None)
    return found if inspect.isclass(found) and issubclass(found, Prior) else None
