"""The measured tank: one of its two measurements, if the data are at hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", [2])
def test_the_tank(real_data: Path, tmp_path: Path, number: int) -> None:
    path = Path(__file__).resolve().parents[2] / "examples" / "tank.py"
    spec = importlib.util.spec_from_file_location("tank", path)
    assert spec is not None and spec.loader is not None
    tank = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tank)
    numbers = tank.main(real_data / "eit_ktc2023", tmp_path / "tank.png", which=(number,))
    assert numbers[f"data{number}"] == pytest.approx(
        0.815, abs=0.02
    )  # another order of sums moves an edge by a pixel or two
    assert (tmp_path / "tank.png").stat().st_size > 10_000
