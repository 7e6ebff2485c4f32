r"""Training a prior through the solver that uses it: ``fit(prior, members, through=solver)``.

.. math:: \min_\theta \mathbb E\, \ell\bigl(\mathrm{solver}(y; \theta),\, x\bigr)

over random problems with data ``y`` and known truth ``x``, with derivatives through every step of the solver. An unfolded
network is this, nothing more (Gregor and LeCun, ICML 2010).
"""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from sciml.core.gradients import Unroll
from sciml.core.inverse import Inverse
from sciml.core.solution import SolveError
from sciml.core.solver import Solver
from sciml.core.tree import Leaf, leaves, rebuild
from sciml.domains.errors import InputError
from sciml.files import Record
from sciml.training._state import compare, load_run, load_weights, save_run, weights
from sciml.training.losses import Loss
from sciml.training.optimisers import Optimiser
from sciml.training.schedules import Schedule

__all__ = ["FittedPrior", "fit_through"]

P = TypeVar("P")
Members = Callable[[int], Inverse[Any]]

APART = 2**31  # between the seeds of training and those of validation


@dataclass(frozen=True, eq=False)
class FittedPrior(Generic[P]):
    """A ``prior`` with the weights that did best on the validation members, the solver it was trained ``through`` (None: a denoiser, trained by itself), and the record.

    ``best_error`` is the least mean relative L2 error on the validation members, reached after epoch ``best_epoch``;
    ``history`` has one row per epoch, ``config`` the settings of the run. A denoiser is given the running mean of its weights after the
    last epoch, whatever came before: ``best_epoch`` is that epoch and ``best_error`` the loss after it.
    """

    prior: P
    through: Solver[Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_error: float = math.inf
    config: dict[str, Any] = field(default_factory=dict)


def fit_through(
    prior: P,
    members: Members | str,
    *,
    through: Solver[Any],
    validate: Inverse[Any] | None,
    epochs: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    schedule: Schedule,
    optimizer: Optimiser,
    loss: Loss,
    seed: int,
    out: str | os.PathLike[str] | None,
    resume: bool,
    progress: bool | None,
) -> FittedPrior[P]:
    """What ``fit`` does with ``through=``; its docstring says it all."""
    from sciml.training._progress import bar, text

    if epochs < 1 or steps < 1 or batch_size < 1 or learning_rate <= 0:
        raise InputError(
            f"fit: epochs {epochs}, steps {steps}, batch_size {batch_size}, learning_rate {learning_rate}; all must be above zero."
        )
    run = _Run(prior, through, loss, _drawn(members, batch_size))
    held_out = run.checked(run.draw(_number(seed, 0, validation=True)) if validate is None else validate)
    rule = optimizer.build(run.holder.parameters(), learning_rate)
    config: dict[str, Any] = {
        "prior": type(prior).__name__,
        "network settings": getattr(getattr(prior, "network", None), "settings", None),
        "through": _told(through), "epochs": epochs, "steps": steps, "learning_rate": learning_rate,
        "schedule": text(schedule), "optimizer": text(optimizer), "loss": text(loss), "seed": seed,
        "members": members if isinstance(members, str) else "drawn by a function", "batch_size": batch_size,
    }  # fmt: skip
    folder = Path(out).absolute() if out is not None else None
    best, done, best_epoch, best_error = weights(run.holder), 0, 0, math.inf
    last = None if folder is None else folder / "last.safetensors"
    if last is not None and resume and last.exists():
        model, best, state, known = load_run(last)
        compare(known["config"], config, str(folder))
        load_weights(run.holder, model, f"'{last}'")
        rule.load_state_dict({"state": state, "param_groups": rule.state_dict()["param_groups"]})
        best_epoch, best_error, done = known["best_epoch"], known["best_error"], known["epoch"]
    record = Record(folder / "log", keep=done) if folder is not None else None
    history = [] if record is None else list(record.rows)
    total = epochs * steps
    loud = sys.stderr.isatty() if progress is None else progress
    with bar(loud and done < epochs, done * steps, total) as advance:
        for epoch in range(done, epochs):
            began, mean = time.perf_counter(), 0.0
            for step in range(epoch * steps, (epoch + 1) * steps):
                for group in rule.param_groups:
                    group["lr"] = learning_rate * schedule.factor(step, total)
                rule.zero_grad(set_to_none=True)
                value = run.loss_of(run.checked(run.draw(_number(seed, step))))
                if not math.isfinite(float(value.detach())):
                    raise InputError(
                        f"fit: the loss is {float(value.detach())} at step {step + 1}; use a smaller learning_rate (now "
                        f"{learning_rate:g}) or look for extreme members (seed {_number(seed, step)})."
                    )
                value.backward()  # type: ignore[no-untyped-call]
                rule.step()
                mean += float(value.detach()) / steps
                advance(f"epoch {epoch + 1}, loss {float(value.detach()):.3g}")
            error = run.error_of(held_out)
            if best_epoch == 0 or error < best_error:
                best, best_epoch, best_error = weights(run.holder), epoch + 1, error
            row = {
                "epoch": epoch + 1, "steps": (epoch + 1) * steps,
                "learning_rate": learning_rate * schedule.factor((epoch + 1) * steps - 1, total), "loss": mean,
                "validation": error, "best": best_error, "seconds": time.perf_counter() - began,
            }  # fmt: skip
            history.append(row)
            if record is not None and last is not None:
                record.append(row)
                facts = {"epoch": epoch + 1, "best_epoch": best_epoch, "best_error": best_error, "config": config}
                save_run(last, run.holder, rule, best, facts)
    load_weights(run.holder, best, "the best epoch")
    fitted = FittedPrior(run.final(), through, history, best_epoch, best_error, config)
    save = getattr(fitted.prior, "save", None)
    if folder is not None and save is not None:
        save(folder)
    return fitted


class _Run(Generic[P]):
    """The prior's weights as one module, and what is done with them."""

    def __init__(self, prior: P, through: Solver[Any], loss: Loss, draw: Members) -> None:
        if not isinstance(through, Solver):
            raise InputError(f"fit: through= takes a solver such as PrimalDual(max_steps=10), not {through!r}")
        found = {_key(leaf): leaf.tensor for leaf in leaves(prior) if leaf.tensor.requires_grad}
        if not found:
            raise InputError(
                f"fit: {type(prior).__name__} has no tensor that requires a gradient; nothing to train. Give a prior with weights, such as Unfolded(network)."
            )
        if not all(tensor.is_leaf for tensor in found.values()):
            raise InputError(
                f"fit: the weights of {type(prior).__name__} were computed from others; pass its own weights."
            )
        self.through, self.loss, self.draw, self.given = through, loss, draw, prior
        self.holder = nn.ParameterDict(
            {key: t if isinstance(t, nn.Parameter) else nn.Parameter(t.detach()) for key, t in found.items()}
        )
        self.network = getattr(prior, "network", None)

    def with_weights(self, change: Callable[[nn.Parameter], Tensor]) -> P:
        def chosen(leaf: Leaf) -> Tensor:
            key = _key(leaf)
            return change(self.holder[key]) if key in self.holder else leaf.tensor

        return rebuild(self.given, chosen)

    def checked(self, problem: Inverse[Any]) -> Inverse[Any]:
        """The member with the prior in its place; raises InputError where it cannot serve."""
        if not isinstance(problem, Inverse):
            raise InputError(f"fit: members are Inverse problems with a truth, not {type(problem).__name__}.")
        if problem.truth is None:
            raise InputError(
                f"fit: {problem.name!r} has no truth to learn from; let members(seed) simulate it, as problem(..., batch=...) does."
            )
        posed: Inverse[Any] = dataclasses.replace(problem, prior=self.with_weights(lambda p: p), recipe=None)
        reason = self.through.accepts(posed)
        if reason is not None:
            raise InputError(f"fit: {type(self.through).__name__} cannot solve {problem.name!r}: {reason}.")
        return posed

    def solve(self, posed: Inverse[Any]) -> Tensor:
        from sciml.solving import solve

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return solve(posed, self.through, gradient=Unroll()).value
            except SolveError as error:
                return error.solution.value

    def loss_of(self, posed: Inverse[Any]) -> Tensor:
        self._mode(True)
        truth = posed.truth
        assert truth is not None
        return self.loss(self.solve(posed), truth)

    def error_of(self, posed: Inverse[Any]) -> float:
        """Mean relative L2 error per member, without gradients."""
        from sciml.metrics import relative_l2

        self._mode(False)
        truth = posed.truth
        assert truth is not None
        with torch.no_grad():
            return float(relative_l2(self.solve(posed), truth).mean())

    def final(self) -> P:
        """The prior with its weights as they are, which ask for no gradient."""
        self._mode(False)
        return self.with_weights(lambda p: p.detach())

    def _mode(self, training: bool) -> None:
        if isinstance(self.network, nn.Module):
            self.network.train(training)


def _key(leaf: Leaf) -> str:
    """A name for a weight that a module takes: the path without dots."""
    return ":".join(str(step).replace(".", ":") for step in leaf.path)


def _drawn(members: Members | str, batch_size: int) -> Members:
    if not isinstance(members, str):
        return members

    def draw(seed: int) -> Inverse[Any]:
        from sciml.catalogue import problem

        drawn: Inverse[Any] = problem(members, batch=batch_size, seed=seed, dtype=torch.float32)
        return drawn

    return draw


def _number(seed: int, step: int, validation: bool = False) -> int:
    """The seed of the members of a step: no two of one run alike, none of validation among them."""
    return seed * 2**32 + step + (APART if validation else 0)


def _told(solver: Any) -> str:
    """A solver and its settings in words, those that it wraps included."""
    if callable(solver) and hasattr(solver, "__qualname__"):
        return f"{solver.__module__}.{solver.__qualname__}"  # repr names a place in memory
    if not dataclasses.is_dataclass(solver) or isinstance(solver, type):
        return repr(solver)
    parts = ", ".join(f"{f.name}={_told(getattr(solver, f.name))}" for f in dataclasses.fields(solver))
    return f"{type(solver).__name__}({parts})"
