"""Make these weights again: `python data/pretrained/lpn-ellipses/make.py` (a folder as argument lets a killed run go on).

Trains a learned proximal network on random ellipses, scores it against total variation on images never seen, and writes
checkpoint.safetensors and manifest.toml beside this file. Total variation needs scikit-image.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml.domains import Ellipses, Pixels
from sciml.networks import InputConvexNetwork
from sciml.priors import LearnedProx
from sciml.training.matching import Absolute, Expansion, ProximalMatching, Stage, match, stages
from sciml.training.schedules import OneCycle

HERE = Path(__file__).resolve().parent
COARSE, NOISE = 0.05, 0.03  # of the first and the second run; the images' values have standard deviation 0.17
SIZE = 64  # of a patch, in pixels of 2 / 128
FIRST = stages(3600, gamma=1.6, learning_rate=7e-3)[:3]
SECOND = (
    Stage(Absolute(), 600, 4e-3, OneCycle(0.1, end=0.2)),
    Stage(ProximalMatching(1.6), 500, 1e-3),
)
PIXELS = Pixels((128, 128), extent=2.0)


def patches(noise: float, count: int, generator: torch.Generator) -> Tensor:
    """Patches cut anywhere out of fresh random images of 128 x 128 pixels, in units of the noise."""
    drawn = Ellipses.random(count, generator=generator, dtype=torch.float32)
    corner = torch.randint(128 - SIZE + 1, (count, 1, 2), generator=generator) / 64 - 1
    moved = Ellipses(drawn.centre - corner, drawn.axes, drawn.angle, drawn.value)
    return moved.image(Pixels((SIZE, SIZE), extent=SIZE / 64, origin=0.0)) / noise


def held_out(count: int) -> Tensor:
    """Whole images for scoring."""
    return Ellipses.random(count, seed=10**6, dtype=torch.float32).image(PIXELS)


def scores(prior: LearnedProx, count: int = 16) -> dict[str, float]:
    """Mean PSNR (range 1) over images, of the network and of total variation at its best weight for this noise."""
    from skimage.restoration import denoise_tv_chambolle

    clean = held_out(count)
    noisy = clean + NOISE * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = torch.cat([prior.prox(v, 1.0) for v in noisy.split(1)])

    def psnr(x: Tensor) -> float:
        return float((-10 * torch.log10((x - clean).square().flatten(1).mean(1))).mean())

    best = -math.inf
    for weight in (0.6, 0.7, 0.8, 0.9, 1.0, 1.2):
        rows = [denoise_tv_chambolle(v[0].numpy(), weight * NOISE, eps=1e-5, max_num_iter=500) for v in noisy]
        best = max(best, psnr(torch.stack([torch.from_numpy(row) for row in rows]).unsqueeze(1)))
    return {"test PSNR": round(psnr(ours), 2), "test PSNR of total variation": round(best, 2), "test images": count}


def main(work: Path | None = None, home: Path = HERE, loud: bool = False) -> LearnedProx:
    """Train and write the folder."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    began = time.perf_counter()
    network = InputConvexNetwork(2, width=96, group=8, kernel=9, stride=2, scales=3, layers=2)
    out = Path(tempfile.mkdtemp()) if work is None else work

    def tell(row: dict[str, Any]) -> None:
        gain = -20 * math.log10(row["validation"])
        sys.stdout.write(
            f"{row['step']} stage {row['stage']} loss {row['loss']:.4g} gain {gain:.2f} dB {row['seconds']:.0f} s\n"
        )
        sys.stdout.flush()

    for run, noise, parts, penalty in ((1, COARSE, FIRST, None), (2, NOISE, SECOND, Expansion())):
        match(
            network, functools.partial(patches, noise), noise=1.0, stages=parts, batch_size=8, penalty=penalty,
            validate=held_out(4) / noise, out=out / str(run), progress=tell if loud else None,
        )  # fmt: skip
    prior = LearnedProx(network.requires_grad_(False), scale=NOISE, noise=NOISE, range=(-0.71, 0.62))
    prior.save(home)
    file = home / "checkpoint.safetensors"
    lines: dict[str, Any] = {
        "name": "lpn-ellipses",
        "title": "Learned proximal network for random ellipses, 2/128 per pixel, noise 0.03",
        "kind": "LearnedProx",
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "command": "python data/pretrained/lpn-ellipses/make.py",
        "network": json.dumps(network.settings),
        "real parameters": sum(p.numel() for p in network.parameters()),
        "steps": sum(stage.steps for stage in (*FIRST, *SECOND)),
        **scores(prior),
        "seconds": round(time.perf_counter() - began),
        "threads": 1,
        "licence": "CC0-1.0",
    }
    text = "".join(f"{json.dumps(key) if ' ' in key else key} = {json.dumps(value)}\n" for key, value in lines.items())
    (home / "manifest.toml").write_text(text)
    return prior


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, loud=True)
