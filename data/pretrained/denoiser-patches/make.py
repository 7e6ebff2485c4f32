"""Make these weights again: `python data/pretrained/denoiser-patches/make.py` (needs scikit-image for its pictures).

Trains a bias-free denoiser on patches of the grey pictures that scikit-image brings along, all but `camera`, which is the
test, and writes checkpoint.safetensors and manifest.toml beside this file.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml.networks import BiasFreeDenoiser
from sciml.priors import Denoiser
from sciml.priors._stored import save_prior

HERE = Path(__file__).resolve().parent
NAMES = ("astronaut", "brick", "chelsea", "clock", "coffee", "coins", "grass", "gravel", "moon", "retina", "rocket")
STEPS, BATCH, PATCH, RATE = 9000, 16, 64, 2e-3
HIGHEST = 0.2


def picture(name: str) -> Tensor:
    """A grey picture (height, width) with values from 0 to 1."""
    import skimage.data

    values = torch.from_numpy(getattr(skimage.data, name)().copy()).to(torch.float32) / 255
    grey = values[..., :3] @ torch.tensor([0.2125, 0.7154, 0.0721]) if values.ndim == 3 else values
    return torch.nn.functional.avg_pool2d(grey[None], 2)[0] if name == "retina" else grey


def patches(pictures: list[Tensor], count: int, generator: torch.Generator) -> Tensor:
    """Random patches, turned over at random, every picture as often as any other."""
    found = []
    for _ in range(count):
        whole = pictures[int(torch.randint(len(pictures), (), generator=generator))]
        row, column = (int(torch.randint(n - PATCH + 1, (), generator=generator)) for n in whole.shape)
        patch = whole[row : row + PATCH, column : column + PATCH]
        turns = torch.randint(2, (3,), generator=generator).tolist()
        patch = patch.flip(0) if turns[0] else patch
        patch = patch.flip(1) if turns[1] else patch
        found.append(patch.T if turns[2] else patch)
    return torch.stack(found).unsqueeze(1)


def scores(network: torch.nn.Module) -> dict[str, float]:
    """PSNR (range 1) on `camera`, of the noisy picture and of the denoised one."""
    clean, found = picture("camera")[None, None], {}
    for sigma in (0.02, 0.05, 0.1, 0.2):
        noisy = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            error = (network(noisy, sigma) - clean).square().mean()
        found[f"PSNR of camera at {sigma}"] = round(float(-10 * torch.log10(error)), 2)
    return found


def main(steps: int = STEPS, home: Path = HERE, loud: bool = False) -> Denoiser:
    """Train and write the folder; the tests pass few steps."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    pictures = [picture(name) for name in NAMES]
    network = BiasFreeDenoiser(2, width=48, layers=12)
    rule = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(rule, RATE, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(0)
    mean = 0.0
    for step in range(steps):
        x = patches(pictures, BATCH, generator)
        sigma = HIGHEST * torch.rand(BATCH, 1, 1, 1, generator=generator)
        noisy = x + sigma * torch.randn(x.shape, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            removed = network(noisy, sigma)
        loss = ((removed - x).square().mean((1, 2, 3)) / (sigma.flatten() + 0.01)).mean()
        rule.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        rule.step()
        schedule.step()
        mean = 0.99 * mean + 0.01 * float(loss.detach())
        if loud and (step + 1) % 500 == 0:
            sys.stdout.write(f"{step + 1} {mean:.5f} {scores(network)} {time.perf_counter() - began:.0f} s\n")
            sys.stdout.flush()
    network.eval().requires_grad_(False)
    save_prior(home, Denoiser, network, {"range": [0.0, 1.0]})
    file = home / "checkpoint.safetensors"
    lines: dict[str, Any] = {
        "name": "denoiser-patches",
        "title": "Denoiser for grey pictures with values from 0 to 1, noise up to 0.2",
        "kind": "Denoiser",
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "command": "python data/pretrained/denoiser-patches/make.py",
        "network": json.dumps(network.settings),
        "real parameters": sum(p.numel() for p in network.parameters()),
        "steps": steps,
        **scores(network),
        "seconds": round(time.perf_counter() - began),
        "threads": 1,
        "licence": "CC0-1.0",
    }
    text = "".join(f"{json.dumps(key) if ' ' in key else key} = {json.dumps(value)}\n" for key, value in lines.items())
    (home / "manifest.toml").write_text(text)
    return Denoiser(network)


if __name__ == "__main__":
    main(loud=True)
