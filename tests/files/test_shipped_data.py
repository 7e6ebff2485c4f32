"""The data sets in the repository are what their manifests say, and their members solve their problems."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import sciml


@pytest.mark.parametrize("name", ["darcy", "burgers"])
def test_manifest_card_and_file_agree(root: Path, name: str) -> None:
    folder = root / "data" / name
    manifest = tomllib.loads((folder / "manifest.toml").read_text())
    content = (folder / manifest["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == manifest["sha256"] and len(content) < 1_000_000
    data = sciml.dataset(name)
    recipe = json.loads(data.attrs["recipe"])
    assert recipe == json.loads(manifest["recipe"]) and recipe["source"] == name
    card = (folder / "card.md").read_text()
    assert manifest["command"] in card and manifest["licence"] in card
    assert str(data.sizes["sample"]) in card
    for check in json.loads(data.attrs["certificate"]).values():
        assert check["worst"] <= check["target"]


def test_darcy_members_solve_their_problem() -> None:
    """Target: the rounding of u and of the coefficient to float32 leaves a backward error below 1e-6."""
    data = sciml.dataset("darcy")
    coefficient, value = (torch.from_numpy(data[name].values)[:, None].double() for name in ("coefficient", "u"))
    posed = sciml.problem("darcy", n=31).replace(coefficient=coefficient).with_target(discrete=1e-6)
    assert bool(posed.certify(value)[0].passed.all())
    assert not bool(posed.certify(value.roll(1, 0))[0].passed.any())  # the broken twin: the neighbour's answer


def test_burgers_members_solve_their_problem() -> None:
    """Target: float32 frames, judged over the 10 intervals between them, agree with the referee to 1e-4."""
    data = sciml.dataset("burgers").isel(sample=[0, 7])
    start, value = (torch.from_numpy(data[name].values).double() for name in ("start", "u"))
    np.testing.assert_array_equal(data.u.values[:, 0], data.start.values)
    times = [step / 10 for step in range(11)]
    posed = sciml.problem("burgers", n=256, viscosity=0.01, times=times).replace(start=start[:, None])
    posed = posed.with_target(steps=1e-4)
    assert bool(posed.certify(value[:, :, None])[0].passed.all())
    assert not bool(posed.certify(value[:, :, None].flip(0))[0].passed.any())
