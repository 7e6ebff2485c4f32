"""Make shipped weights again: `python data/pretrained/make.py fno-darcy` (or fno-burgers).

Generates the training data in a temporary folder (or in the folder given as second argument, where an interrupted run
goes on), trains, scores members never seen, and writes checkpoint.safetensors and manifest.toml into the folder of that
name here.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import sciml
from sciml.networks import FNO
from sciml.training import H1, Fit, Reflection, Transposition

HERE = Path(__file__).resolve().parent
LICENCE = "CC0-1.0"


def darcy(work: Path, **run: Any) -> tuple[Fit, dict[str, Any]]:
    """Coefficient to pressure: two-phase media on 31 x 31 points, zero Dirichlet sides, unit source."""
    file = sciml.generate("darcy", count=1200, out=work / "darcy.h5", seed=1, n=31)
    train, validate, test = sciml.split(sciml.open_dataset(file), (1000, 100, 100), seed=0)
    network = FNO(dim=2, modes=8, width=16, layers=4, padding=0.1)
    found = sciml.fit(
        network, train, inputs="coefficient", targets="u", validate=validate, batch_size=20, learning_rate=5e-3,
        loss=H1(0.3), augment=(Reflection(), Transposition()), out=work / "fno-darcy", **{"epochs": 60, **run},
    )  # fmt: skip
    return found, {"test relative L2": found.score(test).relative_l2, "test members": 100}


def burgers(work: Path, **run: Any) -> tuple[Fit, dict[str, Any]]:
    """State to the state 0.1 later: viscosity 0.01 on 128 periodic points, ten such steps per trajectory."""
    times = [step / 10 for step in range(11)]
    file = sciml.generate("burgers", count=400, out=work / "burgers.h5", seed=1, n=128, viscosity=0.01, times=times)
    train, validate, test = sciml.split(sciml.open_dataset(file), (320, 40, 40), seed=0)
    network = FNO(dim=1, modes=24, width=32, layers=4, coordinates=False)
    found = sciml.fit(
        network, sciml.windows(train.u, history=1, horizon=1), validate=sciml.windows(validate.u, history=1, horizon=1),
        batch_size=40, learning_rate=3e-3, out=work / "fno-burgers", **{"epochs": 60, **run},
    )  # fmt: skip
    score = found.score(sciml.windows(test.u, history=1, horizon=1))
    return found, {"test relative L2 of one step": score.relative_l2, "test trajectories": 40}


RECIPES = {"fno-darcy": darcy, "fno-burgers": burgers}


def main(name: str, work: Path | None = None, home: Path = HERE, **run: Any) -> Path:
    """Train and write the folder; `run` replaces settings of the fit (the tests pass epochs=1)."""
    kept = Path(tempfile.mkdtemp()) if work is None else work
    began = time.perf_counter()
    fit, scores = RECIPES[name](kept, **run)
    folder = home / name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(kept / name / "checkpoint.safetensors", folder / "checkpoint.safetensors")
    lines: dict[str, Any] = {
        "name": name,
        "title": (RECIPES[name].__doc__ or "").strip(),
        "file": "checkpoint.safetensors",
        "sha256": hashlib.sha256((folder / "checkpoint.safetensors").read_bytes()).hexdigest(),
        "command": f"python data/pretrained/make.py {name}",
        "network": json.dumps(fit.config["network settings"]),
        "real parameters": sum(p.numel() for p in fit.network.parameters()),
        "validation relative L2": fit.best_error,
        **scores,
        "seconds": round(time.perf_counter() - began),
        "threads": torch.get_num_threads(),
        "licence": LICENCE,
    }
    text = "".join(f"{json.dumps(key) if ' ' in key else key} = {json.dumps(value)}\n" for key, value in lines.items())
    (folder / "manifest.toml").write_text(text)
    if work is None:
        shutil.rmtree(kept)
    return folder


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
