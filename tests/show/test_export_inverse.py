"""Reconstructions as data sets and files: data on their own axes, noise, weight, truth; nothing is lost on the way."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from reconstructions import Identity, at_points, blurred, made, scan, seeded, total_variation

import sciml
from sciml.core import GaussianNoise, Inverse, Recipe
from sciml.core.export import data_axes
from sciml.domains import InputError, Pixels, Space
from sciml.priors import TotalVariation

CASES: dict[str, Any] = {
    "scan": lambda: scan(2), "line": lambda: blurred(1), "image": lambda: blurred(2), "block": lambda: blurred(3),
    "points": lambda: at_points(2),
}  # fmt: skip


def read(path: Path) -> xarray.Dataset:
    with xarray.open_dataset(path, engine="h5netcdf") as found:
        return found.load()


@pytest.mark.parametrize("case", CASES)
def test_what_was_written_is_read_again(case: str, tmp_path: Path) -> None:
    solution = made(CASES[case]())
    dataset = solution.to_xarray()
    again = read(solution.save(tmp_path / "x.nc"))
    xarray.testing.assert_identical(again, dataset)
    broken = again.copy(deep=True)
    broken["data"].values.reshape(-1)[0] += 1e-12  # the comparison can fail
    assert not broken.identical(dataset)
    problem: Any = solution.problem
    for name, tensor in (("reconstruction", solution.value), ("data", problem.data), ("truth", problem.truth)):
        assert np.array_equal(again[name].values, tensor[:, 0].numpy())
        assert again[name].attrs["units"] == "1"
    mine = sciml.open_dataset(tmp_path / "x.nc")
    assert np.array_equal(mine["reconstruction"].values, solution.value[:, 0].numpy())


def test_a_scan_has_angles_and_positions() -> None:
    problem = scan(2)
    found = made(problem).to_xarray()
    assert found["data"].dims == ("sample", "view", "bin")
    radon: Any = problem.forward
    assert np.array_equal(found["angle"].values, radon.angles.numpy()) and found["angle"].attrs["units"] == "rad"
    assert np.array_equal(found["position"].values, radon.positions.numpy()) and found["position"].dims == ("bin",)
    assert found["reconstruction"].dims == ("sample", "x", "y")
    assert found.attrs["sigma"] == 0.02 and found.attrs["prior"] == "none"


def test_axes_of_other_data() -> None:
    assert [axis.name for axis in data_axes(blurred(3))] == ["x", "y", "z"]
    (axis,) = data_axes(at_points(2))
    assert axis.name == "point" and [name for name, _, _ in axis.points] == ["point_x", "point_y"]
    pixels = Pixels((5, 7), (1.0, 1.4))
    elsewhere = Pixels((5, 7), (2.0, 1.4))
    data = torch.zeros(1, 1, 5, 7, dtype=torch.float64)
    for codomain, names in (
        (Space(None, (1, 5, 7)), ["data_0", "data_1"]),
        (elsewhere.space(), ["data_x", "data_y"]),
        (pixels.space(), ["x", "y"]),
    ):
        problem = Inverse("same", Identity(pixels.space(), codomain), data, GaussianNoise(1.0))
        assert [axis.name for axis in data_axes(problem)] == names
        assert made(problem, data).to_xarray()["data"].dims == ("sample", *names)


def test_the_weight_that_was_chosen_is_kept(tmp_path: Path) -> None:
    solution = total_variation(scan(2))
    assert solution.weight is not None and solution.weight.shape == (2,)
    assert float(solution.weight[0]) != float(solution.weight[1])
    again = read(solution.save(tmp_path / "x.nc"))
    assert np.array_equal(again["weight"].values, solution.weight.numpy())
    assert "TotalVariation" in again["weight"].attrs["long_name"] and "TotalVariation" in again.attrs["prior"]
    assert {"optimality", "misfit", "chi-square_per_degree_of_freedom", "code"} <= set(again)
    assert solution.dual is not None and again["dual_data"].dims == ("sample", "view", "bin")
    assert np.array_equal(again["dual_prior"].values, solution.dual["prior"].numpy())
    posed = made(scan().with_prior(TotalVariation(), weight=3.0))
    assert posed.weight is not None and posed.to_xarray()["weight"].values.tolist() == [3.0]
    assert "weight" not in made(scan()).to_xarray()


def test_noise_that_varies_and_data_that_are_missing(tmp_path: Path) -> None:
    problem = scan(2)
    sigma = torch.rand(problem.data.shape[-1], generator=seeded(), dtype=torch.float64) + 0.1
    measured = torch.rand(problem.data.shape, generator=seeded(1)) > 0.1
    each = dataclasses.replace(problem, noise=GaussianNoise(sigma.reshape(1, 1, 1, -1), measured))
    again = read(made(each).save(tmp_path / "x.nc"))
    assert np.array_equal(again["sigma"].values, sigma.expand(2, 15, -1).numpy())
    assert again["measured"].dtype == bool and np.array_equal(again["measured"].values, measured[:, 0].numpy())
    assert "sigma" not in again.attrs
    own = dataclasses.replace(problem, noise=GaussianNoise(torch.tensor([0.1, 0.2], dtype=torch.float64)))
    assert made(own).to_xarray()["sigma"][:, 0, 0].values.tolist() == [0.1, 0.2]


def test_complex_data_are_split(tmp_path: Path) -> None:
    pixels = Pixels((5, 7), (1.0, 1.4))
    space = Space(pixels, (1, 5, 7), complex=True, dtype=torch.complex128)
    coils = torch.randn(1, 1, 5, 7, generator=seeded(), dtype=torch.complex128)
    forward = Identity(space, Space(None, (1, 5, 7), complex=True, dtype=torch.complex128))
    solution = made(Inverse("coils", forward, coils, GaussianNoise(0.1), truth=2 * coils))
    again = read(solution.save(tmp_path / "x.nc"))
    assert np.array_equal(again["data_real"].values + 1j * again["data_imaginary"].values, coils[:, 0].numpy())
    assert not np.iscomplexobj(again["data_real"]) and "truth_imaginary" in again


def test_a_recipe_that_json_cannot_hold_says_so(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "import torch\nfrom sciml.core import GaussianNoise, Inverse, Matrix\n"
        "def problem(*, n=5):\n    data = torch.ones(1, 1, n, dtype=torch.float64)\n"
        "    return Inverse('own', Matrix(torch.eye(n, dtype=torch.float64)[None]), data, GaussianNoise(1.0))\n"
    )
    problem = sciml.problem(str(own))
    value = torch.zeros(1, 1, 5, dtype=torch.float64)
    plain = json.loads(made(problem, value).to_xarray().attrs["recipe"])
    assert plain["complete"] is True
    posed = made(problem.with_prior(TotalVariation(), weight=2.0), value)
    told = json.loads(posed.to_xarray().attrs["recipe"])
    assert told["complete"] is False and "TotalVariation" in json.dumps(told["changes"])
    assert not Recipe.from_json(posed.to_xarray().attrs["recipe"]).complete


def test_units_of_length_go_into_the_file(tmp_path: Path) -> None:
    """A scan on pixels in millimetres: positions in mm, the image in one over that, the data without."""
    problem = scan(2)
    radon: Any = problem.forward
    marked = dataclasses.replace(radon, pixels=dataclasses.replace(radon.pixels, unit="mm"))
    in_mm = dataclasses.replace(problem, forward=marked)
    for found in (made(in_mm).to_xarray(), read(made(in_mm).save(tmp_path / "mm.nc"))):
        assert {found[name].attrs["units"] for name in ("x", "y", "position")} == {"mm"}
        assert {found[name].attrs["units"] for name in ("reconstruction", "truth")} == {"mm-1"}
        assert found["data"].attrs["units"] == "1" and found["angle"].attrs["units"] == "rad"
    plain = made(problem).to_xarray()  # where nobody said, nothing is said
    assert {plain[name].attrs["units"] for name in ("x", "position", "reconstruction")} == {"1"}
    with pytest.raises(InputError, match="unit is ''"):
        Pixels((4, 4), unit="")


def test_ct_takes_the_unit_of_its_data_set() -> None:
    views, bins = 6, 11
    data = xarray.Dataset(
        {"sinogram": (("view", "bin"), np.random.default_rng(0).normal(1.0, 0.1, (views, bins)))},
        {
            "angle": ("view", np.linspace(0, 3, views), {"units": "rad"}),
            "position": ("bin", np.arange(bins) - 5.0, {"units": "um"}),
        },
    )
    problem = sciml.problem("ct", data=data)
    assert problem.forward.pixels.unit == "um" and problem.forward.unit == "um-1"
    del data["position"].attrs["units"]
    assert sciml.problem("ct", data=data).forward.unit == "1"
