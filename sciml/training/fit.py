"""Training a network on pairs of fields: `fit`."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

import torch
from torch import Tensor, nn

from sciml.core.inverse import Inverse
from sciml.core.prior import Denoising, Prior
from sciml.core.solver import Solver
from sciml.domains.errors import InputError
from sciml.domains.space import usable
from sciml.files import Record
from sciml.training._estimate import estimate, real_parameters
from sciml.training._members import Members
from sciml.training._progress import bar, text
from sciml.training._state import compare, load_run, load_weights, save_run, weights
from sciml.training.denoising import EDM, DenoisingLoss, fit_denoiser
from sciml.training.fitted import Fit, as_samples, mean_relative_l2
from sciml.training.losses import H1, Loss, RelativeL2
from sciml.training.matching import Draw as Images
from sciml.training.optimisers import AdamW, Optimiser
from sciml.training.samples import Normaliser, Samples, split
from sciml.training.schedules import OneCycle, Schedule
from sciml.training.through import FittedPrior, fit_through
from sciml.training.through import Members as Draw

__all__ = ["Augmentation", "fit"]


class Augmentation(Protocol):
    """A symmetry of the data: moves all fields of each member by one randomly chosen element.

    ``apply(fields, generator)`` takes and returns {name: (batch, channels, *space)}.
    """

    def apply(self, fields: Mapping[str, Tensor], generator: torch.Generator) -> Mapping[str, Tensor]: ...


P = TypeVar("P", bound=Prior)


@overload
def fit(
    network: nn.Module,
    data: Any,
    *,
    inputs: str | Sequence[str] | None = None,
    targets: str | Sequence[str] | None = None,
    validate: Any = None,
    epochs: int = 60,
    batch_size: int = 20,
    learning_rate: float = 1e-3,
    schedule: Schedule = ...,
    optimizer: Optimiser = ...,
    loss: Loss = ...,
    augment: Sequence[Augmentation] = (),
    normalise: bool = True,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> Fit: ...


@overload
def fit(
    network: P,
    data: Draw | str,
    *,
    through: Solver[Any],
    steps: int = 100,
    validate: Inverse[Any] | None = None,
    epochs: int = 60,
    batch_size: int = 4,
    learning_rate: float = 1e-3,
    schedule: Schedule = ...,
    optimizer: Optimiser = ...,
    loss: Loss = ...,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    progress: bool | None = None,
) -> FittedPrior[P]: ...


@overload
def fit(
    network: P,
    data: Tensor | Images,
    *,
    steps: int = 100,
    validate: Tensor | None = None,
    epochs: int = 60,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    schedule: Schedule = ...,
    optimizer: Optimiser = ...,
    loss: DenoisingLoss = ...,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    progress: bool | None = None,
) -> FittedPrior[P]: ...


def fit(
    network: Any,
    data: Any,
    *,
    through: Solver[Any] | None = None,
    steps: int = 100,
    inputs: str | Sequence[str] | None = None,
    targets: str | Sequence[str] | None = None,
    validate: Any = None,
    epochs: int = 60,
    batch_size: int | None = None,
    learning_rate: float = 1e-3,
    schedule: Schedule = OneCycle(),  # noqa: B008  (frozen)
    optimizer: Optimiser = AdamW(),  # noqa: B008  (frozen)
    loss: Any = RelativeL2(),  # noqa: B008  (frozen)
    augment: Sequence[Augmentation] = (),
    normalise: bool = True,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> Any:
    r"""Train `network` to map inputs to targets and return it with the weights that did best on validation members.

    .. math:: \min_\theta \frac1N \sum_i \ell\bigl(D_u\, f_\theta(E_a\, a_i),\, u_i\bigr)

    ``E_a`` standardises each input channel and ``D_u`` undoes the same for the targets, so the loss sees physical
    units. "Best" is the least mean relative L2 error on the validation members after an epoch.

    ``fit(prior, members, through=solver)`` trains the weights of a prior instead, through every step of the solver, so that
    ``solver`` with that prior finds the truth of problems like the members; returns a FittedPrior. ``members(seed)`` draws an
    Inverse problem with its truth; the name of a catalogue entry draws ``batch_size`` (4) of its random members. Each step has
    members of its own, which depend on (seed, step) alone; an epoch is ``steps`` of them; ``validate`` is one problem (None: drawn).
    ``loss`` compares answer and truth. The arguments below that do not speak of pairs mean the same.

    ``fit(prior, images)`` with a prior that denoises (``Diffusion(UNet(2), scale, shift)``) trains its network to remove white noise of
    every level from clean images: a tensor (members, channel, \*space), or ``draw(count, generator)``. ``loss`` is ``EDM()``,
    ``batch_size`` 16, ``validate`` clean images; the weights kept are a running mean over about a thousand steps.

    - ``data``: an xarray.Dataset (then ``inputs`` and ``targets`` name its variables), or what `pairs` or `windows`
      return. ``validate``: the same kind of thing; None sets aside a tenth of the members, drawn with ``seed``.
    - ``batch_size``: None is 20. ``network``: any module (batch, C, \*space) -> (batch, C', \*space); it is trained in place, on ``device``, or
      where it is.
    - ``learning_rate``: the peak, which ``schedule`` multiplies at each step.
    - ``augment``: symmetries that inputs and targets share, applied to each batch, one after the other.
    - ``seed``: of the validation members, of the order of members in each epoch, of augmentation and of dropout. The
      order depends on (seed, epoch) alone and the global generators are left as they were.
    - ``out``: a folder for ``checkpoint.safetensors`` (the best network, readable by ``Fit.load``), ``log.csv`` and
      ``log.jsonl`` (one row per epoch) and ``last.safetensors`` (the full state after each epoch). Each file is
      replaced whole. If the folder holds a run with the same settings, it goes on from the last whole epoch; on a
      CPU, with the same number of threads, to the same bits as if never interrupted. ``resume=False`` starts again.
    - ``progress``: True prints sizes, an estimate of memory and time, and a progress bar to stderr; None does so on a
      terminal.

    Raises InputError for numbers that are not finite in the data (variable and member named), a network whose output
    does not fit the targets, a loss that is no longer finite, a folder with another run. *Fails when* the validation
    members are not like those of later use, which no number here can show.
    """
    began = time.perf_counter()
    if through is not None:
        pairwise = {"inputs": inputs, "targets": targets, "augment": augment or None, "device": device}
        extra = next((name for name, value in pairwise.items() if value is not None), None)
        if extra is not None or not normalise:
            raise InputError(
                f"fit: {extra or 'normalise'}= is for pairs of fields; with through= the members say it all, so leave it out."
            )
        return fit_through(
            network, data, through=through, validate=validate, epochs=epochs, steps=steps, batch_size=batch_size or 4,
            learning_rate=learning_rate, schedule=schedule, optimizer=optimizer, loss=loss, seed=seed, out=out,
            resume=resume, progress=progress,
        )  # fmt: skip
    if isinstance(network, Denoising) and isinstance(network, Prior):
        return fit_denoiser(
            network, data, loss=EDM() if isinstance(loss, RelativeL2) else loss, validate=validate, epochs=epochs,
            steps=steps, batch_size=batch_size or 16, learning_rate=learning_rate, schedule=schedule,
            optimizer=optimizer, seed=seed, out=out, resume=resume, progress=progress,
        )  # fmt: skip
    if isinstance(network, Prior):
        raise InputError(
            f"fit: {type(network).__name__} is a prior; say through which solver, fit(..., through=PrimalDual())."
        )
    batch_size = 20 if batch_size is None else batch_size
    if epochs < 1 or batch_size < 1 or learning_rate <= 0:
        raise InputError(
            f"fit: epochs {epochs}, batch_size {batch_size}, learning_rate {learning_rate}; all must be above zero."
        )
    if not any(p.requires_grad for p in network.parameters()):
        raise InputError(f"fit: {type(network).__name__} has no parameters that require a gradient; nothing to train.")
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    train, held_out = divide(as_samples(data, inputs, targets, dtype), validate, inputs, targets, seed, dtype)
    training, validation = Members(train), Members(held_out)
    signature = train.signature
    reason = signature.mismatch(held_out.signature)
    if reason:
        raise InputError(f"fit: the validation members are unlike the training members: {reason}.")
    if isinstance(loss, H1) and loss.spacing is None:
        loss = replace(loss, spacing=train.spacing)
    place = usable(device) if device is not None else next(network.parameters()).device
    network.to(place)
    kinds = train.normalisers() if normalise else tuple(Normaliser.identity(len(names)) for names in train.channels)
    fitted = Fit(network, signature, kinds[0], kinds[1], [])
    trial = min(batch_size, len(training))
    check_output(fitted, training)
    stepper = Stepper(fitted, training, loss, augment, place, seed, batch_size)
    steps_per_epoch = math.ceil(len(training) / batch_size)
    config: dict[str, Any] = {
        "network": type(network).__name__, "network settings": getattr(network, "settings", None),
        "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "schedule": text(schedule),
        "optimizer": text(optimizer), "loss": text(loss), "augment": [text(a) for a in augment],
        "normalise": normalise, "seed": seed, "inputs": list(signature.inputs),
        "targets": list(signature.targets), "training members": len(training),
        "validation members": len(validation), "training data": training.digest, "validation data": validation.digest,
    }  # fmt: skip
    fitted.config, fitted.recipe = config, train.recipe
    rule = optimizer.build([p for p in network.parameters() if p.requires_grad], learning_rate)

    folder = Path(out).absolute() if out is not None else None
    best, done = weights(network), 0
    if folder is not None:
        best, done = start_or_resume(folder, resume, fitted, rule, best, config)
    record = Record(folder / "log", keep=done) if folder is not None else None
    if record is not None:
        fitted.history = list(record.rows)

    loud = sys.stderr.isatty() if progress is None else progress
    if loud and done < epochs:
        announce(fitted, stepper, trial, len(validation), (epochs - done) * steps_per_epoch)
    total = epochs * steps_per_epoch
    with bar(loud and done < epochs, done * steps_per_epoch, total) as advance:
        for epoch in range(done, epochs):
            began = time.perf_counter()
            network.train()
            mean_loss = 0.0
            for index, (value, count) in enumerate(stepper.epoch(epoch, rule, learning_rate, schedule, total)):
                if not math.isfinite(value):
                    raise InputError(
                        f"fit: the loss is {value} at step {index + 1} of epoch {epoch + 1}; use a smaller "
                        f"learning_rate (now {learning_rate:g}) or look for extreme members in the data."
                    )
                mean_loss += value * count / len(training)
                advance(f"epoch {epoch + 1}, loss {value:.3g}")
            error = mean_relative_l2(fitted, validation, batch_size)
            if fitted.best_epoch == 0 or error < fitted.best_error:
                best, fitted.best_epoch, fitted.best_error = weights(network), epoch + 1, error
            last_step = (epoch + 1) * steps_per_epoch - 1
            row = {
                "epoch": epoch + 1, "steps": last_step + 1,
                "learning_rate": learning_rate * schedule.factor(last_step, total), "loss": mean_loss,
                "validation": error, "best": fitted.best_error, "seconds": time.perf_counter() - began,
            }  # fmt: skip
            fitted.history.append(row)
            if record is not None and folder is not None:
                record.append(row)
                save_run(folder / "last.safetensors", network, rule, best, facts(fitted, epoch + 1))
                if fitted.best_epoch == epoch + 1:
                    fitted.save(folder)
    load_weights(network, best, "the best epoch")
    network.eval()
    if folder is not None:
        fitted.save(folder)
    return fitted


def divide(
    samples: Samples, validate: Any, inputs: Any, targets: Any, seed: int, dtype: torch.dtype
) -> tuple[Samples, Samples]:
    """Training and validation members; windows of one trajectory stay on one side."""
    if validate is not None:
        return samples, as_samples(validate, inputs, targets, dtype)
    groups = len(set(samples.groups.tolist()))
    if groups < 2:
        what = "trajectory" if samples.signature.history else "member"
        raise InputError(f"fit: {groups} {what} is too few to set some aside for validation; give validate=.")
    aside = max(1, groups // 10)
    first, second = split(samples, (groups - aside, aside), seed)
    return first, second


def check_output(fitted: Fit, training: Members) -> None:
    """Raise InputError if the network does not map one member's inputs to the shape of its targets."""
    a, u = training.batch(torch.arange(1))
    fitted.network.eval()
    with torch.no_grad():
        out = fitted.network(fitted.encode.encode(a.to(fitted.device, fitted.dtype)))
    if out.shape != u.shape:
        raise InputError(
            f"{type(fitted.network).__name__} maps inputs {tuple(a.shape)} to {tuple(out.shape)}, but the targets "
            f"are {tuple(u.shape)}; set its out_channels to {u.shape[1]} and keep the grid."
        )


class Stepper:
    """One epoch of optimizer steps, wholly determined by (seed, epoch) and the state of network and optimizer."""

    def __init__(
        self, fitted: Fit, members: Members, loss: Loss, augment: Sequence[Augmentation], device: torch.device,
        seed: int, batch_size: int,
    ) -> None:  # fmt: skip
        self.fitted, self.members, self.loss, self.augment = fitted, members, loss, tuple(augment)
        self.device, self.seed, self.batch_size = device, seed, batch_size
        self.names = members.samples.channels

    def epoch(
        self, epoch: int, rule: torch.optim.Optimizer, learning_rate: float, schedule: Schedule, total: int
    ) -> Iterator[tuple[float, int]]:
        """Take the steps; yields (loss, members) after each."""
        number = (self.seed * 1_000_003 + epoch) % 2**62
        generator = torch.Generator().manual_seed(number)
        order = torch.randperm(len(self.members), generator=generator)
        step = epoch * math.ceil(len(self.members) / self.batch_size)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(number)  # for dropout
            for pair in self.members.batches(self.batch_size, order):
                a, u = self.moved(*pair, generator)
                for group in rule.param_groups:
                    group["lr"] = learning_rate * schedule.factor(step, total)
                rule.zero_grad(set_to_none=True)
                value = self.value(self.fitted.network, a, u)
                value.backward()  # type: ignore[no-untyped-call]
                rule.step()
                step += 1
                yield float(value.detach()), len(a)

    def value(self, network: nn.Module, a: Tensor, u: Tensor) -> Tensor:
        return self.loss(self.fitted.apply(a, network), u.to(self.device, self.fitted.dtype))

    def moved(self, a: Tensor, u: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs and targets moved together by the symmetries; a name on both sides moves as one field."""
        if not self.augment:
            return a, u
        whole, labels = torch.cat((a, u), dim=1), [*self.names[0], *self.names[1]]
        places = {name: [i for i, label in enumerate(labels) if label == name] for name in dict.fromkeys(labels)}
        fields: Mapping[str, Tensor] = {name: whole[:, where] for name, where in places.items()}
        for symmetry in self.augment:
            fields = symmetry.apply(fields, generator)
        first = next(iter(fields.values()))
        back = first.new_empty(first.shape[0], len(labels), *first.shape[2:])
        for name, where in places.items():
            back[:, where] = fields[name]
        return back[:, : a.shape[1]], back[:, a.shape[1] :]


def start_or_resume(
    folder: Path, resume: bool, fitted: Fit, rule: torch.optim.Optimizer, best: dict[str, Tensor],
    config: dict[str, Any],
) -> tuple[dict[str, Tensor], int]:  # fmt: skip
    """Best weights so far and the number of whole epochs done; writes the state of a new run."""
    path = folder / "last.safetensors"
    if not (resume and path.exists()):
        save_run(path, fitted.network, rule, best, facts(fitted, 0))
        return best, 0
    model, best, state, known = load_run(path)
    compare(known["config"], config, str(folder))
    load_weights(fitted.network, model, f"'{path}'")
    rule.load_state_dict({"state": state, "param_groups": rule.state_dict()["param_groups"]})
    fitted.best_epoch, fitted.best_error = known["best_epoch"], known["best_error"]
    return best, known["epoch"]


def facts(fitted: Fit, epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch, "best_epoch": fitted.best_epoch, "best_error": fitted.best_error, "config": fitted.config
    }  # fmt: skip


def announce(fitted: Fit, stepper: Stepper, batch: int, validation: int, steps: int) -> None:
    """Print sizes and what the run will cost."""
    from rich.console import Console

    a, u = stepper.members.batch(torch.arange(batch))
    fitted.network.train()
    cost = estimate(fitted.network, lambda twin: stepper.value(twin, a, u), stepper.device)
    Console(stderr=True, highlight=False).print(
        f"{type(fitted.network).__name__}: {real_parameters(fitted.network):,} real parameters; "
        f"{len(stepper.members)} members to train, {validation} to validate "
        f"({stepper.members.bytes / 2**20:.0f} MiB); {steps} steps to go, about "
        f"{steps * cost.seconds_per_step:.0f} s and {cost.bytes / 2**20:.0f} MiB for one batch of {batch}.",
        soft_wrap=True,
    )
