"""The `sciml` command: what it prints, what it writes, its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sciml.cli import main
from sciml.cli.runs import declared
from sciml.cli.words import names_of, pick, settings_of, value_of
from sciml.domains import InputError


def run(capsys: Any, *words: Any) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return status, out, err


def told(capsys: Any, *words: Any, status: int = 0) -> Any:
    """What a command with --json says."""
    code, out, err = run(capsys, *words, "--json")
    assert code == status, err
    return json.loads(out)


def test_values_are_read_not_evaluated() -> None:
    assert [value_of(text) for text in ("3", "-2", "1e-3", "true", "None", "0,0.5,1", "lognormal")] == [
        3, -2, 1e-3, True, None, (0, 0.5, 1), "lognormal",
    ]  # fmt: skip
    assert value_of("__import__('os')") == "__import__('os')"
    assert type(value_of("3")) is int and type(value_of("3.0")) is float
    assert settings_of(["n=9", "sides=a=b"]) == {"n": 9, "sides": "a=b"}
    for words in (["n"], ["=3"], ["n="], ["n=1", "n=2"]):
        with pytest.raises(InputError):
            names_of(words)


def test_names_are_found_up_to_case_and_hyphens() -> None:
    known = {"ConjugateGradient": 1, "FNO": 2}
    assert pick("solver", "conjugate-gradient", known) == pick("solver", "CONJUGATE_GRADIENT", known) == 1
    assert pick("network", "fno", known) == 2
    with pytest.raises(InputError, match="did you mean ConjugateGradient"):
        pick("solver", "conjugategradent", known)


def test_the_catalogue_is_listed(capsys: Any) -> None:
    found = told(capsys, "problems")
    assert {"poisson", "darcy", "burgers"} <= set(found)
    status, out, _ = run(capsys, "problems")
    assert status == 0 and all(name in out for name in found)


def test_solve_writes_what_was_asked(capsys: Any, tmp_path: Path) -> None:
    plot, save = tmp_path / "u.png", tmp_path / "u.nc"
    facts = told(capsys, "solve", "poisson", "--set", "n=9", "dim=2", "--plot", plot, "--save", save)
    assert facts["code"] == "CONVERGED" and facts["certified"] is True
    assert facts["shape"] == [1, 1, 9, 9]
    assert facts["checks"][0]["target"] == 1e-10 and facts["checks"][0]["value"][0] <= 1e-10
    assert facts["recipe"]["source"] == "poisson"
    assert plot.stat().st_size > 5000 and save.stat().st_size > 5000
    again = told(capsys, "certify", save)
    assert again["code"] == "CONVERGED" and again["checks"][0]["value"] == facts["checks"][0]["value"]
    status, out, _ = run(capsys, "data", save)
    assert status == 0 and "sample 1, x 9, y 9" in out


def test_a_changed_answer_is_not_certified(capsys: Any, tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "u.nc"
    told(capsys, "solve", "poisson", "--set", "n=9", "--save", path)
    with h5py.File(path, "r+") as file:
        file["u"][...] = file["u"][...] * 1.001
    assert told(capsys, "certify", path, status=3)["code"] == "UNCERTIFIED"


def test_the_solver_and_the_target_can_be_chosen(capsys: Any) -> None:
    words = ("solve", "darcy", "--set", "n=9", "--batch", 2, "--target", "discrete=1e-8")
    facts = told(
        capsys, *words, "--solver", "conjugate-gradient", "--solver-set", "preconditioner=multigrid", "max_steps=30"
    )
    assert facts["solver"] == "ConjugateGradient" and facts["codes"] == ["CONVERGED"] * 2
    assert facts["checks"][0]["target"] == 1e-8
    few = told(capsys, *words, "--solver", "ConjugateGradient", "--solver-set", "max_steps=1", status=3)
    assert few["code"] == "BUDGET"
    status, out, err = run(capsys, *words)
    assert status == 0 and out.startswith("CONVERGED") and "2 of 2" in out and err == ""


BAD: dict[str, tuple[list[str], str]] = {
    "unknown problem": (["solve", "poison"], "did you mean 'poisson'"),
    "unknown setting": (["solve", "poisson", "--set", "m=3"], "no setting 'm'"),
    "no value": (["solve", "poisson", "--set", "n"], "name=value"),
    "value of another kind": (["solve", "poisson", "--set", "n=many"], "n is many; give an integer"),
    "unknown solver": (["solve", "poisson", "--solver", "multgrid"], "did you mean Multigrid"),
    "unknown setting of the solver": (["solve", "poisson", "--solver", "multigrid", "--solver-set", "steps=3"], "no setting 'steps'"),
    "solver of another kind": (["solve", "burgers", "--set", "n=16", "--solver", "multigrid"], "cannot be asked to solve"),
    "unknown target": (["solve", "poisson", "--set", "n=9", "--target", "steps=1"], "no gate 'steps'"),
    "folder that is missing": (["solve", "poisson", "--plot", "none/u.png"], "does not exist"),
    "ending of no picture": (["solve", "poisson", "--plot", "u.doc"], "ending"),
    "unknown option": (["solve", "poisson", "--colour"], "colour"),
    "unknown command": (["slove"], "solve"),
    "missing argument": (["solve"], "NAME"),
    "missing file": (["data", "none.h5"], "no file 'none.h5'"),
    "missing run": (["report", "runs/none"], "no folder"),
    "missing weights": (["predict", "no-such-run", "none.h5", "--out", "p.nc"], "no-such-run"),
    "member": (["solve", "poisson", "--set", "n=9", "--plot", "u.png", "--member", "4"], "no member 4"),
    "type on disk": (["generate", "darcy", "--count", "2", "--out", "d.h5", "--dtype", "int8"], "float32 or float64"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_status_2(case: str, capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words, expected = BAD[case]
    status, out, err = run(capsys, *words)
    assert status == 2, (out, err)
    assert expected in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert out == ""
    assert not list(tmp_path.iterdir())


def test_unwritable_places_are_found_before_the_work(capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from sciml.cli import commands

    def never(*_: Any) -> Any:
        raise AssertionError("the work began")

    monkeypatch.setattr(commands, "problem_of", never)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "none" / "u.nc", tmp_path / "file" / "u.nc", tmp_path):
        status, _, err = run(capsys, "solve", "poisson", "--save", place)
        assert status == 2 and err.count("\n") == 1, err
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    status, _, err = run(capsys, "solve", "poisson", "--save", tmp_path / "u.nc")
    assert status == 2 and "No space left" in err
    monkeypatch.undo()
    assert run(capsys, "solve", "poisson", "--set", "n=9", "--save", tmp_path / "u.nc")[0] == 0  # the check can pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "u.nc"]


def test_our_own_faults_have_status_1(capsys: Any, monkeypatch: Any) -> None:
    import sciml.catalogue

    monkeypatch.setattr(sciml.catalogue, "problems", lambda: 1 / 0)
    status, _, err = run(capsys, "problems")
    assert status == 1 and "ZeroDivisionError" in err


def test_an_indefinite_operator_has_status_3(capsys: Any, tmp_path: Path) -> None:
    own = tmp_path / "shifted.py"
    own.write_text(
        "import torch\nfrom sciml import Grid, Linear\nfrom sciml.discretise import Diffusion\n"
        "def problem(*, n=9):\n    grid = Grid((n,))\n"
        "    return Linear('shifted', Diffusion(grid, reaction=-torch.full((1, 1, n), 500.0, dtype=torch.float64)), source=torch.ones(1, 1, n, dtype=torch.float64))\n"
    )
    status, _, err = run(capsys, "solve", own, "--solver", "conjugate-gradient")
    assert status == 3 and "Traceback" not in err, err
    assert "Direct" in err


def test_a_fault_in_the_users_file_is_shown(capsys: Any, tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text("def problem(*, n=9):\n    return 1 / 0\n")
    status, _, err = run(capsys, "solve", own)
    assert status == 2 and "line 2" in err and "ZeroDivisionError" in err


def test_generate_train_predict_report(capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    made = told(capsys, "generate", "darcy", "--count", 30, "--set", "n=9", "--out", "darcy.h5")
    assert made["members"] == 30 and made["variables"]["u"] == {"sample": 30, "x": 9, "y": 9}
    found = told(capsys, "data", "darcy.h5", "--names", "coefficient=k")
    assert {row["variable"] for row in found["variables"]} >= {"k"}
    train = ("train", "darcy.h5", "--network", "fno", "--inputs", "k", "--targets", "u", "--names", "coefficient=k", "u=u",
             "--out", "runs/one", "--epochs", 2, "--set", "modes=2", "width=4", "layers=1", "--augment", "reflection")  # fmt: skip
    facts = told(capsys, *train)
    assert facts["members"] == "24 to train, 3 to choose, 3 to score" and 0 < facts["test, relative L2"] < 10
    rows = (tmp_path / "runs/one/log.jsonl").read_text().splitlines()
    assert len(rows) == 2
    again = told(capsys, *train)
    assert again["test, relative L2"] == facts["test, relative L2"]  # resumed: nothing left to do
    predicted = told(capsys, "predict", "runs/one", "darcy.h5", "--names", "coefficient=k", "u=u", "--out", "p.nc")
    assert predicted["members"] == 30 and predicted["relative L2"] > 0 and (tmp_path / "p.nc").stat().st_size > 1000
    page = Path(told(capsys, "report", "runs/one")["file"])
    assert page.name == "report.html" and "Samples" in page.read_text()
    status, _, err = run(capsys, *train[:3], "fnoo", *train[4:])
    assert status == 2 and "did you mean FNO" in err
    status, _, err = run(capsys, *train[:5], "kk", *train[6:])
    assert status == 2 and "'kk'" in err and "'k'" in err


def test_a_network_answers_and_starts_a_solver(capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    told(capsys, "generate", "darcy", "--count", 20, "--set", "n=9", "--out", "darcy.h5")
    told(capsys, "train", "darcy.h5", "--network", "fno", "--inputs", "coefficient", "--targets", "u", "--out", "run",
         "--epochs", 1, "--augment", "declared", "--set", "modes=2", "width=4", "layers=1")  # fmt: skip
    alone = told(capsys, "solve", "darcy", "--set", "n=9", "--solver", "trained", "--guess", "run", status=3)
    assert alone["code"] == "UNCERTIFIED" and alone["solver"] == "Trained"
    both = told(capsys, "solve", "darcy", "--set", "n=9", "--guess", "run")
    assert both["code"] == "CONVERGED" and both["solver"] == "Chained"


def test_time_steps_are_learned(capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    told(
        capsys, "generate", "heat", "--count", 10, "--set", "n=9", "dim=1", "times=0,0.01,0.02,0.03", "--out", "heat.h5"
    )
    facts = told(capsys, "train", "heat.h5", "--network", "fno", "--targets", "u", "--history", 1, "--out", "run", "--epochs", 1,
                 "--set", "modes=2", "width=4", "layers=1")  # fmt: skip
    assert facts["members"] == "24 to train, 3 to choose, 3 to score"  # three windows of each trajectory
    with pytest.raises(InputError, match="needs data made by"):
        declared(None)


def test_the_module_runs_quietly(tmp_path: Path, root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    code = (
        "import sys; sys.argv = ['sciml', '--help']; from sciml.cli import main; status = main(); "
        "slow = [n for n in ('matplotlib', 'xarray', 'h5py', 'scipy') if n in sys.modules]; sys.exit(str(slow) if slow else status)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert shown.returncode == 0, shown.stderr
    assert "solve" in shown.stdout and shown.stderr == ""
    done = subprocess.run(
        [sys.executable, "-m", "sciml", "solve", "poisson", "--set", "n=9", "--plot", "u.png", "--json"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert json.loads(done.stdout)["code"] == "CONVERGED"
