"""The README is executed: every python block, in order, in one namespace, in an empty folder.

Only sizes are shrunk, by the table below; every other character runs as it stands.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from tests.files import layouts

ROOT = Path(__file__).resolve().parents[2]

SHRUNK = {
    "n=511": "n=63",
    "n=255": "n=63",
    'count=1200, out="darcy.h5", n=85': 'count=16, out="darcy.h5", n=15',
    "(1000, 100, 100)": "(10, 3, 3)",
    "modes=12, width=32": "modes=4, width=8",
    "epochs=60": "epochs=2",
    'sciml.problem("darcy", n=85)': 'sciml.problem("darcy", n=15)',
    "n=1024, viscosity=0.01, batch=64": "n=256, viscosity=0.01, batch=4",
    'count=100, out="movies.h5", n=256': 'count=4, out="movies.h5", n=64',
    'sciml.problem("burgers", n=256, times': 'sciml.problem("burgers", n=64, times',
    "FNO(dim=1)": "FNO(dim=1, modes=6, width=8)",
    "steps=49, samples=16": "steps=2, samples=3",
    "cases=64": "cases=2",
    'sciml.problem("mri", n=64)': 'sciml.problem("mri", n=24, coils=3)',
    'sciml.problem("eit", electrodes=16)': 'sciml.problem("eit", electrodes=8, nodes=150)',
    "Discrepancy(ProximalGradient())": "Discrepancy(ProximalGradient(max_steps=2), rounds=1)",
}


class MyModule(nn.Module):
    """Somebody's own network."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)


def run(text: str, namespace: dict[str, object]) -> None:
    used = set()
    for number, block in enumerate(blocks(text)):
        for long, short in SHRUNK.items():
            if long in block:
                used.add(long)
                block = block.replace(long, short)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".*(UNCERTIFIED|certified|the prior was learned).*", category=UserWarning
            )
            exec(compile(block, f"README block {number}", "exec"), namespace)
    unused = set(SHRUNK) - used
    assert not unused, f"these lines are no longer in the README: {unused}"


def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    with h5py.File("mine.h5", "w") as file:
        for name in ("nu", "f", "tensor"):
            file[name] = generator.standard_normal((20, 9, 9)).astype("float32")
    layouts.data_exchange(Path("tooth.h5"))
    namespace: dict[str, object] = {"MyModule": MyModule}
    run((ROOT / "README.md").read_text(), namespace)
    assert namespace["solution"].ok  # type: ignore[attr-defined]
    assert namespace["movie"].value.shape == (4, 3, 1, 256)  # type: ignore[attr-defined]
    assert namespace["k"].grad is not None and float(namespace["k"].grad) != 0  # type: ignore[attr-defined]
    for name in ("u.nc", "darcy.h5", "predicted.nc", "movies.h5", "runs/darcy/checkpoint.safetensors"):
        assert Path(name).exists(), name


def test_the_check_can_fail() -> None:
    with pytest.raises(ZeroDivisionError):
        run("```python\n1 / 0\n```", {})
