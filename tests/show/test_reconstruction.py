"""Pictures of inverse problems: scales that can be compared, axes that say where, residuals in units of the noise."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reconstructions import (
    Identity,
    at_points,
    backprojected,
    blurred,
    discs,
    made,
    scan,
    seeded,
    total_variation,
)
from test_plot import ink, steady
from test_report import outside, pictures

from sciml.core import GaussianNoise, Inverse
from sciml.domains import InputError, Pixels, Space
from sciml.forward.radon import Radon
from sciml.show import compare, plot, reconstructions, report


def panel(figure: Any, begins: str) -> Any:
    found = [axes for axes in figure.axes if axes.get_title(loc="left").startswith(begins)]
    assert found, [axes.get_title(loc="left") for axes in figure.axes]
    return found[0]


def shown(axes: Any) -> np.ndarray[Any, Any]:
    """The numbers of an image, NaN where it is masked."""
    array = axes.images[0].get_array()
    return np.ma.filled(array.astype(float), np.nan) if np.ma.isMaskedArray(array) else np.asarray(array)


CASES = {
    "scan": scan, "line": lambda: blurred(1), "image": lambda: blurred(2), "block": lambda: blurred(3),
    "points on a line": lambda: at_points(1), "points in the plane": lambda: at_points(2), "points in space": lambda: at_points(3),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_kind_is_drawn(case: str) -> None:
    problem = CASES[case]()
    figure = plot(made(problem))
    for begins in ("truth", "reconstruction, PSNR", "error", "data", "residual / sigma, chi^2/dof", "history"):
        panel(figure, begins)
    assert ink(figure) > 0.02
    blind = plot(made(dataclasses.replace(problem, truth=None), problem.truth))
    titles = [axes.get_title(loc="left") for axes in blind.axes]
    assert not any(title.startswith(("truth", "error")) or "PSNR" in title for title in titles)
    assert blind.axes
    assert compare([made(problem), made(problem)]).axes


def test_truth_and_reconstruction_share_a_scale_and_the_error_is_symmetric() -> None:
    solution = made(scan())
    solution.value[0, 0, 3, 4] = 1e3  # one wild pixel spoils no scale
    figure = plot(solution)
    truth, found, error = (panel(figure, name).images[0] for name in ("truth", "reconstruction", "error"))
    assert truth.get_clim() == found.get_clim() and -0.1 < truth.get_clim()[0] <= 0 and truth.get_clim()[1] < 2.1
    low, high = error.get_clim()
    assert low == -high and 0 < high < 2
    assert truth.get_clim() != error.get_clim()  # scales can differ
    assert error.get_cmap().name == "RdBu_r" and truth.get_cmap().name == "gray"


def test_x_runs_to_the_right_and_y_upwards_in_physical_units() -> None:
    solution = made(scan())
    axes = panel(plot(solution), "reconstruction")
    value = solution.value[0, 0].numpy()
    assert np.array_equal(shown(axes), value.T)
    assert not np.array_equal(shown(axes), value[:, ::-1].T)  # the comparison can fail
    assert axes.images[0].origin == "lower"
    assert axes.images[0].get_extent() == pytest.approx((-1.0, 1.0, -1.3, 1.3))  # the box, not the centres
    assert axes.get_aspect() == 1.0
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")


def test_the_sinogram_has_degrees_and_positions() -> None:
    problem = scan(views=15)
    axes = panel(plot(made(problem)), "data")
    assert np.array_equal(shown(axes), problem.data[0, 0].numpy().T)
    radon: Any = problem.forward
    places = radon.positions
    step = float(places[1] - places[0]) / 2
    box = (-6.0, 174.0, float(places[0]) - step, float(places[-1]) + step)  # 15 views, 12 degrees each
    assert axes.images[0].get_extent() == pytest.approx(box)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("angle (degrees)", "detector position")


def test_axes_and_colour_bars_name_their_units() -> None:
    problem = scan(views=15)
    radon: Any = problem.forward
    marked = dataclasses.replace(radon, pixels=dataclasses.replace(radon.pixels, unit="mm"))
    figure = plot(made(dataclasses.replace(problem, forward=marked)))
    image = panel(figure, "truth")
    assert (image.get_xlabel(), image.get_ylabel()) == ("x (mm)", "y (mm)")
    assert panel(figure, "data").get_ylabel() == "detector position (mm)"
    assert [axes.get_xlabel() for axes in image.child_axes] == ["1/mm"]
    assert [axes.get_xlabel() for axes in panel(figure, "data").child_axes] == [""]
    bare = panel(plot(made(problem)), "truth")
    assert (bare.get_xlabel(), [axes.get_xlabel() for axes in bare.child_axes]) == ("x", [""])


@pytest.mark.parametrize("order", ["falling", "uneven", "unsorted"])
def test_other_orders_of_angles(order: str) -> None:
    pixels = Pixels((12, 9), (1.2, 0.9))
    angles = torch.tensor([0.0, 0.1, 0.3, 0.7, 1.5, 2.9], dtype=torch.float64)
    angles = {"falling": torch.linspace(3.0, 0.5, 6, dtype=torch.float64), "unsorted": angles.roll(2)}.get(
        order, angles
    )
    radon = Radon(pixels, angles)
    image = discs(pixels)
    problem = Inverse("ellipses", radon, radon(image), GaussianNoise(0.1), truth=image)
    axes = panel(plot(made(problem)), "data")
    values = problem.data[0, 0].numpy()
    if order == "falling":  # drawn from the smallest angle on
        assert np.array_equal(shown(axes), values[::-1].T)
        assert axes.images[0].get_extent()[0] == pytest.approx(math.degrees(0.25))
    elif order == "uneven":
        mesh = axes.collections[0]
        assert np.array_equal(np.asarray(mesh.get_array()).reshape(values.T.shape), values.T)
        assert mesh.get_coordinates()[0, :, 0][1] == pytest.approx(math.degrees(0.05))  # between the first two views
    else:
        assert np.array_equal(shown(axes), values.T) and axes.get_xlabel() == "view"


def test_the_residual_is_in_standard_deviations_and_what_was_not_measured_is_grey() -> None:
    problem = scan()
    sigma = torch.full_like(problem.data, 0.02)
    sigma[..., 7] = 0.5
    measured = torch.ones_like(problem.data, dtype=torch.bool)
    measured[0, 0, 4, 11] = False
    data = problem.data.clone()
    data[0, 0, 4, 11] = math.nan
    problem = dataclasses.replace(problem, data=data, noise=GaussianNoise(sigma, measured))
    solution = made(problem)
    figure = plot(solution)
    residual, drawn = shown(panel(figure, "residual")), shown(panel(figure, "data"))
    expected = ((problem.data - problem.forward(solution.value)) / sigma)[0, 0].numpy()
    expected[4, 11] = math.nan
    # Rounding of single operations on numbers of order 100.
    assert np.allclose(residual, expected.T, atol=1e-10, equal_nan=True)
    assert not np.allclose(residual, -expected.T, atol=1e-10, equal_nan=True)
    assert np.isnan(drawn[11, 4]) and np.isnan(drawn).sum() == 1
    assert panel(figure, "residual").images[0].get_clim() == (-4.0, 4.0)


def test_a_blurred_image_has_the_scale_of_the_image() -> None:
    problem = blurred(2)
    figure = plot(made(problem))
    assert panel(figure, "data").images[0].get_clim() == panel(figure, "truth").images[0].get_clim()
    bright = plot(made(dataclasses.replace(problem, data=100 * problem.data)))  # other units: a scale of its own
    assert panel(bright, "data").images[0].get_clim() != panel(bright, "truth").images[0].get_clim()


def test_of_a_block_the_middle_slice_is_drawn() -> None:
    problem = blurred(3)
    figure = plot(made(problem))
    axes = panel(figure, "truth")
    assert problem.truth is not None
    assert np.array_equal(shown(axes), problem.truth[0, 0, :, :, 5].numpy().T)
    assert "z = 0.55" in axes.get_title(loc="left") and "z = 0.55" in panel(figure, "data").get_title(loc="left")


def test_members_and_their_shared_data() -> None:
    solution = made(scan(batch=2))
    limits = [panel(plot(solution, member=i), "truth").images[0].get_clim()[1] for i in (0, 1)]
    assert limits[1] == pytest.approx(2 * limits[0], rel=0.05)  # members differ by a factor of two
    assert panel(plot(solution, member=-1), "truth").images[0].get_clim()[1] == limits[1]
    with pytest.raises(InputError, match="no member 2"):
        plot(solution, member=2)
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    from sciml.priors import TotalVariation

    many = scan().with_prior(TotalVariation(), weight=weights)  # one scan, three weights
    truth = many.truth
    assert truth is not None
    figure = plot(made(many, truth.expand(3, *truth.shape[1:]).clone()), member=2)
    assert "member 2 of 3" in figure.get_suptitle() and "optimality" in figure.get_suptitle()
    assert panel(figure, "history of optimality")


def test_complex_images_and_data_show_their_magnitude() -> None:
    pixels = Pixels((11, 14), (1.1, 1.4))
    space = Space(pixels, (1, 11, 14), complex=True, dtype=torch.complex128)
    seen = Space(None, (1, 11, 14), complex=True, dtype=torch.complex128)
    truth = torch.polar(discs(pixels), 3 * pixels.points()[0].expand(1, 1, 11, 14))
    noise = GaussianNoise(0.05)
    forward = Identity(space, seen)
    problem = Inverse("phases", forward, noise.sample(truth, generator=seeded()), noise, truth=truth)
    figure = plot(made(problem))
    assert np.allclose(shown(panel(figure, "|reconstruction")), made(problem).value.abs()[0, 0].numpy().T)
    assert panel(figure, "|error|").images[0].get_clim()[0] == 0.0
    assert panel(figure, "data") and ink(compare([made(problem)])) > 0.02


def test_a_comparison_has_one_scale(tmp_path: Path) -> None:
    problem = scan(views=9)
    solutions = [backprojected(problem), total_variation(problem)]
    figure = compare(solutions, tmp_path / "both.png", ["FBP", "TV <1>"])
    assert (tmp_path / "both.png").stat().st_size > 5000
    images = [panel(figure, name).images[0] for name in ("truth", "FBP", "TV <1>")]
    assert len({image.get_clim() for image in images}) == 1
    errors = [axes.images[0].get_clim() for axes in figure.axes if axes.get_title(loc="left") == "error"]
    assert len(errors) == 2 and errors[0] == errors[1] != images[0].get_clim()
    title = panel(figure, "FBP").get_title(loc="left")
    assert "UNCERTIFIED" in title and "chi^2/dof" in title and "dB" in title
    assert panel(compare(solutions), "Discrepancy(PrimalDual), TotalVariation")
    blind = dataclasses.replace(problem, truth=None)
    figure = compare([backprojected(blind), total_variation(blind)])
    assert sum(axes.get_title(loc="left") == "residual / sigma" for axes in figure.axes) == 2
    many = compare([made(problem)] * 6)
    assert sum(axes.get_title(loc="left").startswith("PrimalDual") for axes in many.axes) == 6


def test_bad_comparisons_are_sentences(tmp_path: Path) -> None:
    good = made(scan())
    with pytest.raises(InputError, match="no solutions"):
        compare([])
    with pytest.raises(InputError, match="'plate'; draw that with plot"):
        compare([good, steady(2)])
    with pytest.raises(InputError, match="solutions of inverse problems, not 3"):
        compare([3])  # type: ignore[list-item]
    with pytest.raises(InputError, match="have the shapes"):
        compare([good, made(blurred(2))])
    with pytest.raises(InputError, match="1 solutions and 2 names"):
        compare([good], names=["a", "b"])
    with pytest.raises(InputError, match="no member 1"):
        compare([good], member=1)
    with pytest.raises(InputError, match="ending"):
        compare([good], tmp_path / "a.txt")
    with pytest.raises(InputError, match="does not evolve"):
        plot(good, tmp_path / "u.gif")
    assert not list(tmp_path.iterdir())


def test_a_report_has_a_section_of_reconstructions(tmp_path: Path) -> None:
    problem = scan(views=9)
    solutions = [backprojected(problem), total_variation(problem)]
    section = reconstructions(solutions, ["FBP", "TV & <discrepancy>"], "A tooth")
    rows = section.rows()
    assert [row["code"] for row in rows] == [solution.code.name for solution in solutions]
    assert "weight" not in rows[0] and float(rows[1]["weight"]) == pytest.approx(
        float(solutions[1].weight[0]), rel=0.01
    )
    assert "optimality" in rows[1] and "misfit" in rows[0] and "chi^2/dof" in rows[0]
    assert float(rows[1]["PSNR (dB)"]) > float(rows[0]["PSNR (dB)"]) and 0 < float(rows[1]["SSIM"]) < 1
    for items in ([section, solutions[1]], section):
        page = report(items, tmp_path / "page.html").read_text()
        assert not outside(page)
        assert len(pictures(page)) == (3 if items is section else 4)
        assert "A tooth" in page and "TV &amp; &lt;discrepancy&gt;" in page and "PSNR" in page
    with pytest.raises(InputError, match="names"):
        reconstructions(solutions, ["one"])
    with pytest.raises(InputError, match="no solutions"):
        reconstructions([])
