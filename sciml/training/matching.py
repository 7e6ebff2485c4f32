"""Proximal matching: training a network to be the most probable denoiser of the images it sees."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sciml.domains.errors import InputError
from sciml.files import Record
from sciml.training._state import compare, load_run, load_weights, save_run
from sciml.training.optimisers import AdamW, Optimiser
from sciml.training.schedules import Cosine, OneCycle, Schedule

__all__ = ["Absolute", "Expansion", "MatchingLoss", "ProximalMatching", "Squares", "Stage", "match", "stages"]

Draw = Callable[[int, torch.Generator], Tensor | tuple[Tensor, Tensor]]


class MatchingLoss(Protocol):
    """A number for a batch of differences between the output and the clean images."""

    def __call__(self, difference: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Absolute:
    """The mean absolute difference: its minimiser is the median of the posterior in every pixel."""

    def __call__(self, difference: Tensor) -> Tensor:
        """A scalar."""
        return difference.abs().mean()


@dataclass(frozen=True)
class Squares:
    """The mean squared difference: its minimiser is the mean of the posterior."""

    def __call__(self, difference: Tensor) -> Tensor:
        """A scalar."""
        return difference.square().mean()


@dataclass(frozen=True)
class ProximalMatching:
    r"""``1 - exp(-|d|^2 / (n gamma^2))`` per image of ``n`` numbers, averaged over the batch (arXiv:2310.14344).

    As ``gamma -> 0`` the minimiser tends to the mode of the posterior, ``argmax p(x | v)``. ``gamma`` is in the units of the
    images, as a root mean square over pixels: the paper's ``gamma`` is ``gamma \sqrt n`` here, so that a number found on
    patches of one size serves for another. An image whose error is far above ``gamma`` no longer pulls: start with a large
    one.
    """

    gamma: float

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise InputError(f"ProximalMatching: gamma is {self.gamma}; it must be positive")

    def __call__(self, difference: Tensor) -> Tensor:
        """A scalar between 0 and 1."""
        return -torch.expm1(-difference.square().flatten(1).mean(1) / self.gamma**2).mean()


@dataclass(frozen=True)
class Stage:
    """A part of a training run: one loss for some steps, at a learning rate that its schedule moves."""

    loss: MatchingLoss
    steps: int
    learning_rate: float
    schedule: Schedule = Cosine()


@dataclass(frozen=True)
class Expansion:
    r"""``weight \max(0, <g, v> / |v|^2 - 1)^2`` for ``g = f(size v) / size`` in the directions ``v`` that ``f`` lengthens most.

    Where ``f`` lengthens large images, the prior ``R`` of which it is the proximal map falls without bound in that direction,
    and a reconstruction may run away along it; ordinary images never show this. ``v`` are ``count`` patches of ``shape``,
    single spikes and white noise in turn, after some rounds of the power method; ``size`` is the least and the greatest norm
    of ``size v``, in units of the images and above theirs, drawn evenly in its logarithm.
    """

    channels: int = 1
    shape: tuple[int, ...] = (24, 24)
    size: tuple[float, float] = (30.0, 1000.0)
    count: int = 2
    rounds: int = 15
    weight: float = 10.0

    def __call__(self, network: nn.Module, generator: torch.Generator) -> Tensor:
        """A scalar, averaged over the patches."""
        like = next(network.parameters())
        n = self.channels * math.prod(self.shape)
        v = torch.randn(self.count, n, generator=generator)
        v[::2] = torch.eye(n)[torch.randint(n, (len(v[::2]),), generator=generator)]
        v = v.reshape(self.count, self.channels, *self.shape).to(like)
        size = self.size[0] * (self.size[1] / self.size[0]) ** float(torch.rand((), generator=generator))
        with torch.no_grad():
            for _ in range(self.rounds):
                v = network.prox(size * v)  # type: ignore[operator]
                v = v / v.flatten(1).norm(dim=1).clamp_min(1e-30).reshape(-1, *(1,) * (v.ndim - 1))
        gain = (network.prox(size * v) * v).flatten(1).sum(1) / size  # type: ignore[operator]
        penalty: Tensor = self.weight * (gain - 1).clamp_min(0).square().mean()
        return penalty


def stages(steps: int, gamma: float, learning_rate: float = 1e-2) -> tuple[Stage, ...]:
    """Half the steps with the absolute difference, then an eighth each at ``gamma`` times 8, 4, 2 and 1.

    The paper's order, with a tenth of the learning rate in the second half; its ``gamma`` is 0.08 for images in (0, 1).
    """
    eighth = max(1, steps // 8)
    first = Stage(Absolute(), max(1, steps - 4 * eighth), learning_rate, OneCycle(0.1, end=0.1))
    return (first, *(Stage(ProximalMatching(gamma * k), eighth, learning_rate / 10) for k in (8, 4, 2, 1)))


def match(
    network: nn.Module,
    images: Tensor | Draw,
    *,
    noise: float,
    stages: Sequence[Stage],
    batch_size: int = 16,
    validate: Tensor | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    seed: int = 0,
    clip: float = 1.0,
    penalty: Callable[[nn.Module, torch.Generator], Tensor] | None = None,
    every: int = 100,
    optimizer: Optimiser = AdamW(weight_decay=0.0),  # noqa: B008
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> nn.Module:
    r"""Train ``network.prox`` to undo white noise, so that it becomes the proximal map of ``-noise^2 log p``.

    Fang, Buchanan and Sulam (arXiv:2310.14344). Each step draws clean images ``x`` and lowers the stage's loss of
    ``network.prox(x + noise n) - x``. The network is trained in place and returned in evaluation mode.

    - ``images``: ``(members, channel, *space)``, in the units in which the network works, or ``draw(count, generator)`` that
      returns a fresh batch (crops, flips and the drawing of phantoms belong there).
      A draw may also return a pair, clean images and the spoilt ones that are to become them; no noise is added then.
    - ``noise``: standard deviation, in the units of the images; ``stages``: what ``stages(steps, gamma)`` returns, or your own.
    - ``clip``: the gradient of all weights together is cut to this 2-norm.
    - ``penalty``: a further loss of the network itself, as a function of (network, generator), such as ``Expansion()``.
    - ``validate``: images scored every ``every`` steps under one fixed draw of noise (root mean square error).
    - ``out``: folder for ``last.safetensors`` (written whole, every ``every`` steps) and the history ``log.jsonl``, ``log.csv``.
      A step is determined by the seed, its number and the state of network and optimiser, so a run that was killed and is
      called again ends, on a CPU with the same number of threads, in the same bits; ``resume=False`` starts again.
    - ``progress``: called with each row of the history: step, stage, loss, validation, seconds of the row.

    Raises InputError for settings that cannot be, a loss that is no longer finite, a folder with another run. *Fails when*
    ``gamma`` is far below the error that the first stage reaches: nothing pulls any more, and the loss stands near 1.
    """
    if noise <= 0 or batch_size < 1 or every < 1 or not stages or min(stage.steps for stage in stages) < 1:
        raise InputError(
            f"match: noise {noise}, batch_size {batch_size}, every {every}, {len(stages)} stages; all must be positive"
        )
    if not callable(getattr(network, "prox", None)):
        raise InputError(
            f"match: {type(network).__name__} has no prox(x); give an InputConvexNetwork, or add that method"
        )
    draw = _members(images) if isinstance(images, Tensor) else images
    trained = [p for p in network.parameters() if p.requires_grad]
    if not trained:
        raise InputError(f"match: {type(network).__name__} has no parameters that require a gradient; nothing to train")
    rule = optimizer.build(trained, stages[0].learning_rate)
    config: dict[str, Any] = {
        "network": type(network).__name__, "network settings": getattr(network, "settings", None), "noise": noise,
        "stages": [repr(stage) for stage in stages], "batch_size": batch_size, "seed": seed, "clip": clip,
        "every": every, "optimizer": repr(optimizer), "penalty": repr(penalty),
    }  # fmt: skip
    folder, done = (None if out is None else Path(out).absolute()), 0
    if folder is not None and resume and (folder / "last.safetensors").exists():
        model, _, state, known = load_run(folder / "last.safetensors")
        compare(known["config"], config, str(folder))
        load_weights(network, model, f"'{folder}'")
        rule.load_state_dict({"state": state, "param_groups": rule.state_dict()["param_groups"]})
        done = known["epoch"]
    record = None if folder is None else Record(folder / "log", keep=math.ceil(done / every))
    total = sum(stage.steps for stage in stages)
    network.train()
    mean, count, began = 0.0, 0, time.perf_counter()
    for step in range(done, total):
        at, inner = _place(stages, step)
        stage = stages[at]
        if inner == 0:
            rule.state.clear()  # moments of another loss are on another scale
        for group in rule.param_groups:
            group["lr"] = stage.learning_rate * stage.schedule.factor(inner, stage.steps)
        number = (seed * 1_000_003 + step) % 2**62
        value = _step(network, draw, noise, stage.loss, penalty, batch_size, number, rule, clip)
        if not math.isfinite(value):
            raise InputError(
                f"match: the loss is {value} at step {step + 1}; use a smaller learning rate (now {stage.learning_rate:g})"
            )
        mean, count = mean + value, count + 1
        if (step + 1) % every and step + 1 < total:
            continue
        row = {
            "step": step + 1, "stage": at + 1, "learning_rate": rule.param_groups[0]["lr"], "loss": mean / count,
            "validation": None if validate is None else _score(network, validate, noise),
            "seconds": time.perf_counter() - began,
        }  # fmt: skip
        if record is not None and folder is not None:
            record.append(row)
            save_run(folder / "last.safetensors", network, rule, {}, {"epoch": step + 1, "config": config})
        if progress is not None:
            progress(row)
        mean, count, began = 0.0, 0, time.perf_counter()
    return network.eval()


def _step(
    network: nn.Module, draw: Draw, noise: float, loss: MatchingLoss,
    penalty: Callable[[nn.Module, torch.Generator], Tensor] | None, batch_size: int, number: int,
    rule: torch.optim.Optimizer, clip: float,
) -> float:  # fmt: skip
    """One step, determined by its number and the state of network and optimiser."""
    generator = torch.Generator().manual_seed(number)
    like = next(network.parameters())
    drawn = draw(batch_size, generator)
    if isinstance(drawn, tuple):
        x, noisy = drawn
    else:
        x, noisy = drawn, drawn + noise * torch.randn(drawn.shape, generator=generator, dtype=drawn.dtype)
    x, noisy = x.to(like), noisy.to(like)
    value = loss(network.prox(noisy) - x)  # type: ignore[operator]
    if penalty is not None:
        value = value + penalty(network, generator)
    rule.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
    rule.step()
    return float(value.detach())


def _members(images: Tensor) -> Draw:
    """Draws of members with replacement."""
    if images.ndim < 3 or not images.is_floating_point() or not bool(torch.isfinite(images).all()):
        raise InputError(
            f"match: images are {images.dtype} of shape {tuple(images.shape)}; give finite numbers (members, channel, *space)"
        )

    def draw(count: int, generator: torch.Generator) -> Tensor:
        return images[torch.randint(len(images), (count,), generator=generator)]

    return draw


def _place(stages: Sequence[Stage], step: int) -> tuple[int, int]:
    """The stage of a step, and the number of the step within it."""
    for at, stage in enumerate(stages):
        if step < stage.steps:
            return at, step
        step -= stage.steps
    raise InputError("match: there are no more stages")


def _score(network: nn.Module, clean: Tensor, noise: float) -> float:
    """Root mean square error under a fixed draw of noise."""
    network.eval()
    like = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    noisy = clean + noise * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    with torch.no_grad():
        parts = [network.prox(v) for v in torch.split(noisy.to(like), 4)]  # type: ignore[operator]
    network.train()
    return float((torch.cat(parts) - clean.to(like)).square().mean().sqrt())
