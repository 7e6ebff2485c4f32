"""How accurate the trained networks are: `python -m tests.benchmark.operators --out operators.md [--darcy FOLDER]`.

Burgers: starts to states at time 1 on 256 points, viscosity 0.01, the catalogue's random field; 1000 members to train,
100 to choose the epoch, 200 scored once at the end.

Darcy (with --darcy, a folder that holds neuraloperator's darcy_train_16.pt and darcy_test_16.pt, 1000 and 50 pairs on
16 x 16 points): `sciml train` for three seeds; a tenth of the 1000 chooses the epoch, the 50 are scored once at the end.
The points of these files are x = i/16: they keep the lower side and drop the upper one, hence node=true. The settings
were chosen on members of the 1000 alone.

Error: mean over members of the relative L2 error on de-normalised fields. Writes Markdown and, beside it, JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import sciml
from sciml.networks import FNO

DARCY = (
    "--names x=coefficient y=u --dims sample x y --inputs coefficient --targets u --network symmetric-fno "
    "--set modes=8 width=20 layers=3 node=true --loss h1 --epochs 120 --batch-size 225 --learning-rate 0.03 "
    "--validate 0.1"
)


def darcy(data: Path, work: Path) -> dict[str, Any]:
    """Three seeds through the command line."""
    runs = []
    for seed in (0, 1, 2):
        out = work / f"darcy-{seed}"
        command = [
            "train",
            str(data / "darcy_train_16.pt"),
            *shlex.split(DARCY),
            "--test",
            str(data / "darcy_test_16.pt"),
        ]
        subprocess.run(  # noqa: S603
            [sys.executable, "-m", "sciml", *command, "--seed", str(seed), "--out", str(out)], check=True
        )
        runs.append(json.loads((out / "run.json").read_text()))
        steps = json.loads((out / "log.jsonl").read_text().splitlines()[-1])["steps"]
    return {
        "task": "Darcy 16 x 16, 1000/50 pairs",
        "errors": [run["test, relative L2"] for run in runs],
        "validation": [run["validation, relative L2"] for run in runs],
        "real parameters": runs[0]["real parameters"],
        "steps": steps,
        "seconds": [run["seconds of this call"] for run in runs],
        "command": f"sciml train darcy_train_16.pt {DARCY} --test darcy_test_16.pt --seed 0 --out runs/darcy",
    }


def burgers(work: Path) -> dict[str, Any]:
    """One seed; the time is that of `fit` alone."""
    file = sciml.generate("burgers", count=1300, out=work / "burgers.h5", n=256, times=(0.0, 1.0), seed=0)
    data = sciml.open_dataset(file).isel(time=[-1])
    train, validate, test = sciml.split(data, (1000, 100, 200), seed=0)
    network = FNO(dim=1, modes=16, width=64, layers=4, coordinates=False)
    began = time.perf_counter()
    fit = sciml.fit(
        network, train, inputs="start", targets="u", validate=validate, epochs=60, batch_size=20, learning_rate=3e-3,
        out=work / "burgers",
    )  # fmt: skip
    seconds = time.perf_counter() - began
    return {
        "task": "Burgers, 256 points, viscosity 0.01, 1000 members",
        "errors": [fit.score(test).relative_l2],
        "validation": [fit.best_error],
        "real parameters": sum(p.numel() for p in network.parameters()),
        "steps": fit.history[-1]["steps"],
        "seconds": [seconds],
        "command": "python -m tests.benchmark.operators",
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"Threads: {torch.get_num_threads()}; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
        "| task | test error, mean (least - most) | validation | real weights | steps | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        errors = row["errors"]
        lines.append(
            f"| {row['task']} | {statistics.mean(errors):.4f} ({min(errors):.4f} - {max(errors):.4f}, seeds: {len(errors)}) "
            f"| {statistics.mean(row['validation']):.4f} | {row['real parameters']:,} | {row['steps']} "
            f"| {statistics.mean(row['seconds']):.0f} |"
        )
    return "\n".join(lines + [""] + [f"- {row['task']}: `{row['command']}`" for row in rows]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--darcy", type=Path)
    parser.add_argument("--skip-burgers", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [] if chosen.skip_burgers else [burgers(Path(folder))]
        if chosen.darcy is not None:
            rows.append(darcy(chosen.darcy, Path(folder)))
    chosen.out.write_text(table(rows))
    chosen.out.with_suffix(".json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
