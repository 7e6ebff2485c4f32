"""Simulated and measured scans, and what is refused."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sciml
from sciml.domains import Ellipses, InputError, shepp_logan
from sciml.files.stripes import level, unstriped
from sciml.forward import Hann, Radon
from sciml.metrics import psnr
from sciml.priors import TotalVariation
from sciml.solvers import Discrepancy, FilteredBackprojection, PrimalDual
from tests.files import layouts


def scan(**settings: Any) -> Any:
    return sciml.problem("ct", **{"n": 48, "views": 24, **settings})


def test_the_scan_is_that_of_the_phantom() -> None:
    problem = scan(noise=1e-6)
    angles = problem.forward.angles
    exact = shepp_logan().line_integrals(angles, problem.forward.positions)
    assert (problem.data - exact).abs().max() < 1e-5 * exact.abs().max()
    assert (problem.data - exact.flip(-1)).abs().max() > 0.1 * exact.abs().max()  # the broken twin
    own = problem.forward(problem.truth)
    assert (own - exact).norm() < 0.1 * exact.norm()  # 48 pixels across: the skull is one pixel thin


def test_noise_is_a_share_of_the_mean() -> None:
    problem, clean = scan(seed=1), scan(noise=1e-9)
    expected = 0.05 * float(clean.data.abs().mean())
    assert problem.noise.sigma == pytest.approx(expected, rel=1e-6)
    assert float((problem.data - clean.data).std()) == pytest.approx(expected, rel=0.1)  # 24 x 68 numbers: 2 %


def test_members_are_random_ellipses() -> None:
    batch = scan(batch=3, seed=7)
    assert batch.batch == 3
    assert not torch.equal(batch.truth[0], batch.truth[1])
    crime = scan(batch=3, seed=7, finer=1)
    assert float((crime.misfit(crime.truth) - 1).abs().max()) < 0.15  # 24 x 68 numbers: 4 sigma
    assert (batch.misfit(batch.truth) > crime.misfit(crime.truth)).all()
    inside = Ellipses(
        *(torch.tensor(v, dtype=torch.float64) for v in ([[[0.1, 0.2]]], [[[0.3, 0.2]]], [[0.4]], [[1.0]]))
    )
    one = scan(phantom=inside, noise=1e-9)
    torch.testing.assert_close(
        one.data, inside.line_integrals(one.forward.angles, one.forward.positions), rtol=0, atol=1e-7
    )


def test_views_are_picked() -> None:
    whole, some = scan(), scan(every=5, first=2)
    assert torch.equal(some.forward.angles, whole.forward.angles[2::5])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "discs.h5"
    layouts.data_exchange(path, views=90, bins=100)
    return path


def test_a_measured_scan(file: Path) -> None:
    """The axis is six bins off the middle: taken for the middle the image would be useless."""
    problem = sciml.problem("ct", data=file)
    assert problem.forward.centre == pytest.approx(-6.3, abs=0.1)
    assert problem.data.shape == (1, 1, 90, 100)
    formula = problem.forward.backproject_filtered(problem.data, Hann())
    chi = float(problem.misfit(formula))
    wrong = Radon(problem.forward.pixels, problem.forward.angles, bins=100, pitch=1.0)
    off = wrong.backproject_filtered(problem.data, Hann())
    assert float(problem.noise.chi_square(wrong(off), problem.data) / problem.noise.dof(problem.data)) > 2 * chi
    assert torch.equal(problem.data, sciml.problem("ct", data=sciml.open_dataset(file)).data)
    few = sciml.problem("ct", data=file, every=3, n=50, slice=1)
    assert few.data.shape == (1, 1, 30, 100)
    assert few.space.shape == (1, 50, 50)


def test_total_variation_beats_the_formula_from_few_views() -> None:
    problem = scan(seed=2)
    formula = sciml_solve(problem.with_prior(None), FilteredBackprojection(Hann(0.5)))
    flat = sciml.solve(problem.with_prior(TotalVariation()), Discrepancy(PrimalDual()))
    assert flat.ok
    assert not formula.ok
    assert float(psnr(flat.value, problem.truth)) > float(psnr(formula.value, problem.truth)) + 2


def sciml_solve(problem: Any, solver: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sciml.solve(problem, solver)


def test_drift_and_stripes() -> None:
    generator = np.random.default_rng(0)
    discs = Ellipses(
        torch.tensor([[[0.2, 0.1], [-0.25, 0.2]]], dtype=torch.float64),
        torch.tensor([[[0.15, 0.2], [0.1, 0.1]]], dtype=torch.float64),
        torch.zeros(1, 2, dtype=torch.float64),
        torch.ones(1, 2, dtype=torch.float64),
    )
    angles, bins = (
        torch.linspace(0, math.pi, 81, dtype=torch.float64)[:-1],
        torch.linspace(-0.8, 0.8, 120, dtype=torch.float64),
    )
    clean = discs.line_integrals(angles, bins)[0, 0].numpy()
    drift = 0.03 * np.sin(np.arange(80) / 9)[:, None] * np.linspace(1, 2, 120)
    stripes = 0.02 * generator.standard_normal(120)
    assert np.abs(level(clean + drift) - clean).max() < 1e-3 * np.abs(clean).max()
    left = unstriped(clean + stripes) - clean
    spread = np.std(left.mean(0) - np.median(left.mean(0)))
    assert spread < 0.6 * stripes.std()  # edges that turn round stay a while at one bin
    assert np.std((unstriped(clean) - clean).mean(0)) < 0.2 * stripes.std()
    assert np.array_equal(unstriped(clean[:10]), clean[:10])
    wide = clean + 1.0  # an object that fills the detector has no air
    assert np.array_equal(level(wide), wide)


def test_dead_bins_at_the_edge_destroy_nothing() -> None:
    angles = torch.linspace(0, math.pi, 41, dtype=torch.float64)[:-1]
    disc = Ellipses(*(torch.tensor(t, dtype=torch.float64) for t in ([[[0.1, 0.0]]], [[[0.3, 0.2]]], [[0.3]], [[1.0]])))
    clean = disc.line_integrals(angles, torch.linspace(-1, 1, 100, dtype=torch.float64))[0, 0].numpy()
    drift = 0.03 * np.sin(np.arange(40) / 9)[:, None] * np.linspace(1, 2, 100)
    dead = np.zeros(clean.shape, bool)
    dead[:, :6], dead[:, 97:], dead[3, 6:9], dead[5], dead[7, 6:20] = True, True, True, True, True
    found = np.where(dead, np.nan, clean + drift)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flat, even = level(found), unstriped(found)
        assert np.isnan(unstriped(level(np.full((20, 30), np.nan)))).all()
    assert np.array_equal(np.isnan(flat), dead) and np.array_equal(np.isnan(even), dead)
    error = np.where(dead, 0.0, flat - clean)
    assert np.abs(np.delete(error, 7, 0)).max() < 1e-12  # a straight drift goes to rounding
    assert np.array_equal(flat[7][~dead[7]], found[7][~dead[7]])  # no air at one end: left as it is


def table(scan: Any, **changes: Any) -> Any:
    """The data set of a simulated scan, as a reader gives it."""
    import xarray

    variables = {"sinogram": (("view", "bin"), scan.data[0, 0].numpy())}
    variables["variance"] = (("view", "bin"), np.full(scan.data.shape[2:], float(scan.noise.sigma) ** 2))
    coordinates = {"angle": ("view", scan.forward.angles.numpy()), "position": ("bin", scan.forward.positions.numpy())}
    return xarray.Dataset(variables, coords=coordinates, attrs={"geometry": "parallel", **changes})


def test_the_order_of_bins_and_axes_does_not_matter() -> None:
    found = table(scan(n=24))
    plain = sciml.problem("ct", data=found)
    for other in (found.isel(bin=slice(None, None, -1)), found.transpose("bin", "view")):
        same = sciml.problem("ct", data=other)
        assert torch.equal(same.data, plain.data) and same.forward.centre == pytest.approx(plain.forward.centre)


def test_positions_that_count_from_the_end_of_the_detector_are_told() -> None:
    found = table(scan(n=24))
    first = float(found["position"][0])
    moved = found.assign_coords(position=("bin", found["position"].values - first))
    with pytest.warns(UserWarning, match="position 0, lies at the edge of the detector.*data.attrs"):
        sciml.problem("ct", data=moved, correct=False)
    plain = sciml.problem("ct", data=found, correct=False)
    told = sciml.problem("ct", data=moved.assign_attrs(centre=-first), correct=False)  # without a word
    assert told.forward.centre == pytest.approx(plain.forward.centre, abs=1e-12)


def test_a_mask_is_heeded_by_the_corrections() -> None:
    found = table(scan(n=24))
    dead = np.zeros(found["sinogram"].shape, bool)
    dead[:, :5] = True
    masked = found.assign(sinogram=(("view", "bin"), np.where(dead, 50.0, found["sinogram"].values)))
    masked["measured"] = (("view", "bin"), ~dead)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem = sciml.problem("ct", data=masked)
    problem.validate()
    clean = sciml.problem("ct", data=found, correct=False)
    assert float((problem.data - clean.data)[..., 5:].abs().max()) < 0.5 * float(clean.data.abs().max())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d.isel(bin=slice(9, 10)), "single bin"),
        (lambda d: d.isel(bin=[0, 2, 1, 3]), "neither increase nor decrease"),
        (lambda d: d.isel(bin=[0, 1, 2, 3, 4, 7, 8, 9]), "not spaced evenly"),
        (lambda d: d.rename(view="projection"), "sinogram has the axes projection, bin"),
    ],
)
def test_scans_without_a_detector(change: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        sciml.problem("ct", data=change(table(scan(n=24))))


def test_a_batch_needs_no_seed_and_takes_no_data() -> None:
    assert scan(n=16, batch=3).batch == 3
    with pytest.raises(InputError, match="not drawn"):
        sciml.problem("ct", data=table(scan(n=24)), batch=2)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"views": 0}, "views is 0"),
        ({"noise": 0.0}, "noise 0.0"),
        ({"noise": math.nan}, "noise nan"),
        ({"every": 0}, "every is 0"),
        ({"first": 99}, "first is 99"),
        ({"finer": 0}, "finer is 0"),
        ({"data": torch.zeros(3, 4)}, "from bare tensors"),
        ({"data": "nowhere.h5"}, "nowhere.h5"),
        ({"viewz": 3}, "did you mean 'views'"),
    ],
)
def test_settings_that_make_no_scan(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        scan(**settings)


def test_a_fan_is_refused_in_a_sentence(tmp_path: Path) -> None:
    layouts.helsinki_five(tmp_path / "fan.mat")
    with pytest.raises(InputError, match="fan beam, and ct reconstructs parallel beams only"):
        sciml.problem("ct", data=tmp_path / "fan.mat")


def test_a_slice_beyond_the_scan(file: Path) -> None:
    with pytest.raises(InputError, match="the scan has 2 slices"):
        sciml.problem("ct", data=file, slice=2)


def test_nan_is_named_or_masked() -> None:
    """View and bin are told; a mask leaves them out."""
    problem = scan()
    data = problem.data.clone()
    data[0, 0, 4, 17] = math.nan
    with pytest.raises(InputError, match="view 4, bin 17"):
        sciml.solve(sciml.Inverse("nan", problem.forward, data, problem.noise, TotalVariation(), 1.0), PrimalDual())
    masked = sciml.GaussianNoise(problem.noise.sigma, measured=torch.isfinite(data))
    whole = sciml.Inverse("masked", problem.forward, data, masked, TotalVariation())
    assert float(whole.noise.dof(whole.data)) == data.numel() - 1
    assert sciml.solve(whole, Discrepancy(PrimalDual())).ok


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_a_sigma_that_is_no_noise(sigma: float) -> None:
    problem = scan()
    with pytest.raises(InputError, match="sigma"):
        sciml.solve(
            sciml.Inverse("x", problem.forward, problem.data, sciml.GaussianNoise(sigma), TotalVariation(), 1.0),
            PrimalDual(),
        )


def test_an_unknown_sigma_is_asked_for_and_can_be_estimated() -> None:
    problem = scan()
    unknown = sciml.GaussianNoise(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="estimate"):
        sciml.solve(sciml.Inverse("x", problem.forward, problem.data, unknown, TotalVariation(), 1.0), PrimalDual())
    found = sciml.GaussianNoise.estimate(problem.data)
    assert float(found.sigma) == pytest.approx(problem.noise.sigma, rel=0.4)  # edges one bin wide raise it


def test_angles_in_degrees_and_a_detector_beside_the_object() -> None:
    pixels = scan().forward.pixels
    with pytest.warns(UserWarning, match="degrees"):
        Radon(pixels, torch.arange(0.0, 180.0, 6.0))
    with pytest.raises(InputError, match="never on it"):
        Radon(pixels, torch.linspace(0, 3, 10), bins=20, pitch=0.05, centre=9.0)
    with pytest.raises(InputError, match="bins"):
        Radon(pixels, torch.linspace(0, 3, 10), bins=0)
