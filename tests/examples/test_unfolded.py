"""Four learned steps beat the same steps untrained, and those filtered back-projection."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from sciml.metrics import relative_l2


@pytest.fixture(scope="module")
def unfolded(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("unfolded_example", root / "examples" / "unfolded.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_learns(unfolded: ModuleType) -> None:
    found = unfolded.main(steps=60)
    assert found["filtered back-projection"] < found["before"] < found["unfolded"]


def test_members_are_what_they_say(unfolded: ModuleType) -> None:
    """Data fit the truth as their noise says (and the model's pixels, twice as wide as those that were projected)."""
    members = unfolded.Scans(unfolded.Phantoms(3, n=16).images, 2, n=12, views=7, noise=0.05)
    one, again, other = members(5), members(5), members(6)
    assert torch.equal(one.data, again.data) and not torch.equal(one.data, other.data)
    clean = one.forward(one.truth)
    assert float(relative_l2(clean, one.data).max()) < 0.2
    assert float(relative_l2(clean.flip(-1), one.data).min()) > 0.3  # the twin: a detector the wrong way round


def test_phantoms_are_kept(unfolded: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "phantoms.safetensors"
    first = unfolded.Phantoms(2, file, n=8).images
    assert torch.equal(first, unfolded.Phantoms(2, file, n=8).images) and first.shape == (2, 1, 16, 16)
