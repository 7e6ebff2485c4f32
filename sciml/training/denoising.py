"""Training a denoiser for all noise levels at once: ``fit(Diffusion(network), images)``."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from sciml.domains.errors import InputError
from sciml.files import Record
from sciml.training._progress import bar, text
from sciml.training._state import compare, load_run, load_weights, save_run, weights
from sciml.training.matching import Draw, _members
from sciml.training.optimisers import Optimiser
from sciml.training.schedules import Schedule
from sciml.training.through import FittedPrior

__all__ = ["EDM", "DenoisingLoss", "fit_denoiser"]

P = TypeVar("P")
KEPT = 0.999  # share of the running mean of the weights that a step leaves


class DenoisingLoss(Protocol):
    """A scalar for clean images ``(batch, channel, *space)``; the levels and the noise are drawn from the generator."""

    def __call__(self, prior: Any, clean: Tensor, generator: torch.Generator) -> Tensor: ...


@dataclasses.dataclass(frozen=True)
class EDM:
    r"""``(1 + 1/s^2) |D(x + sigma n, sigma) - x|^2 / scale^2`` per number, ``s = sigma / scale``: a unit loss of the network itself.

    ``\log s`` is normal with ``mean`` and ``deviation`` (Karras, Aittala, Aila and Laine, arXiv:2206.00364, with the deviation of the
    data as the unit), except that a ``share`` of the levels is drawn evenly in the logarithm between the prior's ``levels``.
    """

    mean: float = -0.5
    deviation: float = 1.2
    share: float = 0.1

    def __post_init__(self) -> None:
        if not self.deviation > 0 or not 0 <= self.share <= 1:
            raise InputError(f"EDM: deviation {self.deviation} must be positive and share {self.share} between 0 and 1")

    def __call__(self, prior: Any, clean: Tensor, generator: torch.Generator) -> Tensor:
        """The mean over the batch."""
        low, high = (math.log(level / prior.scale) for level in prior.levels)
        drawn = torch.randn(len(clean), generator=generator, dtype=torch.float64)
        even, which = torch.rand(2, len(clean), generator=generator, dtype=torch.float64)
        log = (self.mean + self.deviation * drawn).clamp(low, high)
        s = torch.where(which < self.share, low + (high - low) * even, log).exp().to(clean.device)
        n = torch.randn(clean.shape, generator=generator, dtype=torch.float32).to(clean)
        sigma = prior.scale * s
        noisy = clean + sigma.to(clean).reshape(-1, *[1] * (clean.ndim - 1)) * n
        square = ((prior.denoise(noisy, sigma) - clean) / prior.scale).square().flatten(1).mean(1)
        value: Tensor = ((1 + s.square().reciprocal()).to(square) * square).mean()
        return value


def fit_denoiser(
    prior: P,
    images: Tensor | Draw,
    *,
    loss: DenoisingLoss,
    validate: Tensor | None,
    epochs: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    schedule: Schedule,
    optimizer: Optimiser,
    seed: int,
    out: str | os.PathLike[str] | None,
    resume: bool,
    progress: bool | None,
    clip: float = 1.0,
) -> FittedPrior[P]:
    """What ``fit`` does with a prior that denoises; its docstring says it all. The weights kept are a running mean."""
    network = _network(prior)
    if min(epochs, steps, batch_size) < 1 or learning_rate <= 0:
        raise InputError(
            f"fit: epochs {epochs}, steps {steps}, batch_size {batch_size}, learning_rate {learning_rate}; all must be above zero."
        )
    draw = _drawn(images)
    trained = [p for p in network.parameters() if p.requires_grad]
    if not trained:
        raise InputError(
            f"fit: {type(network).__name__} has no parameters that require a gradient; call requires_grad_(True) on the network"
        )
    rule = optimizer.build(trained, learning_rate)
    config: dict[str, Any] = {
        "prior": type(prior).__name__, "network": type(network).__name__,
        "network settings": getattr(network, "settings", None), "epochs": epochs, "steps": steps,
        "learning_rate": learning_rate, "schedule": text(schedule), "optimizer": text(optimizer), "loss": text(loss),
        "batch_size": batch_size, "seed": seed,
    }  # fmt: skip
    folder = None if out is None else Path(out).absolute()
    last = None if folder is None else folder / "last.safetensors"
    mean, done = weights(network), 0
    if last is not None and resume and last.exists():
        model, mean, state, known = load_run(last)
        compare(known["config"], config, str(folder))
        load_weights(network, model, f"'{last}'")
        rule.load_state_dict({"state": state, "param_groups": rule.state_dict()["param_groups"]})
        done = known["epoch"]
    record = None if folder is None else Record(folder / "log", keep=done)
    history = [] if record is None else list(record.rows)
    total = epochs * steps
    loud = sys.stderr.isatty() if progress is None else progress
    like = next(network.parameters())
    with bar(loud and done < epochs, done * steps, total) as advance:
        for epoch in range(done, epochs):
            began, sum_ = time.perf_counter(), 0.0
            network.train()
            for step in range(epoch * steps, (epoch + 1) * steps):
                for group in rule.param_groups:
                    group["lr"] = learning_rate * schedule.factor(step, total)
                generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**62)
                value = loss(prior, draw(batch_size, generator).to(like), generator)
                if not math.isfinite(float(value.detach())):
                    raise InputError(
                        f"fit: the loss is {float(value.detach())} at step {step + 1}; use a smaller learning_rate (now {learning_rate:g})"
                    )
                rule.zero_grad(set_to_none=True)
                value.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(trained, clip)
                rule.step()
                _average(mean, network, min(KEPT, (1 + step) / (10 + step)))
                sum_ += float(value.detach()) / steps
                advance(f"epoch {epoch + 1}, loss {float(value.detach()):.3g}")
            error = sum_ if validate is None else _score(prior, network, mean, loss, validate)
            row = {
                "epoch": epoch + 1, "steps": (epoch + 1) * steps,
                "learning_rate": learning_rate * schedule.factor((epoch + 1) * steps - 1, total), "loss": sum_,
                "validation": error, "seconds": time.perf_counter() - began,
            }  # fmt: skip
            history.append(row)
            if record is not None and last is not None:
                record.append(row)
                save_run(last, network, rule, mean, {"epoch": epoch + 1, "config": config})
    load_weights(network, mean, "the mean of the weights")
    network.eval().requires_grad_(False)
    fitted = FittedPrior(prior, None, history, epochs, history[-1]["validation"], config)
    save = getattr(prior, "save", None)
    if folder is not None and save is not None:
        save(folder)
    return fitted


def _network(prior: Any) -> nn.Module:
    network = getattr(prior, "network", None)
    if not isinstance(network, nn.Module) or not callable(getattr(prior, "denoise", None)):
        raise InputError(
            f"fit: {type(prior).__name__} has no network that denoises; give a Diffusion(UNet(...)), or say through which solver it is to be trained"
        )
    return network


def _drawn(images: Any) -> Callable[[int, torch.Generator], Tensor]:
    """Draws of clean images."""
    if not isinstance(images, Tensor) and not callable(images):
        raise InputError(
            "fit: a denoising prior learns from clean images, a tensor (members, channel, *space), or a function draw(count, generator) that returns some"
        )
    draw = _members(images) if isinstance(images, Tensor) else images

    def clean(count: int, generator: torch.Generator) -> Tensor:
        drawn = draw(count, generator)
        if isinstance(drawn, tuple):
            raise InputError("fit: the noise of a denoising prior is its own; draw clean images alone")
        return drawn

    return clean


def _average(mean: dict[str, Tensor], network: nn.Module, kept: float) -> None:
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                mean[name].lerp_(value.detach().to(mean[name]), 1 - kept)


def _score(
    prior: Any, network: nn.Module, mean: dict[str, Tensor], loss: DenoisingLoss, clean: Tensor
) -> float:  # fmt: skip
    """The loss of the averaged weights under one fixed draw."""
    kept = weights(network)
    load_weights(network, mean, "the mean of the weights")
    network.eval()
    generator, like = torch.Generator().manual_seed(0), next(network.parameters())
    with torch.no_grad():
        found = [float(loss(prior, part.to(like), generator)) * len(part) for part in torch.split(clean, 16)]
    load_weights(network, kept, "the weights")
    return sum(found) / len(clean)
