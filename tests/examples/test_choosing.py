"""The page that helps to choose: figures from a bench, sentences from docstrings."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from sciml.learned import Trained
from sciml.solvers import ConjugateGradient, Direct, LeastSquares, Multigrid, PlugAndPlay

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def choosing() -> Any:
    spec = importlib.util.spec_from_file_location("choosing", ROOT / "examples" / "choosing.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["choosing"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["choosing"]


def test_the_page_is_written_from_measurements(choosing: Any, tmp_path: Path) -> None:
    cases = [
        choosing.Case("darcy", {"n": 9, "batch": 2}, "Advice.", lambda _: [Direct(), ConjugateGradient(), Multigrid()], ("fno-darcy",)),
        choosing.Case("deblur", {"n": 16}, "More.", lambda _: [(LeastSquares(), None), (PlugAndPlay(max_steps=2), "denoiser-patches")], (), True),
    ]  # fmt: skip
    told: list[str] = []
    errors = choosing.main(cases, out=tmp_path / "rows", to=tmp_path / "CHOOSING.md", repeats=1, say=told.append)
    assert set(errors) == {"darcy", "deblur"} and errors["darcy"] < 1e-8 < errors["deblur"] < 1
    page = (tmp_path / "CHOOSING.md").read_text()
    for words in (
        "## darcy",
        "## deblur",
        "Trained(fno-darcy)",
        "LeastSquares, no prior",
        "186 s",
        "--set n=9 --batch 2",
        "**fno-darcy** when",
    ):
        assert words in page, words
    assert any("Multigrid: CONVERGED" in line for line in told)
    told.clear()
    assert choosing.main(cases, out=tmp_path / "rows", to=None, repeats=1, say=told.append) == errors
    assert not told  # nothing is measured twice
    bench = __import__("sciml").core.bench.Bench.load(tmp_path / "rows" / "darcy" / "bench.json")
    cheapest = choosing.chosen(bench, False)
    assert cheapest.passed and cheapest.busy == min(row.busy for row in bench.rows if row.passed)
    worse = dataclasses.replace(bench, rows=tuple(dataclasses.replace(row, outcome="BUDGET") for row in bench.rows))
    assert choosing.chosen(worse, False) is None


def test_sentences_come_from_docstrings(choosing: Any) -> None:
    assert (
        choosing.fails("A method.\n\n*Fails when* the grid is\ncoarse (n < 3). Reference: none.")
        == "the grid is coarse (n < 3)"
    )
    assert choosing.fails("A method. *Fails when* it rains.\n\nMore.") == "it rains"
    assert choosing.fails("A method.") == "" and choosing.fails(None) == ""
    found = choosing.weaknesses(["Chained(Trained(fno-darcy), ConjugateGradient(Multigrid))"])
    assert set(found) == {"Chained", "Trained", "fno-darcy", "ConjugateGradient", "Multigrid"}
    assert "not of the kind the network was trained on" in found["Trained"] and Trained.__name__ in found


def test_every_case_names_a_problem(choosing: Any) -> None:
    names = {path.stem for path in (ROOT / "problems").glob("*.py")}
    assert (
        {case.name for case in choosing.CASES}
        == {"poisson", "darcy", "heat", "burgers", "bratu", "p_laplace", "minimal_surface", "ct", "deblur", "mri"}
        <= names
    )
    assert all(case.advice.endswith(".") for case in choosing.CASES)
