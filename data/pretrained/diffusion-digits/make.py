"""Make these weights again: `python data/pretrained/diffusion-digits/make.py` (needs scikit-learn for its digits).

Trains a diffusion prior on the 1797 digits of 8 x 8 pixels (UCI, Optical Recognition of Handwritten Digits) that scikit-learn
brings along, values 0 to 1, but for the last 197, and writes checkpoint.safetensors and manifest.toml beside this file.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sciml
from sciml.networks import UNet
from sciml.priors import Diffusion
from sciml.training import EDM, Muon, OneCycle

HERE = Path(__file__).resolve().parent
EPOCHS, STEPS, BATCH, RATE = 20, 150, 64, 1e-3
SCALE, SHIFT, RANGE, LEVELS = 0.376, 0.305, (0.0, 1.0), (0.005, 20.0)


def digits() -> Tensor:
    """All of them, ``(1797, 1, 8, 8)``."""
    from sklearn.datasets import load_digits

    return torch.from_numpy(load_digits().images).to(torch.float32).unsqueeze(1) / 16


def main(work: Path | None = None, home: Path = HERE, loud: bool = False, epochs: int = EPOCHS) -> Diffusion:
    """Train and write the folder; the tests pass few epochs."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    began = time.perf_counter()
    out = Path(tempfile.mkdtemp()) if work is None else work
    images = digits()
    network = UNet(2, widths=(48, 64), blocks=2, fold=1, features=32)
    prior = Diffusion(network, SCALE, SHIFT, RANGE, LEVELS)
    fitted = sciml.fit(
        prior, images[:1600], loss=EDM(mean=-0.5, deviation=1.2), epochs=epochs, steps=STEPS, batch_size=BATCH,
        learning_rate=RATE, schedule=OneCycle(0.1, end=0.01), optimizer=Muon(), validate=images[1600:],
        out=out, progress=loud,
    )  # fmt: skip
    network.half().float()  # as it is stored
    done = prior.measured(images[1600:])
    home.mkdir(parents=True, exist_ok=True)
    network.half()
    done.save(home)
    network.float()
    file = home / "checkpoint.safetensors"
    lines: dict[str, Any] = {
        "name": "diffusion-digits",
        "title": "Diffusion prior for handwritten digits of 8 x 8 pixels, values 0 to 1",
        "kind": "Diffusion",
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "command": "python data/pretrained/diffusion-digits/make.py",
        "network": json.dumps(network.settings),
        "real parameters": sum(p.numel() for p in network.parameters()),
        "steps": epochs * STEPS,
        "validation loss": round(fitted.best_error, 5),
        "validation loss of the last epoch": round(fitted.history[-1]["validation"], 5),
        "seconds": round(time.perf_counter() - began),
        "threads": 1,
        "licence": "CC0-1.0",
    }
    text = "".join(f"{json.dumps(key) if ' ' in key else key} = {json.dumps(value)}\n" for key, value in lines.items())
    (home / "manifest.toml").write_text(text)
    return done


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, loud=True)
