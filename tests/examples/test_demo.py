"""The demo on small grids: every part runs, and its numbers are what they should be."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def demo() -> Any:
    path = Path(__file__).resolve().parents[2] / "examples" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_demo(demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.delenv("SCIML_REAL_DATA", raising=False)
    numbers = demo.main(tmp_path / "demo", n=127, pixels=64, count=40, grid=9, epochs=3)
    assert numbers["all four certified"] == 1.0
    assert numbers["poisson, discrete backward error"] <= 1e-10
    assert numbers["darcy, discrete backward error"] <= 1e-10
    assert numbers["burgers, error of the time steps"] <= 1e-6
    # The gradient and the solves are good to the target of the time steps, 1e-6; the quotient to its step squared, 1e-8.
    assert numbers["gradient"] == pytest.approx(numbers["gradient by differences"], rel=1e-5)
    assert numbers["gradient"] != pytest.approx(2 * numbers["gradient by differences"], rel=1e-5)
    assert numbers["total variation certified"] == 1.0
    formula, flat = (numbers[f"30 views, {name}, PSNR"] for name in ("filtered back-projection", "total variation"))
    assert flat > formula + 6 > 20
    assert numbers["30 views, learned proximal network, PSNR"] > formula + 6
    assert numbers["network, relative L2 on unseen members"] < 1.0  # better than the zero field, after three epochs
    assert numbers["network alone certified"] == 0.0
    assert numbers["network and solver certified"] == 1.0
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "http://" not in page and "https://" not in page and page.count("data:image/gif") == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == f"report: {(tmp_path / 'demo' / 'report.html').resolve()}"
    assert out[-2].startswith("solving ")


def test_somebody_elses_trajectory(demo: Any, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIML_REAL_DATA", str(real_data))
    numbers, _ = demo.measured(tmp_path)
    assert numbers["burgers.mat, relative L2"] <= 1e-7
