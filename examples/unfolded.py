"""Learned primal-dual reconstruction: a few steps of a classical method, with a prior whose weights are trained through them.

``python examples/unfolded.py`` trains for a few seconds on small images and shows that it learns. ``--full`` trains
``data/pretrained/unfolded-ellipses`` in that folder and writes them there (two and a half hours on one thread; a run that was stopped
goes on), ``--score`` compares them with filtered back-projection and total variation.

The images are sums of random ellipses, the data 30 views with 5 % noise: the setting of Adler and Oktem, arXiv:1707.06474.
*Fails when* the shipped weights meet other noise, other views or other kinds of images; the misfit shows it only in part.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sciml
from sciml import Inverse
from sciml.core import GaussianNoise
from sciml.domains import Pixels
from sciml.domains.phantoms import Ellipses
from sciml.files import load_tensors, save_tensors
from sciml.forward import Cosine, Hamming, Hann, Radon, RamLak, SheppLogan
from sciml.metrics import psnr
from sciml.networks import DenoisingSteps, UnfoldedNetwork
from sciml.priors import TotalVariation, Unfolded
from sciml.solvers import Discrepancy, FilteredBackprojection, PrimalDual
from sciml.training import Cosine as Falling
from sciml.training import FittedPrior, LogL2, Muon, OneCycle

FIRST = 10**9  # seed of the first phantom; the images of the scores have seeds below 10^4
TOLD = 16  # phantoms kept for validation


class Phantoms:
    """``count`` images of random ellipses on pixels of half the size, in half precision, kept in a file if one is named."""

    def __init__(self, count: int, file: Path | None = None, n: int = 128) -> None:
        self.count, self.file, self.n = count, file, n

    @cached_property
    def images(self) -> Tensor:
        """``(count, 1, 2 n, 2 n)``."""
        if self.file is not None and self.file.exists():
            return load_tensors(self.file)[0]["images"]
        pixels = Pixels((2 * self.n, 2 * self.n), (2.0, 2.0))
        drawn = (Ellipses.random(1, seed=FIRST + i) for i in range(self.count))
        single = (Ellipses(*(part.float() for part in (e.centre, e.axes, e.angle, e.value))) for e in drawn)
        images = torch.cat([phantom.image(pixels).half() for phantom in single])
        if self.file is not None:
            save_tensors(self.file, {"images": images})
        return images


class Scans:
    """``members(seed)``: windows of ``n`` x ``n`` pixels of the phantoms, turned and mirrored, and their noisy line integrals.

    The line integrals are those of pixels of half the size, so the reconstruction does not get its own model back. Small
    windows with fewer views have streaks like those of large images with more, at a quarter of the cost.
    """

    def __init__(self, images: Tensor, count: int, n: int, views: int, noise: float) -> None:
        self.images, self.count, self.n, self.noise = images, count, n, noise
        side = 4.0 * n / images.shape[-1]
        angles = torch.arange(views, dtype=torch.float32) * (math.pi / views)
        self.radon = Radon(Pixels((n, n), (side, side)), angles)
        self.finer = Radon(Pixels((2 * n, 2 * n), (side, side)), angles, bins=self.radon.bins, pitch=self.radon.pitch)

    def __call__(self, seed: int) -> Inverse[Any]:
        generator = torch.Generator().manual_seed(seed)
        room = self.images.shape[-1] - 2 * self.n + 1
        fine = torch.cat([self.window(room, generator) for _ in range(self.count)]).contiguous()
        clean = self.finer(fine)
        noise = GaussianNoise(self.noise * clean.abs().flatten(1).mean(1))
        truth = torch.nn.functional.avg_pool2d(fine, 2)
        return Inverse("ellipses", self.radon, noise.sample(clean, generator=generator), noise, truth=truth)

    def window(self, room: int, generator: torch.Generator) -> Tensor:
        """One window, by one of the eight symmetries of a square."""
        which, move, i, j = (int(torch.randint(m, (), generator=generator)) for m in (len(self.images), 8, room, room))
        image = self.images[which : which + 1, :, i : i + 2 * self.n, j : j + 2 * self.n].float()
        image = image.flip([axis - 2 for axis in (0, 1) if move >> axis & 1])
        return image.transpose(-1, -2) if move >> 2 else image


def main(steps: int = 240, seed: int = 0) -> dict[str, float]:
    """Train four steps on images of 32^2 pixels; PSNR (dB) on images never seen, of filtered back-projection and of the result."""
    phantoms = Phantoms(64, n=32)
    members = Scans(phantoms.images, 4, n=32, views=12, noise=0.05)
    prior = Unfolded(UnfoldedNetwork(stages=4, memory=12, hidden=16, seed=seed), filtered=True)
    found = sciml.fit(
        prior, members, through=prior.solver(), epochs=3, steps=steps // 3, learning_rate=2e-3, optimizer=Muon(),
        loss=LogL2(), seed=seed,
    )  # fmt: skip
    told = sciml.problem("ct", batch=8, seed=7, n=32, views=12, dtype=torch.float32).with_prior(found.prior)
    return {
        "filtered back-projection": decibels(told, FilteredBackprojection(Hann())),
        "before": decibels(told.with_prior(untrained(prior)), prior.solver()),
        "unfolded": decibels(told, prior.solver()),
    }


def untrained(prior: Unfolded) -> Unfolded:
    """The same network with its first weights."""
    return Unfolded(UnfoldedNetwork(**prior.network.settings).requires_grad_(False), filtered=prior.filtered)


def full(out: Path) -> FittedPrior[Unfolded]:
    """The shipped weights: the denoiser of the diffusion prior, trained on through eight steps of reconstruction.

    Windows of 64^2 pixels first, then whole images of 128^2, and these again from a higher rate; the best of the validation images.
    """
    images = Phantoms(1024, out / "phantoms.safetensors").images
    network = DenoisingSteps(stages=8, rounded=True)
    network.unet.load_state_dict(sciml.pretrained("diffusion-ellipses").network.state_dict())
    prior = Unfolded(network, filtered=True)
    kept, rest = images[:TOLD], images[TOLD:]
    small, large = {"n": 64, "views": 15, "noise": 0.07}, {"n": 128, "views": 30, "noise": 0.05}
    stages: list[tuple[str, int, dict[str, Any], dict[str, Any]]] = [
        ("small", 4, small, {"epochs": 12, "steps": 100, "learning_rate": 3e-4, "schedule": OneCycle(0.05, 0.1, 0.3)}),
        ("large", 2, large, {"epochs": 40, "steps": 50, "learning_rate": 1.5e-4, "schedule": Falling()}),
        (
            "longer",
            2,
            large,
            {"epochs": 120, "steps": 50, "learning_rate": 3e-4, "schedule": OneCycle(0.05, 0.1, 1e-3)},
        ),
    ]
    for name, count, scan, settings in stages:
        found = sciml.fit(
            prior, Scans(rest, count, **scan), through=prior.solver(), validate=Scans(kept, TOLD, **scan)(FIRST),
            optimizer=Muon(matrices=5.0), loss=LogL2(), out=out / name, **settings,
        )  # fmt: skip
        prior = found.prior
        prior.network.requires_grad_(True)
    return found


def describe(found: FittedPrior[Unfolded], home: Path, seconds: float) -> dict[str, float]:
    """Write the weights, in half precision, and the manifest; the scores of what was written."""
    home.mkdir(parents=True, exist_ok=True)
    network = found.prior.network
    found.prior.save(home)
    file = home / "checkpoint.safetensors"
    tensors, words = load_tensors(file)
    save_tensors(file, {name: tensor.half() for name, tensor in tensors.items()}, words)
    told = score(Unfolded.load(home))
    lines: dict[str, Any] = {
        "name": "unfolded-ellipses",
        "title": "Unfolded primal-dual steps for line integrals of random ellipses, 128^2 pixels, 30 views",
        "kind": "Unfolded",
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "command": "python examples/unfolded.py --full FOLDER",
        "network": json.dumps(network.settings),
        "real parameters": sum(p.numel() for p in network.parameters()),
        "steps": 1200 + 2000 + 6000,
        "validation relative L2": round(found.best_error, 5),
        "test PSNR": round(told["unfolded"], 2),
        "test PSNR of total variation": round(told["total variation"], 2),
        "test images": 16,
        "seconds": round(seconds),
        "threads": 1,
        "licence": "CC0-1.0",
    }
    text = "".join(f"{json.dumps(key) if ' ' in key else key} = {json.dumps(value)}\n" for key, value in lines.items())
    (home / "manifest.toml").write_text(text)
    return told


def score(prior: Unfolded | None = None, count: int = 16, seed: int = 1000) -> dict[str, float]:
    """Mean PSNR (dB, by the range of each truth) over ``count`` images; the best window of filtered back-projection."""
    prior = sciml.pretrained("unfolded-ellipses") if prior is None else prior
    told = sciml.problem("ct", batch=count, seed=seed, dtype=torch.float32)
    windows = [kind(cutoff) for kind in (RamLak, SheppLogan, Cosine, Hamming, Hann) for cutoff in (1.0, 0.7, 0.5)]
    return {
        "filtered back-projection": max(decibels(told, FilteredBackprojection(window)) for window in windows),
        "total variation": decibels(told.with_prior(TotalVariation()), Discrepancy(PrimalDual())),
        "unfolded": decibels(told.with_prior(prior), prior.solver()),
    }


def decibels(problem: Inverse[Any], solver: Any) -> float:
    """Mean PSNR of the solution."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = sciml.solve(problem, solver).value
    assert problem.truth is not None
    return float(psnr(value, problem.truth).mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", type=Path, metavar="FOLDER", help="train the shipped weights")
    parser.add_argument("--score", action="store_true", help="compare the shipped weights with classical methods")
    chosen = parser.parse_args()
    if chosen.full is not None:
        chosen.full.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        began = time.perf_counter()
        print(describe(full(chosen.full), chosen.full / "unfolded-ellipses", time.perf_counter() - began))
    else:
        print(score() if chosen.score else main())
