"""Make these weights again: `python data/pretrained/lpn-ellipses/make.py` (a folder as argument lets a killed run go on).

Trains a learned proximal network on random ellipses, first to remove white noise, then, in rounds, also what is left of it in
its own reconstructions from few views; scores it against total variation on images never seen, and writes
checkpoint.safetensors and manifest.toml beside this file. Total variation of the noisy images needs scikit-image.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sciml
from sciml.domains import Ellipses, Pixels
from sciml.files import load_tensors, save_tensors
from sciml.networks import InputConvexNetwork
from sciml.priors import LearnedProx
from sciml.solvers import ADMM
from sciml.training.matching import Absolute, Expansion, ProximalMatching, Squares, Stage, match, stages
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

ROUND = (Stage(Squares(), 300, 2e-3, OneCycle(0.1, end=0.05)),)
ROUNDS = 2
WEIGHT = 556.0  # of the prior, 0.5 / NOISE^2


def patches(noise: float, count: int, generator: torch.Generator) -> Tensor:
    """Patches cut anywhere out of fresh random images of 128 x 128 pixels, in units of the noise."""
    drawn = Ellipses.random(count, generator=generator, dtype=torch.float32)
    corner = torch.randint(128 - SIZE + 1, (count, 1, 2), generator=generator) / 64 - 1
    moved = Ellipses(drawn.centre - corner, drawn.axes, drawn.angle, drawn.value)
    return moved.image(Pixels((SIZE, SIZE), extent=SIZE / 64, origin=0.0)) / noise


def scans(network: InputConvexNetwork, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Clean images, and what the network is given in their reconstruction from 30 views, near its end: in units of the noise.

    The reconstruction starts at the truth: where it ends does not depend on that, and it is there sooner.
    """
    prior = LearnedProx(network.eval().requires_grad_(False), scale=NOISE, noise=NOISE)
    for part in range(4):
        problem = sciml.problem("ct", batch=8, seed=1000 + 10 * number + part, dtype="float32").with_prior(
            prior, WEIGHT
        )
        for steps in (4, 12):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that few steps do not always reach the target
                found = sciml.solve(problem, ADMM(max_steps=steps), start=problem.truth.clone(), progress=False).value
            with torch.no_grad():
                given = found - problem.fidelity(found)[1] / WEIGHT
            yield problem.truth / NOISE, given / NOISE


def mixed(clean: Tensor, spoilt: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Half fresh patches with white noise, half patches of reconstructions."""
    half = count // 2
    fresh = patches(NOISE, half, generator)
    noisy = fresh + torch.randn(fresh.shape, generator=generator)
    whole, pairs = torch.stack((clean, spoilt)), []
    for _ in range(count - half):
        member = int(torch.randint(len(clean), (), generator=generator))
        row, column = torch.randint(128 - SIZE + 1, (2,), generator=generator).tolist()
        pair = whole[:, member, :, row : row + SIZE, column : column + SIZE]
        turns = torch.randint(2, (3,), generator=generator).tolist()
        pair = pair.flip(2) if turns[0] else pair
        pair = pair.flip(3) if turns[1] else pair
        pairs.append(pair.transpose(2, 3) if turns[2] else pair)
    cut = torch.stack(pairs, 1)
    return torch.cat((fresh, cut[0])), torch.cat((noisy, cut[1]))


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
    clean, spoilt = [], []
    for number in range(ROUNDS):
        kept = out / f"scans-{number}.safetensors"
        if not kept.exists():
            truths, given = zip(*scans(network, number), strict=True)
            save_tensors(kept, {"clean": torch.cat(truths), "spoilt": torch.cat(given)})
        network.requires_grad_(True)
        more = load_tensors(kept)[0]
        clean.append(more["clean"])
        spoilt.append(more["spoilt"])
        draw = functools.partial(mixed, torch.cat(clean), torch.cat(spoilt))
        match(
            network, draw, noise=1.0, stages=ROUND, batch_size=8, penalty=Expansion(rounds=8), seed=100 + number,
            validate=held_out(4) / NOISE, out=out / f"round-{number}", progress=tell if loud else None,
        )  # fmt: skip
    return describe(network, home, round(time.perf_counter() - began))


def describe(network: InputConvexNetwork, home: Path, seconds: int) -> LearnedProx:
    """Write the weights and the manifest."""
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
        "steps": sum(stage.steps for stage in (*FIRST, *SECOND)) + ROUNDS * ROUND[0].steps,
        **scores(prior),
        "seconds": seconds,
        "threads": 1,
        "licence": "CC0-1.0",
    }
    text = "".join(f"{json.dumps(key) if ' ' in key else key} = {json.dumps(value)}\n" for key, value in lines.items())
    (home / "manifest.toml").write_text(text)
    return prior


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, loud=True)
