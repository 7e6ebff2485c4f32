"""The full state of a run as one file, so that a run killed at any moment goes on from the last whole epoch."""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from torch import Tensor, nn

from sciml.domains.errors import InputError
from sciml.files import load_tensors, save_tensors

__all__ = ["compare", "load_run", "load_weights", "save_run", "weights"]


def weights(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the network's parameters and buffers, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def load_weights(network: nn.Module, saved: dict[str, Tensor], where: str) -> None:
    """Put saved weights into the network.

    Raises:
        InputError: they belong to a network with other names or shapes; the first that differs is named.
    """
    have = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    want = {name: tuple(value.shape) for name, value in saved.items()}
    if have != want:
        name = next(n for n in [*want, *have] if have.get(n) != want.get(n))
        raise InputError(
            f"{where} was made by another network: '{name}' is {want.get(name, 'absent')} there and "
            f"{have.get(name, 'absent')} in {type(network).__name__}; build the network with the same settings."
        )
    network.load_state_dict(saved)


def save_run(
    path: str | os.PathLike[str],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor],
    facts: dict[str, Any],
) -> None:
    """Write weights, best weights, optimizer state and facts (JSON) to one file, whole or not at all."""
    tensors = {f"model.{name}": value for name, value in weights(network).items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    plain: dict[str, Any] = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                plain[f"{index}.{name}"] = value
    save_tensors(path, tensors, {"facts": json.dumps({**facts, "optimizer": plain})})


def load_run(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[int, dict[str, Any]], dict[str, Any]]:
    """Read what `save_run` wrote: weights, best weights, optimizer state, facts."""
    tensors, text = load_tensors(path)
    if "facts" not in text:
        raise InputError(f"'{path}' is not the state of a training run; delete it, or give another folder.")
    facts: dict[str, Any] = json.loads(text["facts"])
    model = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    best = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, entry = name.split(".", 2)
            state.setdefault(int(index), {})[entry] = value
    for name, value in facts.pop("optimizer").items():
        index, entry = name.split(".", 1)
        state.setdefault(int(index), {})[entry] = value
    return model, best, state, facts


def compare(before: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """Raise InputError naming the first setting that differs between a run on disk and the one asked for."""
    for name in [*before, *(n for n in now if n not in before)]:
        if before.get(name) != now.get(name):
            raise InputError(
                f"'{where}' holds a run with {name} = {before.get(name)} and now {name} = {now.get(name)}; "
                "use the same settings to resume it, resume=False to start it again, or another folder."
            )
