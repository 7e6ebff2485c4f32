"""The wheel works away from the clone; the source distribution holds everything."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest


def build(root: Path, target: str, out: Path) -> Path:
    """One distribution, made by the same backend that pip uses."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what pip unpacks from the wheel, and nothing else."""
    pytest.importorskip("hatchling", reason="needs the build backend")
    folder = tmp_path_factory.mktemp("away")
    wheel = build(root, "wheel", folder / "dist")
    with zipfile.ZipFile(wheel) as archive:  # a pure wheel is installed by unpacking it
        archive.extractall(folder / "site")
    return folder / "site"


CODE = """
import sys
sys.path.insert(0, {site!r})
import sciml
assert sciml.__file__.startswith({site!r}), sciml.__file__
problem = sciml.problem("poisson", n=15)
solution = sciml.solve(problem)
assert solution.ok, solution
print(problem.recipe)
"""


def test_the_wheel_works_away_from_the_clone(installed: Path, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-W", "error", "-c", CODE.format(site=str(installed))]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_wheel_holds_the_catalogue_and_the_types(installed: Path, root: Path) -> None:
    inside = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    for folder in ("problems", "data"):
        for path in (root / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"sciml/_catalogue/{path.relative_to(root)}" in inside
    assert "sciml/py.typed" in inside
    outside = {name.split("/")[0] for name in inside} - {"sciml"}
    assert all(name.endswith(".dist-info") for name in outside), f"the wheel also installs {outside}"


def test_without_its_catalogue_the_wheel_fails(installed: Path, tmp_path: Path) -> None:
    """The broken twin: the loader does not find the clone by accident."""
    import shutil

    bare = tmp_path / "site"
    shutil.copytree(installed, bare, ignore=shutil.ignore_patterns("_catalogue", "__pycache__"))
    command = [sys.executable, "-I", "-c", CODE.format(site=str(bare))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "catalogue folder" in done.stderr


def test_the_source_distribution_is_whole(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="needs the build backend")
    with tarfile.open(build(root, "sdist", tmp_path / "dist")) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    for folder in ("sciml", "problems", "data", "examples", "tests"):
        assert any(name.startswith(f"{folder}/") for name in names), f"no {folder}/ in the source distribution"
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "constraints.txt"} <= names
