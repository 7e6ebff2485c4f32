"""A training run as the command line states it: which members are trained on, kept for choosing, kept for scoring."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sciml.cli.words import build, opened, pick
from sciml.domains.errors import InputError

__all__ = ["Task", "test_members", "train"]


@dataclass(frozen=True)
class Task:
    """What is learned from what: enough to deal out the same members again."""

    file: str
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    names: dict[str, str]
    dims: tuple[str, ...]
    history: int
    horizon: int
    test: str
    validate: str
    seed: int

    def samples(self, file: str) -> Any:
        """All members of a file as Samples."""
        from sciml.training import pairs, windows

        data = opened(file, [f"{key}={value}" for key, value in self.names.items()], self.dims)
        if not self.history:
            if not self.inputs:
                raise InputError(
                    f"name the variables that go in with --inputs; '{file}' has {', '.join(map(str, data.data_vars))}."
                )
            return pairs(data, self.inputs, self.targets)
        if self.inputs or len(self.targets) != 1:
            raise InputError("with --history the network learns steps of one variable; name it with --targets alone.")
        if self.targets[0] not in data:
            raise InputError(
                f"'{file}' has no variable '{self.targets[0]}'; it has {', '.join(map(str, data.data_vars))}."
            )
        return windows(data[self.targets[0]], self.history, self.horizon)

    def parts(self) -> tuple[Any, Any, Any]:
        """Members to train on, to choose the epoch by, and to score (None if there are none)."""
        from sciml.training import split

        whole = self.samples(self.file)
        test, validate = _share("test", self.test), _share("validate", self.validate)
        held = self.samples(self.test) if test is None else None
        chooser = self.samples(self.validate) if validate is None else None
        if test:
            whole, held = split(whole, (1 - test, test), self.seed)
        if validate:
            share = validate / (1 - (test or 0.0))
            whole, chooser = split(whole, (1 - share, share), self.seed + 1)
        return whole, chooser, held


def _share(name: str, text: str) -> float | None:
    """A fraction, or None where the text names a file."""
    try:
        share = float(text)
    except ValueError:
        if not Path(text).is_file():
            raise InputError(f"--{name} is '{text}', which is neither a fraction nor a file.") from None
        return None
    if not 0 <= share < 0.9:
        raise InputError(f"--{name} is {share:g}; give a fraction from 0 to 0.9, or a file.")
    if name == "validate" and share == 0:
        raise InputError("--validate is 0; some members must choose the best epoch.")
    return share


def declared(recipe: Any) -> tuple[Any, ...]:
    """The symmetries that the problem behind a data set declares, each checked by residual invariance.

    Raises:
        InputError: the data do not say how they were made, nothing is declared, or a declared symmetry does not hold.
    """
    from sciml import catalogue, checks
    from sciml.core import Recipe

    if not isinstance(recipe, dict) or "source" not in recipe:
        raise InputError(
            "--augment declared needs data made by `sciml generate`; name the symmetries, as in --augment reflection."
        )
    plain = Recipe(recipe["source"], "", recipe.get("settings", {}))
    problem = catalogue.problem(recipe["source"], **plain.argument(plain.settings))
    if not problem.symmetries:
        raise InputError(f"{problem.name!r} declares no symmetry with these settings; leave --augment declared out.")
    for one in problem.symmetries:
        found = checks.symmetry(problem, one)
        if not found:
            raise InputError(
                f"{problem.name!r} declares a symmetry that does not hold: {found.sentence}; leave it out."
            )
    return tuple(problem.symmetries)


def train(
    task: Task, network: str, settings: dict[str, Any], out: Path, *, epochs: int, batch_size: int, learning_rate: float,
    loss: str, augment: Sequence[str], device: str | None, resume: bool,
) -> dict[str, Any]:  # fmt: skip
    """Train, score, and write ``run.json`` into the folder; returns what there is to tell.

    Raises:
        InputError: an unknown network, setting, loss or symmetry; members that do not suit.
    """
    from torch import nn

    import sciml.networks
    from sciml import training
    from sciml.files import save_json
    from sciml.training import augment as symmetries

    losses = {"RelativeL2": training.RelativeL2, "H1": training.H1}
    error = build("loss", pick("loss", loss, losses), {})
    moves = {name: getattr(symmetries, name) for name in symmetries.__all__}
    named = tuple(build("symmetry", pick("symmetry", name, moves), {}) for name in augment if name != "declared")
    members, chooser, held = task.parts()
    moved = (*(declared(members.recipe) if "declared" in augment else ()), *named)
    known = {
        name: thing
        for name, thing in vars(sciml.networks).items()
        if inspect.isclass(thing) and issubclass(thing, nn.Module)
    }
    kind = pick("network", network, known)
    facts = {
        "dim": len(members.signature.dims), "in_channels": len(members.channels[0]), "out_channels": len(members.channels[1]),
        "seed": task.seed,
    }  # fmt: skip
    wanted = inspect.signature(kind).parameters
    made = build("network", kind, {**{key: value for key, value in facts.items() if key in wanted}, **settings})
    clock = time.perf_counter()
    fit = training.fit(
        made, members, validate=chooser, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, loss=error,
        augment=moved, seed=task.seed, out=out, resume=resume, device=device,
    )  # fmt: skip
    told: dict[str, Any] = {
        "folder": str(out), "network": kind.__name__,
        "real parameters": sum(p.numel() * (2 if p.is_complex() else 1) for p in fit.network.parameters()),
        "members": f"{len(members)} to train, {len(chooser) if chooser is not None else 0} to choose, {len(held) if held is not None else 0} to score",
        "epochs": len(fit.history), "kept epoch": fit.best_epoch, "validation, relative L2": fit.best_error,
        "seconds of this call": time.perf_counter() - clock,
    }  # fmt: skip
    if held is not None:
        score = fit.score(held)
        told |= {
            "test, relative L2": score.relative_l2,
            "test, relative H1": score.relative_h1,
            "test, worst relative L2": float(score.each_l2.max()),
        }
    save_json(out / "run.json", {**told, "task": {**asdict(task), "file": str(Path(task.file).absolute())}})
    return told


def test_members(folder: Path) -> Any:
    """The members that a finished run kept for scoring, if its data file is still there; otherwise None."""
    path = folder / "run.json"
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text())["task"]
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()
        }
        task = Task(**fields)
        return task.parts()[2]
    except (InputError, KeyError, TypeError, ValueError):
        return None
