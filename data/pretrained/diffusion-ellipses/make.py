"""Make these weights again: `python data/pretrained/diffusion-ellipses/make.py` (a folder as argument lets a killed run go on).

Trains a diffusion prior on windows of random ellipses, measures how well it denoises images never seen, and writes
checkpoint.safetensors (in half precision) and manifest.toml beside this file.
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
from sciml.domains import Ellipses, Pixels
from sciml.networks import UNet
from sciml.priors import Diffusion
from sciml.training import EDM, Muon, OneCycle

HERE = Path(__file__).resolve().parent
POOL, SIZE = 6000, 64  # images of 128 x 128 pixels of 2 / 128; side of the windows that are learned from
EPOCHS, STEPS, BATCH, RATE = 60, 150, 16, 1e-3
WIDTHS, BLOCKS, FEATURES = (64, 96, 96), 2, 64
SCALE, SHIFT, RANGE = 0.17, 0.0, (-0.71, 0.62)  # of the images of Ellipses.random, see there
LEVELS = (0.002, 6.0)
PIXELS = Pixels((128, 128), extent=2.0)


def whole(count: int, seed: int) -> Tensor:
    """Images ``(count, 1, 128, 128)``."""
    return Ellipses.random(count, seed=seed, dtype=torch.float32).image(PIXELS)


class Windows:
    """Draws windows anywhere in a pool of images, turned and mirrored at random."""

    def __init__(self, pool: Tensor) -> None:
        self.pool = pool

    def __call__(self, count: int, generator: torch.Generator) -> Tensor:
        """``(count, 1, SIZE, SIZE)``."""
        member = torch.randint(len(self.pool), (count,), generator=generator).tolist()
        corner = torch.randint(128 - SIZE + 1, (count, 2), generator=generator).tolist()
        turns = torch.randint(2, (count, 3), generator=generator).tolist()
        found = []
        for m, (row, column), (up, side, swap) in zip(member, corner, turns, strict=True):
            window = self.pool[m, :, row : row + SIZE, column : column + SIZE].float()
            axes = [axis for axis, turn in ((1, up), (2, side)) if turn]
            window = window.flip(axes) if axes else window
            found.append(window.transpose(1, 2) if swap else window)
        return torch.stack(found)


def scores(prior: Diffusion, count: int = 16) -> dict[str, float]:
    """Mean PSNR (range 1) of denoising whole images."""
    clean, found = whole(count, 10**6), {}
    for sigma in (0.01, 0.03, 0.1, 0.3):
        noisy = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            error = torch.cat([prior.denoise(part, sigma) for part in noisy.split(4)]) - clean
        found[f"test PSNR at {sigma}"] = round(float((-10 * error.square().flatten(1).mean(1).log10()).mean()), 2)
    return found


def main(
    work: Path | None = None, home: Path = HERE, loud: bool = False, epochs: int = EPOCHS, pool: int = POOL
) -> Diffusion:
    """Train and write the folder; the tests pass few epochs and images."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    began = time.perf_counter()
    out = Path(tempfile.mkdtemp()) if work is None else work
    images = torch.cat([whole(min(500, pool - i), 10**5 + i).half() for i in range(0, pool, 500)])
    if loud:
        sys.stdout.write(f"{pool} images drawn, {time.perf_counter() - began:.0f} s\n")
        sys.stdout.flush()
    network = UNet(2, widths=WIDTHS, blocks=BLOCKS, features=FEATURES)
    prior = Diffusion(network, SCALE, SHIFT, RANGE, LEVELS, precision=torch.bfloat16)
    fitted = sciml.fit(
        prior, Windows(images), loss=EDM(mean=-0.8, deviation=1.4), epochs=epochs, steps=STEPS, batch_size=BATCH,
        learning_rate=RATE, schedule=OneCycle(0.1, end=0.01), optimizer=Muon(),
        validate=whole(16, 10**6 + 1)[..., :SIZE, :SIZE], out=out, progress=loud,
    )  # fmt: skip
    network.half().float()  # as it is stored
    done = Diffusion(network, SCALE, SHIFT, RANGE, LEVELS).measured(whole(24, 10**6 + 2))
    return describe(done, home, epochs * STEPS, fitted.best_error, round(time.perf_counter() - began))


def describe(prior: Diffusion, home: Path, steps: int, error: float, seconds: int) -> Diffusion:
    """Write the weights, in half precision, and the manifest."""
    home.mkdir(parents=True, exist_ok=True)
    found = scores(prior)
    prior.network.half()
    prior.save(home)
    prior.network.float()
    file = home / "checkpoint.safetensors"
    lines: dict[str, Any] = {
        "name": "diffusion-ellipses",
        "title": "Diffusion prior for random ellipses, 2/128 per pixel",
        "kind": "Diffusion",
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "command": "python data/pretrained/diffusion-ellipses/make.py",
        "network": json.dumps(prior.network.settings),
        "real parameters": sum(p.numel() for p in prior.network.parameters()),
        "steps": steps,
        "validation loss": round(error, 5),
        **found,
        "seconds": seconds,
        "threads": 1,
        "licence": "CC0-1.0",
    }
    text = "".join(f"{json.dumps(key) if ' ' in key else key} = {json.dumps(value)}\n" for key, value in lines.items())
    (home / "manifest.toml").write_text(text)
    return prior


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, loud=True)
