"""`sciml bench`: the table, the files, the exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sciml.cli import main


def run(capsys: Any, *words: Any) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_bench_is_a_table_and_files(capsys: Any, tmp_path: Path) -> None:
    words = ("bench", "darcy", "--set", "n=9", "--batch", "2", "--solver", "direct", "multigrid", "direct-transform", "--weights",
             "fno-darcy", "--repeats", "1", "--threads", "1", "--out", tmp_path / "runs")  # fmt: skip
    status, out, err = run(capsys, *words)
    assert status == 0, err
    assert "Trained(fno-darcy)" in out and "CONVERGED" in out and "not asked" in out and "DirectTransform" in out
    assert "3 of 4 Trained(fno-darcy): UNCERTIFIED" in err
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "bench.json",
        "bench.csv",
        "bench.png",
        "bench.html",
    }
    status, again, err = run(capsys, *words, "--json")
    assert status == 0 and "of 4" not in err  # it was done
    found = json.loads(again)
    assert found == json.loads((tmp_path / "runs" / "bench.json").read_text())
    assert [row["outcome"] for row in found["rows"]] == ["CONVERGED", "CONVERGED", "UNCERTIFIED", "CONVERGED"]


def test_bad_words(capsys: Any, tmp_path: Path) -> None:
    for words, told in (
        (("bench", "poison"), "did you mean 'poisson'"),
        (("bench", "poisson", "--solver", "multigird"), "did you mean Multigrid"),
        (("bench", "poisson", "--set", "n=9", "--solver", "primal-dual"), "no solver accepts"),
        (("bench", "poisson", "--classical", "--weights", "fno-darcy"), "give one of them"),
        (("bench", "poisson", "--set", "n=9", "--solver", "direct", "--repeats", "-1"), "repeats"),
    ):
        status, out, err = run(capsys, *words)
        assert status == 2 and told in err and not out
