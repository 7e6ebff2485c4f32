"""Generated data sets: certified members only, the same bits whatever interrupts, one recipe per file."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import sciml
from sciml.core.solution import SolveError
from sciml.domains.errors import InputError
from sciml.training.generate import generate

PLATE = '''
"""A plate with a random conductivity."""

import torch

from sciml.core.problem import Linear
from sciml.discretise import Diffusion
from sciml.domains import Dirichlet, GaussianField, Grid, Neumann
from sciml.solvers import ConjugateGradient

GRID = {"x": Dirichlet(0.0), "y": (Neumann(0.0), Dirichlet(1.0))}


def problem(*, n=9, spread=1.0, reach=400, seed=0):
    return draw(1, seed=seed, n=n, spread=spread)


def draw(count, *, seed, n=9, spread=1.0, reach=400):
    grid = Grid(shape=(n, n - 2), extent=(2.0, 1.2), sides=GRID)
    field = GaussianField(deviation=spread, modes=6).sample(grid, count, torch.Generator().manual_seed(seed))
    problem.reach = reach
    return Linear("plate", Diffusion(grid, coefficient=field.exp()), source=1.0)


def solver(posed):
    return ConjugateGradient(max_steps=problem.reach)
'''


@pytest.fixture
def plate(tmp_path: Path) -> str:
    path = tmp_path / "plate.py"
    path.write_text(PLATE)
    return str(path)


def test_file_holds_fields_answer_grid_and_recipe(tmp_path: Path, plate: str) -> None:
    out = generate(plate, count=11, out=tmp_path / "sets" / "plate.h5", seed=3, block=4, n=8)
    assert sorted(path.name for path in out.parent.iterdir()) == ["plate.h5"]
    data = sciml.open_dataset(out)
    assert data.u.dims == data.coefficient.dims == ("sample", "x", "y") and data.u.shape == (11, 8, 6)
    assert data.source.dims == ("x", "y")  # the same for all members
    assert data.u.dtype == np.float32
    grid = sciml.problem(plate, n=8).space.domain
    np.testing.assert_allclose(data.y.values, grid.coordinates()[1].numpy())
    recipe = json.loads(data.attrs["recipe"])
    assert recipe["settings"] == {"n": 8, "spread": 1.0, "reach": 400} and recipe["seed"] == 3 and recipe["count"] == 11
    assert len(recipe["sha256"]) == 64
    certificate = json.loads(data.attrs["certificate"])["discrete backward error"]
    assert certificate["worst"] <= certificate["target"] and data.attrs["redrawn"] == 0
    assert sciml.pairs(data, ("coefficient", "source"), "u").signature.grid == ("interior", "mixed")


def test_members_solve_the_problem_that_is_stored(tmp_path: Path, plate: str) -> None:
    """Tolerance: the target of the certificate, 1e-10, in float64 on disk; a coefficient of the next member fails."""
    data = sciml.open_dataset(generate(plate, count=5, out=tmp_path / "p.h5", block=3, dtype=torch.float64))
    posed = sciml.problem(plate, batch=5, seed=0)
    stored = torch.from_numpy(data.coefficient.values)[:, None]
    value = torch.from_numpy(data.u.values)[:, None]
    assert bool(posed.replace(coefficient=stored).certify(value)[0].passed.all())
    assert not bool(posed.replace(coefficient=stored.roll(1, 0)).certify(value)[0].passed.any())
    assert len({row.tobytes() for row in data.u.values}) == 5


def test_content_depends_on_seed_and_block_alone(tmp_path: Path, plate: str) -> None:
    long, short, other = (
        sciml.open_dataset(generate(plate, count=count, out=tmp_path / f"{name}.h5", seed=seed, block=4))
        for name, count, seed in (("long", 10, 1), ("short", 7, 1), ("other", 7, 2))
    )
    np.testing.assert_array_equal(long.u.values[:7], short.u.values)
    assert not np.isin(other.coefficient.values, long.coefficient.values).any()


def test_a_finished_file_is_returned_and_another_recipe_refused(tmp_path: Path, plate: str) -> None:
    out = tmp_path / "p.h5"
    generate(plate, count=3, out=out)
    before = out.stat().st_mtime_ns
    generate(plate, count=3, out=out)
    assert out.stat().st_mtime_ns == before
    for change in ({"count": 4}, {"seed": 1}, {"n": 7}, {"dtype": torch.float64}):
        with pytest.raises(InputError, match=r"p\.h5' exists and was made with"):
            generate(plate, **({"count": 3, "out": out} | change))
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file.create_dataset("u", data=np.zeros((2, 3))).attrs["dims"] = ["x", "y"]
    with pytest.raises(InputError, match="not made by"):
        generate(plate, count=3, out=tmp_path / "mine.h5")
    assert not list(tmp_path.glob("*.parts"))


def test_unfinished_blocks_of_another_recipe_are_refused(tmp_path: Path, plate: str) -> None:
    parts = tmp_path / "p.h5.parts"
    parts.mkdir()
    (parts / "recipe.json").write_text('{"count": 9}')
    with pytest.raises(InputError, match="unfinished blocks"):
        generate(plate, count=3, out=tmp_path / "p.h5")


def test_members_that_are_not_certified_are_drawn_again(tmp_path: Path, plate: str) -> None:
    with pytest.warns(UserWarning, match="leans towards easy members") as said:
        out = generate(plate, count=6, out=tmp_path / "p.h5", block=6, reach=52)
    assert len(said) == 1
    data = sciml.open_dataset(out)
    assert data.attrs["redrawn"] > 0 and data.sizes["sample"] == 6
    value, stored = (torch.from_numpy(data[name].values)[:, None].double() for name in ("u", "coefficient"))
    posed = (
        sciml.problem(plate, batch=6, seed=0).replace(coefficient=stored).with_target(discrete=1e-6)
    )  # float32 on disk
    assert bool(posed.certify(value)[0].passed.all())
    with pytest.raises(SolveError, match="gave 0 that are certified"):
        generate(plate, count=6, out=tmp_path / "none.h5", reach=3)
    assert not (tmp_path / "none.h5").exists()


def _run(plate: str, out: Path, env: dict[str, str], pause: float) -> None:
    os.environ.update(env)
    if pause:
        module = sys.modules["sciml.training.generate"]
        plain = module.save_tensors

        def slowly(*args: Any) -> None:
            time.sleep(pause)
            plain(*args)

        module.save_tensors = slowly  # type: ignore[attr-defined]
    generate(plate, count=22, out=out, block=4)


def _start(*args: Any) -> Any:
    process = multiprocessing.get_context("fork").Process(target=_run, args=args)
    process.start()
    return process


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_any_moment_it_resumes_to_the_same_bits(tmp_path: Path, plate: str) -> None:
    whole = generate(plate, count=22, out=tmp_path / "whole.h5", block=4).read_bytes()
    out = tmp_path / "killed.h5"
    rng = np.random.default_rng(0)
    kills = 0
    for _ in range(20):
        process = _start(plate, out, {}, 0.0)
        process.join(float(rng.uniform(0.005, 0.08)))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        if out.exists():
            assert out.read_bytes() == whole
    generate(plate, count=22, out=out, block=4)
    assert out.read_bytes() == whole and kills > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.h5", "plate.py", "whole.h5"]
    other = generate(plate, count=22, out=tmp_path / "other.h5", block=4, seed=1)  # the broken twin
    assert other.read_bytes() != whole


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_share_the_blocks(tmp_path: Path, plate: str) -> None:
    whole = generate(plate, count=22, out=tmp_path / "whole.h5", block=4).read_bytes()
    out = tmp_path / "shared.h5"
    processes = [_start(plate, out, {"RANK": str(rank), "WORLD_SIZE": "3"}, 0.02 * rank) for rank in range(3)]
    for process in processes:
        process.join(60)
        process.kill()
        assert process.exitcode == 0
    assert out.read_bytes() == whole and not (tmp_path / "shared.h5.parts").exists()


def test_what_generate_refuses(tmp_path: Path, plate: str) -> None:
    out = tmp_path / "p.h5"
    for how in ({"count": 0}, {"count": 3, "block": 0}, {"count": 3, "dtype": torch.float16}):
        with pytest.raises(InputError):
            generate(plate, out=out, **how)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'spraed'"):
        generate(plate, count=3, out=out, spraed=2.0)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a part of its path is a file"):
        generate(plate, count=3, out=tmp_path / "file" / "p.h5")
    assert not out.exists()
