"""The frozen protocol for networks: `python -m tests.benchmark.networks --out networks.md --work FOLDER [--hours 6] [--only mgno ...]`.

Two tasks, both made by our own solvers: Burgers' equation (viscosity 0.01, 256 points, start to state at time 1) and two-phase Darcy flow (43 x 43
points, coefficient to pressure). Members 0 to 999 of seed 0 train, members 1000 to 1099 choose the epoch, members 0 to 199 of seed 1 are scored
once, at the end; the same 200, solved on half and on double the resolution, say what the network does on grids it never saw.

Every network has two recipes: the shared one of the task, with seeds 0, 1 and 2 (of weights, order of members), and its own, with seed 0. Error: mean over members of
the relative L2 error (and H1, with gradients) on de-normalised fields; a complex weight counts as two. Times: median of several steps (batch 20,
optimiser included) and of several evaluations, after the training, on as many threads as torch has; training: the fastest epoch times their number,
because other work shared the machine and doubled the time of some epochs.

Each finished run is one file in FOLDER/rows, and an unfinished one goes on from its last epoch: call again after an interruption, or with the same FOLDER to
add what is missing. After ``--hours`` no new run is started. Writes Markdown and, beside it, a picture and JSON, from all rows there are. ``--smoke`` takes few
members and one epoch, to see that everything runs.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import sciml
from sciml.files import load_json, save_json
from sciml.networks import FNO, DeepONet, FourierTransformer, GalerkinTransformer, MgNO, MultiONet, Rounded, UNet
from sciml.training import H1, Reflection, Translation, Transposition
from sciml.training._estimate import real_parameters
from sciml.training.losses import RelativeL2
from sciml.training.optimisers import AdamW

SEEDS = (0, 1, 2)
BATCH = 20
MEMBERS = (1000, 100, 200)


@dataclass(frozen=True)
class Task:
    """A data set at three resolutions, and the recipe that all networks share."""

    problem: str
    inputs: str
    points: tuple[int, int, int]  # half, whole, double
    settings: dict[str, Any]
    first: int  # index of the first fine point that is a coarse one
    recipe: dict[str, Any]
    title: str


TASKS = {
    "burgers": Task(
        "burgers", "start", (128, 256, 512), {"times": (0.0, 1.0), "viscosity": 0.01}, 0,
        {"epochs": 60, "batch_size": BATCH, "learning_rate": 2e-3}, "Burgers, viscosity 0.01, 256 points",
    ),
    "darcy": Task(
        "darcy", "coefficient", (21, 43, 87), {"medium": "two_phase"}, 1,
        {"epochs": 30, "batch_size": BATCH, "learning_rate": 2e-3}, "Darcy, two-phase, 43 x 43 points",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A network of the table: how it is made for a seed, and what its own recipe changes."""

    make: Callable[[int], nn.Module]
    own: dict[str, Any] = field(default_factory=dict)


MANY = ((1, 1),) * 6 + ((2, 0),)
MIRRORS = (Reflection(), Transposition())
NETWORKS: dict[str, dict[str, Entry]] = {
    "burgers": {
        "fno": Entry(lambda s: FNO(1, modes=16, width=64, coordinates=False, seed=s), {"learning_rate": 3e-3}),
        "galerkin": Entry(
            lambda s: GalerkinTransformer(
                1, width=64, layers=2, heads=4, smooth=3, modes=16, grid="periodic", coordinates=False, seed=s
            ),
            {"learning_rate": 3e-3},
        ),
        "fourier": Entry(
            lambda s: FourierTransformer(1, width=64, heads=4, modes=16, grid="periodic", seed=s),
            {"learning_rate": 1e-3, "augment": (Translation(),)},
        ),
        "mgno": Entry(
            lambda s: MgNO(1, width=32, schedule=MANY, padding="circular", seed=s),
            {"learning_rate": 1e-3, "augment": (Translation(),)},
        ),
        "unet": Entry(lambda s: UNet(1, widths=(64, 96, 128, 128), fold=1, seed=s), {"augment": (Translation(),)}),
        "deeponet": Entry(
            lambda s: DeepONet(1, width=128, layers=5, sensors=256, grid="periodic", seed=s),
            {"learning_rate": 1e-3, "epochs": 300, "augment": (Translation(),)},
        ),
        "multionet": Entry(
            lambda s: MultiONet(1, width=128, layers=5, sensors=256, grid="periodic", seed=s),
            {"learning_rate": 1e-3, "epochs": 300, "augment": (Translation(),)},
        ),
    },
    "darcy": {
        "fno": Entry(lambda s: FNO(2, modes=12, width=32, padding=5 / 43, seed=s), {"augment": MIRRORS, "loss": H1(0.2)}),
        "galerkin": Entry(
            lambda s: GalerkinTransformer(
                2, width=64, layers=3, heads=4, modes=12, smooth_width=32, coarsen=3, grid="interior", padding=5 / 43, seed=s
            ),
            {"augment": MIRRORS, "loss": H1(0.2)},
        ),
        "fourier": Entry(
            lambda s: FourierTransformer(
                2, width=64, heads=4, modes=12, smooth_width=32, coarsen=3, grid="interior", padding=5 / 43, seed=s
            ),
            {"augment": MIRRORS, "loss": H1(0.2)},
        ),
        "mgno in bfloat16": Entry(
            lambda s: Rounded(MgNO(2, width=24, seed=s)), {"augment": MIRRORS, "loss": H1(0.5), "learning_rate": 1e-3}
        ),
        "unet in bfloat16": Entry(lambda s: Rounded(UNet(2, widths=(32, 64, 64), fold=1, seed=s)), {"augment": MIRRORS}),
        "deeponet": Entry(
            lambda s: DeepONet(2, width=128, layers=5, sensors=43, grid="interior", seed=s),
            {"learning_rate": 1e-3, "epochs": 300, "augment": MIRRORS},
        ),
        "multionet": Entry(
            lambda s: MultiONet(2, width=128, layers=5, sensors=43, grid="interior", seed=s),
            {"learning_rate": 1e-3, "epochs": 300, "augment": MIRRORS},
        ),
    },
}  # fmt: skip


def files(task: Task, work: Path, members: tuple[int, int, int]) -> dict[str, Any]:
    """Data sets to train, to choose and to test at half, whole and double resolution."""
    train, choose, test = members

    def made(n: int, seed: int, count: int) -> Any:
        out = work / "data" / f"{task.problem}-{n}-{seed}-{count}.h5"
        sciml.generate(task.problem, count=count, out=out, n=n, seed=seed, **task.settings)
        data = sciml.open_dataset(out)
        return data.isel(time=[-1]) if "time" in data.sizes else data

    whole = made(task.points[1], 0, train + choose)
    found = {"train": whole.isel(sample=slice(0, train)), "choose": whole.isel(sample=slice(train, train + choose))}
    for name, n in zip(("half", "test", "double"), task.points, strict=True):
        found[name] = made(n, 1, test)
    same(found["half"], found["test"], task)
    same(found["test"], found["double"], task)
    return found


def same(coarse: Any, fine: Any, task: Task) -> None:
    """The members on two grids are the same functions: equal where the points are."""
    axes = [axis for axis in ("x", "y", "z") if axis in coarse.sizes]
    there = fine[task.inputs].isel({axis: slice(task.first, None, 2) for axis in axes}).values
    here = coarse[task.inputs].values
    if (
        here.shape != there.shape or np.abs(here - there).max() > 1e-3 * np.abs(here).max()
    ):  # 64 waves do not all fit on 128 points
        raise SystemExit(f"{task.problem}: the members on two grids are not the same functions")


def run(
    name: str, network: str, own: bool, seed: int, data: dict[str, Any], folder: Path, quick: bool
) -> dict[str, Any]:
    """Train, score, time; one row."""
    task, entry = TASKS[name], NETWORKS[name][network]
    recipe = {**task.recipe, **(entry.own if own else {})}
    if quick:
        recipe["epochs"] = 1
    made = entry.make(seed)
    fit = sciml.fit(
        made, data["train"], inputs=task.inputs, targets="u", validate=data["choose"], seed=seed, out=folder,
        progress=False, **recipe,
    )  # fmt: skip
    scores = {part: fit.score(data[part]) for part in ("half", "test", "double")}
    step, infer = times(fit, data["train"], task)
    return {
        "task": name, "network": network, "recipe": "own" if own else "shared", "seed": seed,
        "settings": getattr(made, "settings", {}), "real parameters": real_parameters(made),
        "relative L2": scores["test"].relative_l2, "relative H1": scores["test"].relative_h1,
        "worst relative L2": float(scores["test"].each_l2.max()), "validation": fit.best_error,
        "half": scores["half"].relative_l2, "double": scores["double"].relative_l2,
        "milliseconds of a step": step, "milliseconds of an evaluation": infer,
        "seconds of training": len(fit.history) * min(row["seconds"] for row in fit.history), "epochs": len(fit.history),
        "steps": fit.history[-1]["steps"], "kept epoch": fit.best_epoch, "threads": torch.get_num_threads(),
        "torch": torch.__version__, "date": datetime.date.today().isoformat(), "config": fit.config,
    }  # fmt: skip


def times(fit: Any, data: Any, task: Task) -> tuple[float, float]:
    """Milliseconds of one training step with a batch, and of the evaluation of one member in a batch; medians."""
    twin = copy.deepcopy(fit.network).train()
    a, u = sciml.pairs(data.isel(sample=slice(0, BATCH)), task.inputs, "u").batch(
        range(min(BATCH, data.sizes["sample"]))
    )
    rule, loss = AdamW().build(twin.parameters(), 1e-6), RelativeL2()
    steps, calls = [], []
    for _ in range(8):
        began = time.perf_counter()
        rule.zero_grad(set_to_none=True)
        loss(fit.apply(a, twin), u).backward()
        rule.step()
        steps.append(time.perf_counter() - began)
    for _ in range(8):
        began = time.perf_counter()
        fit.evaluate(a)
        calls.append(time.perf_counter() - began)
    return 1e3 * statistics.median(steps[2:]), 1e3 * statistics.median(calls[2:]) / len(a)


def wanted(only: Iterable[str]) -> Iterable[tuple[str, str, bool, int]]:
    """All runs, seed 0 of everything first, so that an early table has every network."""
    chosen = tuple(only)
    for own, seed in [(False, SEEDS[0]), (True, SEEDS[0])] + [(False, seed) for seed in SEEDS[1:]]:
        for name, networks in NETWORKS.items():
            for network in networks:
                if not chosen or {name, network} & set(chosen) or key(name, network, own, seed).startswith(chosen):
                    yield name, network, own, seed


def key(name: str, network: str, own: bool, seed: int) -> str:
    """What the files of a run are called."""
    return f"{name}-{network.replace(' ', '-')}-{'own' if own else 'shared'}-{seed}"


def processor() -> str:
    """The processor in the words of the system."""
    cores = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in cores.read_text().splitlines() if line.startswith("model name")]
        if cores.exists()
        else []
    )
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


def table(rows: list[dict[str, Any]], command: str) -> str:
    lines = ["# Networks on two tasks", "", " ".join(str(__doc__).split("\n\n")[1].split()), ""]
    for name, task in TASKS.items():
        mine = [row for row in rows if row["task"] == name]
        if not mine:
            continue
        lines += [f"## {task.title}", "", f"Shared recipe: {said(task.recipe)}, RelativeL2, AdamW, OneCycle.", ""]
        lines += [
            "| network | recipe | weights | test L2 (least - most) | test H1 | half | double | ms a step | ms a member | training, s |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|---|---|"]
        for network in NETWORKS[name]:
            for recipe in ("shared", "own"):
                found = [row for row in mine if row["network"] == network and row["recipe"] == recipe]
                if not found:
                    continue

                def mean(key: str, of: list[dict[str, Any]] = found) -> float:
                    return statistics.mean(row[key] for row in of)

                errors = [row["relative L2"] for row in found]
                spread = (
                    f" ({min(errors):.4f} - {max(errors):.4f}, seeds {' '.join(str(row['seed']) for row in found)})"
                    if recipe == "shared"
                    else ""
                )
                what = recipe if recipe == "shared" else f"own: {said(NETWORKS[name][network].own)}"
                lines.append(
                    f"| {network} | {what} | {found[0]['real parameters']:,} | {statistics.mean(errors):.4f}{spread} "
                    f"| {mean('relative H1'):.4f} | {mean('half'):.4f} | {mean('double'):.4f} | {mean('milliseconds of a step'):.0f} "
                    f"| {mean('milliseconds of an evaluation'):.2f} | {mean('seconds of training'):.0f} |"
                )
        lines.append("")
    count = max((row["threads"] for row in rows), default=0)
    threads = "1 thread" if count == 1 else f"{count} threads"
    there = {key(row["task"], row["network"], row["recipe"] == "own", row["seed"]) for row in rows}
    missing = [name for name in (key(*which) for which in wanted(())) if name not in there]
    if missing:
        lines += ["Not run yet: " + ", ".join(missing) + ".", ""]
    last = max((row["date"] for row in rows), default="")
    lines += [f"{last}, {processor()}, {threads}, torch {torch.__version__}: `{command}`"]
    return "\n".join(lines) + "\n"


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Error against seconds of training: a ring for the shared recipe (mean of its seeds), a dot for the network's own."""
    from sciml.show.canvas import Panel, panels, save, tidy

    def drawn(name: str) -> Panel:
        def draw(axes: Any) -> None:
            for number, network in enumerate(NETWORKS[name]):
                for recipe in ("shared", "own"):
                    found = [r for r in rows if (r["task"], r["network"], r["recipe"]) == (name, network, recipe)]
                    if not found:
                        continue
                    spent, error = (
                        statistics.mean(r[what] for r in found) for what in ("seconds of training", "relative L2")
                    )
                    face = "none" if recipe == "shared" else f"C{number}"
                    axes.loglog(spent, error, "o", color=f"C{number}", markerfacecolor=face)
                    axes.annotate(network, (spent, error), textcoords="offset points", xytext=(5, 3), fontsize=7)
            axes.margins(0.25)
            tidy(axes, "seconds of training", "relative L2 error", TASKS[name].title)

        return Panel(draw)

    words = "rings: the shared recipe; dots: each network's own"
    save(panels([drawn(name) for name in TASKS], subtitle=words, size=(4.6, 3.4)), path)


def said(recipe: dict[str, Any]) -> str:
    """A recipe in words."""

    def word(value: Any) -> str:
        return " + ".join(type(one).__name__ for one in value) if isinstance(value, tuple) else str(value)

    return ", ".join(f"{name.replace('_', ' ')} {word(value)}" for name, value in recipe.items()) or "the shared one"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/networks"))
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument(
        "--only",
        nargs="*",
        default=(),
        help="names of networks and tasks, or how the names of runs begin: burgers-mgno-shared-0",
    )
    parser.add_argument("--smoke", action="store_true")
    chosen = parser.parse_args()
    members = (40, 20, 20) if chosen.smoke else MEMBERS
    began = time.perf_counter()
    data: dict[str, dict[str, Any]] = {}
    for name, network, own, seed in wanted(chosen.only):
        run_key = key(name, network, own, seed)
        path = chosen.work / "rows" / f"{run_key}.json"
        if path.exists() or (chosen.smoke and (own or seed)):
            continue
        if time.perf_counter() - began > 3600 * chosen.hours:
            break
        if name not in data:
            data[name] = files(TASKS[name], chosen.work, members)
        row = run(name, network, own, seed, data[name], chosen.work / "runs" / run_key, chosen.smoke)
        save_json(path, row)
        print(
            f"{run_key}: L2 {row['relative L2']:.4f}, H1 {row['relative H1']:.4f}, {row['seconds of training']:.0f} s",
            flush=True,
        )
    rows = [load_json(path) for path in sorted((chosen.work / "rows").glob("*.json"))]
    chosen.out.write_text(table(rows, f"python -m tests.benchmark.networks --out {chosen.out.name} --work FOLDER"))
    picture(rows, chosen.out.with_suffix(".png"))
    chosen.out.with_suffix(".json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
