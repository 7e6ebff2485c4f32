"""`sciml reconstruct`: measured data in, a judged image out, one sentence where that is not possible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import xarray
from test_commands import run, told

OWN = '''"""A blocky signal in noise."""
import torch
from sciml.core import GaussianNoise, Inverse, Matrix

def problem(*, data=None, reference=None, n=24, sigma=0.05) -> Inverse:
    truth = (torch.arange(n, dtype=torch.float64) > n // 3).double().reshape(1, 1, -1)
    if data is None:
        y = GaussianNoise(sigma).sample(truth, generator=torch.Generator().manual_seed(0))
    else:
        import sciml
        found = sciml.open_dataset(data) if isinstance(data, str) else data
        y, truth = torch.as_tensor(found["trace"].values).double().reshape(1, 1, -1), None
        n = y.shape[-1]
    return Inverse("signal", Matrix(torch.eye(n, dtype=torch.float64)[None]), y, GaussianNoise(sigma), truth=truth)
'''
TV = ("--prior", "total-variation")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: Any) -> str:
    """A problem file of the user's own, in the current folder; it recommends neither prior nor solver."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    return "own.py"


def measurement(path: Path, name: str = "trace") -> None:
    import numpy as np

    values = (np.arange(30) > 11) + 0.05 * np.random.default_rng(0).standard_normal(30)
    xarray.Dataset({name: (("sample", "bin"), values[None])}).to_netcdf(path, engine="h5netcdf")


def test_the_catalogue_tells_kinds(capsys: Any) -> None:
    found = told(capsys, "problems")
    assert found["poisson"]["kind"] == "Linear" and found["burgers"]["kind"] == "Evolution"
    assert found["ct"]["kind"] == found["deblur"]["kind"] == "Inverse" and "tomography" in found["ct"]["what"]


def test_a_weight_is_chosen_and_everything_is_written(capsys: Any, own: str, tmp_path: Path) -> None:
    facts = told(capsys, "reconstruct", own, *TV, "--out", "x.nc", "--plot", "x.png", "--report", "x.html")
    assert facts["code"] == "CONVERGED" and facts["solver"] == "Discrepancy" and facts["prior"] == "TotalVariation"
    assert {check["name"] for check in facts["checks"]} >= {"optimality", "misfit"}
    assert facts["weight"][0] > 0 and facts["PSNR"][0] > 20
    assert facts["written"] == {"plot": "x.png", "out": "x.nc", "report": "x.html"}
    assert (tmp_path / "x.png").stat().st_size > 5000 and "PSNR" in (tmp_path / "x.html").read_text()
    with xarray.open_dataset(tmp_path / "x.nc", engine="h5netcdf") as found:
        assert found["weight"].values.tolist() == facts["weight"] and "truth" in found and "data" in found
    status, out, _ = run(capsys, "reconstruct", own, *TV)
    assert status == 0 and out.startswith("CONVERGED") and "TotalVariation" in out and "weight" in out


def test_a_weight_and_a_solver_can_be_given(capsys: Any, own: str) -> None:
    facts = told(capsys, "reconstruct", own, *TV, "--weight", 2.0, "--solver", "primaldual")
    assert facts["solver"] == "PrimalDual" and facts["weight"] == [2.0] and facts["code"] == "CONVERGED"
    assert [check["name"] for check in facts["checks"] if check["target"]] == ["optimality"]
    wrapped = told(capsys, "reconstruct", own, *TV, "--solver", "primaldual", "--target", "optimality=1e-4")
    assert wrapped["solver"] == "Discrepancy" and wrapped["checks"][0]["target"] == 1e-4
    short = told(capsys, "reconstruct", own, *TV, "--weight", 2.0, "--solver", "primaldual", "--solver-set", "max_steps=2",
                 status=3)  # fmt: skip
    assert short["code"] == "BUDGET" and not short["certified"]
    bounded = told(
        capsys,
        "reconstruct",
        own,
        *TV,
        "--weight",
        2.0,
        "--prior-set",
        "lower=0.0",
        "upper=1.0",
        "--solver",
        "primaldual",
        "--out",
        "b.nc",
    )
    with xarray.open_dataset("b.nc", engine="h5netcdf") as found:
        assert float(found["reconstruction"].min()) >= 0.0
    assert bounded["code"] == "CONVERGED"


def test_measured_data_come_from_a_file(capsys: Any, own: str, tmp_path: Path) -> None:
    measurement(tmp_path / "m.h5")
    facts = told(capsys, "reconstruct", own, "--data", "m.h5", *TV, "--out", "x.nc")
    assert facts["shape"] == [1, 1, 30] and "PSNR" not in facts and facts["recipe"]["settings"]["data"] == "m.h5"
    measurement(tmp_path / "renamed.h5", "counts")
    named = told(capsys, "reconstruct", own, "--data", "renamed.h5", "--names", "counts=trace", *TV)
    assert named["shape"] == [1, 1, 30] and named["weight"] == facts["weight"]


def test_a_saved_reconstruction_can_be_certified_again(capsys: Any, tmp_path: Path) -> None:
    words = ("reconstruct", "ct", "--set", "n=16", "views=10", "noise=0.1")
    facts = told(capsys, *words, "--out", tmp_path / "x.nc")
    assert facts["code"] == "CONVERGED" and facts["weight"][0] > 0
    again = told(capsys, "certify", tmp_path / "x.nc")
    assert again["code"] == "CONVERGED"
    assert {c["name"]: c["value"] for c in again["checks"]} == {c["name"]: c["value"] for c in facts["checks"]}
    import h5py

    with h5py.File(tmp_path / "x.nc", "r+") as file:
        file["reconstruction"][...] = 1.2 * file["reconstruction"][...]
    assert told(capsys, "certify", tmp_path / "x.nc", status=3)["code"] == "UNCERTIFIED"
    told(capsys, *words, *TV, "--out", tmp_path / "y.nc")
    status, _, err = run(capsys, "certify", tmp_path / "y.nc")
    assert status == 2 and "TotalVariation(" in err and "in words only" in err and err.count("\n") == 1


def test_complex_images_are_certified_again(capsys: Any, tmp_path: Path) -> None:
    facts = told(capsys, "reconstruct", "mri", "--set", "n=16", "coils=3", "--out", tmp_path / "x.nc")
    again = told(capsys, "certify", tmp_path / "x.nc")
    assert facts["code"] == again["code"] == "CONVERGED"
    assert {c["name"]: c["value"] for c in again["checks"]} == {c["name"]: c["value"] for c in facts["checks"]}


def test_a_solver_that_hands_over_one_dual_variable_is_certified_again(capsys: Any, tmp_path: Path) -> None:
    """A problem file that states its prior; ADMM hands over the dual variable of the prior alone."""
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from sciml.core import GaussianNoise, Inverse\n"
        "from sciml.domains import Pixels\n"
        "from sciml.forward import Mask\n"
        "from sciml.priors import TotalVariation\n"
        "def problem(*, n=8):\n"
        "    seen = torch.arange(n * n).reshape(n, n) % 3 > 0\n"
        "    mask = Mask(Pixels((n, n)).space(), seen)\n"
        "    image = (torch.arange(n * n, dtype=torch.float64).reshape(1, 1, n, n) % n > 3).double()\n"
        "    prior = TotalVariation(lower=0.0, upper=1.0)\n"
        "    return Inverse('mine', mask, mask(image), GaussianNoise(0.1, seen), prior, 3.0)\n"
    )
    for solver in ("admm", "primaldual"):
        file = tmp_path / f"{solver}.nc"
        facts = told(capsys, "reconstruct", tmp_path / "mine.py", "--solver", solver, "--out", file)
        assert facts["code"] == told(capsys, "certify", file)["code"] == "CONVERGED"


def test_solve_takes_inverse_problems_too(capsys: Any, tmp_path: Path) -> None:
    words = (
        "solve",
        "ct",
        "--set",
        "n=16",
        "views=10",
        "noise=0.1",
        "--plot",
        tmp_path / "x.png",
        "--save",
        tmp_path / "x.nc",
    )
    assert told(capsys, *words)["code"] == "CONVERGED"
    plain = told(capsys, *words[:6], "--solver", "filtered-backprojection", status=3)
    assert plain["code"] == "UNCERTIFIED"


def test_a_prior_with_one_strength_is_stepped_proximally(capsys: Any, own: str, tmp_path: Path) -> None:
    from sciml.networks import InputConvexNetwork
    from sciml.priors import LearnedProx

    network = InputConvexNetwork(dim=1, width=4, group=2, layers=1)
    LearnedProx(network).save(tmp_path / "prior")
    status, out, err = run(capsys, "reconstruct", own, "--prior", "prior", "--weight", 100.0, "--json")
    facts = json.loads(out)
    assert status in (0, 3) and facts["prior"] == "LearnedProx" and facts["solver"] == "ProximalGradient", err
    status, out, err = run(capsys, "reconstruct", own, "--prior", "prior", "--prior-set", "scale=2")
    assert status == 2 and "has no settings" in err


BAD: dict[str, tuple[list[str], str]] = {
    "missing data": (["ct", "--data", "none.h5"], "no file 'none.h5'"),
    "no data set": (["ct", "--data", "own.py"], "own.py"),
    "problem of another kind": (["poisson"], "no inverse problem but a Linear; use `sciml solve poisson`"),
    "unknown problem": (["cat"], "did you mean 'ct'"),
    "a problem without reference": (["ct", "--reference", "own.py"], "no setting 'reference'"),
    "unknown prior": (["own.py", "--prior", "total-variance"], "did you mean TotalVariation"),
    "a network that is no prior": (["own.py", "--prior", "fno-darcy"], "is a Fit, no prior"),
    "setting of the prior": (["own.py", *TV, "--prior-set", "strength=2"], "no setting 'strength'"),
    "settings without prior": (["own.py", "--prior-set", "lower=2"], "name the prior"),
    "weight without prior": (["own.py", "--weight", "2"], "name one with --prior"),
    "weight of nothing": (["own.py", "--prior", "none", "--weight", "2"], "nothing to weigh"),
    "negative weight": (["own.py", *TV, "--weight=-1"], "must be positive"),
    "weight that is no number": (["own.py", *TV, "--weight", "much"], "weight"),
    "no solver for it": (["own.py", *TV, "--solver", "multigrid"], "cannot be asked to solve"),
    "unknown solver": (["own.py", *TV, "--solver", "primaldul"], "did you mean PrimalDual"),
    "unknown target": (["own.py", *TV, "--target", "discrete=1"], "no gate 'discrete'"),
    "target that is no number": (["own.py", *TV, "--target", "optimality=abc"], "'abc', which is no number"),
    "member before the solve": (["own.py", *TV, "--member", "5"], "there is no member 5"),
    "batch of measured data": (["ct", "--data", "own.py", "--set", "batch=2"], "not drawn"),
    "batch of one's own": (["own.py", "--set", "batch=2"], "draws no random members"),
    "ending of the file": (["own.py", *TV, "--out", "x.png"], "ends in .nc"),
    "ending of the picture": (["own.py", *TV, "--plot", "x.gif"], "ending"),
    "ending of the page": (["own.py", *TV, "--report", "x.pdf"], "ends in .html"),
    "folder that is missing": (["own.py", *TV, "--out", "none/x.nc"], "does not exist"),
    "names without data": (["own.py", *TV, "--names", "a=b"], "give the file as --data"),
    "member": (["own.py", *TV, "--plot", "x.png", "--member", "4"], "no member 4; this problem has 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_status_2(case: str, capsys: Any, own: str, tmp_path: Path) -> None:
    words, expected = BAD[case]
    status, out, err = run(capsys, "reconstruct", *words)
    assert status == 2, (out, err)
    assert expected in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert out == ""
    assert {path.name for path in tmp_path.iterdir()} <= {"own.py", "__pycache__"}


def test_damaged_data_are_a_sentence(capsys: Any, own: str, tmp_path: Path) -> None:
    measurement(tmp_path / "m.h5")
    (tmp_path / "torn.h5").write_bytes((tmp_path / "m.h5").read_bytes()[:300])
    status, _, err = run(capsys, "reconstruct", "ct", "--data", "torn.h5")
    assert status == 2 and "torn.h5" in err and "Traceback" not in err
    status, _, err = run(capsys, "reconstruct", "ct", "--data", "m.h5")
    assert status == 2 and "no 'sinogram'" in err and "Traceback" not in err
