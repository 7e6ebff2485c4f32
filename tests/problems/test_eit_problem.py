"""The catalogue's impedance tomography: simulated bodies are found, measured tanks are read, and what is refused."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sciml
from sciml.core import Code
from sciml.domains import InputError
from sciml.metrics import ktc_score
from sciml.priors import Smoothness, Wavelet
from sciml.show.comparison import quality_facts
from sciml.solvers import Discrepancy, GaussNewton, PrimalDualNewton

SMALL: dict[str, Any] = {"electrodes": 8, "nodes": 150}
REAL = Path(os.environ.get("SCIML_REAL_DATA", "no such folder")) / "eit_ktc2023"


def test_a_body_is_found() -> None:
    posed = sciml.problem("eit", seed=1, **SMALL)
    assert posed.data.shape == (1, 1, 8, 7) and posed.unknown == "log conductivity"
    found = sciml.solve(posed)
    assert found.code == Code.CONVERGED
    truth = posed.truth.norm()
    assert float((found.value - posed.truth).norm()) < 0.8 * float(truth)  # zero has 1
    # Not the data of the coarse mesh: the truth misses them by more than noise.
    assert float(posed.misfit(posed.truth)) > 1.5


def test_members_depend_on_seed_and_number_alone() -> None:
    batch = sciml.problem("eit", batch=2, seed=1, **SMALL)
    alone = sciml.problem("eit", seed=1, **SMALL)
    other = sciml.problem("eit", seed=2, **SMALL)
    assert torch.allclose(batch.data[:1], alone.data, rtol=1e-12)
    assert not torch.allclose(batch.data[1:], alone.data) and not torch.allclose(other.data, alone.data)
    assert bool((batch.truth != 0).flatten(1).any(1).all())


def test_smooth_and_other_priors() -> None:
    posed = sciml.problem("eit", seed=1, **SMALL)
    smooth = posed.with_prior(Smoothness(), 1.0)
    found = sciml.solve(smooth)
    assert isinstance(found.solver, GaussNewton) and found.ok
    assert isinstance(smooth.with_prior(Smoothness()).recommend(smooth.with_prior(Smoothness())), Discrepancy)
    with pytest.raises(InputError, match="live on a mesh"):
        posed.with_prior(Wavelet())


def test_a_picture_and_a_file(tmp_path: Path) -> None:
    import xarray

    found = sciml.solve(sciml.problem("eit", seed=1, **SMALL), PrimalDualNewton())
    found.plot(tmp_path / "body.png")
    assert (tmp_path / "body.png").stat().st_size > 10_000
    facts = quality_facts(found)
    assert "PSNR" in facts and "SSIM" not in facts  # nodes have no windows of neighbours
    found.save(tmp_path / "body.nc")
    with xarray.open_dataset(tmp_path / "body.nc") as file:
        assert file["log conductivity"].dims == ("sample", "node") and file["corner"].dims == ("triangle", "vertex")
        assert file["data"].dims == ("sample", "injection", "measurement")
        assert np.allclose(file["truth"].values, found.problem.truth[:, 0].numpy())


def tank(**changes: Any) -> Any:
    """A simulated measurement in the form that readers give, on a tank of radius 0.1 with an offset per channel."""
    import xarray

    from sciml.domains import disc
    from sciml.forward import CompleteElectrodes, Impedance, Spread, adjacent

    settings = {"contrast": 1.0, "units": "mA", "missing": 0, **changes}
    mesh = disc(0.1, nodes=600, electrodes=8, first=0.3, edge=0.1)
    currents, patterns = adjacent(8), adjacent(8)[:, :-1]
    forward = Impedance(mesh, CompleteElectrodes(0.002), currents, patterns, image=Spread(mesh, mesh.elements.space()))
    x, y = mesh.elements.points()
    sigma = torch.where((x - 0.04).square() + y.square() < 0.0006, settings["contrast"], 1.0).to(torch.float64) * 0.5
    v = forward(sigma.reshape(1, 1, -1))[0, 0] + 0.02 * torch.linspace(-1, 1, 7, dtype=torch.float64)
    v = v.numpy().copy()
    v.reshape(-1)[: settings["missing"]] = np.nan
    scale = {"mA": 1.0, "A": 1e-3}.get(settings["units"], 1.0)
    return xarray.Dataset(
        {
            "voltage": (("injection", "measurement"), v),
            "current_pattern": (("injection", "electrode"), scale * currents.T.numpy(), {"units": settings["units"]}),
            "voltage_pattern": (("measurement", "electrode"), patterns.T.numpy()),
        }
    )


PLACED: dict[str, Any] = {"radius": 0.1, "first": 0.3, "nodes": 150}


def test_a_reference_calibrates_background_and_contact() -> None:
    posed = sciml.problem("eit", data=tank(contrast=4.0), reference=tank(), **PLACED)
    assert float(posed.forward.chart.reference) == pytest.approx(0.5, rel=0.02)
    assert (
        0.001 < float(posed.forward.electrodes.contact) < 0.004
    )  # a tenth of the resistance of an electrode: seen badly
    found = sciml.solve(posed)
    x, y = posed.space.domain.points()
    inside = (x - 0.04).square() + y.square() < 0.0004
    assert float(found.value[0, 0, inside].mean()) > 0.5 > 5 * float(found.value[0, 0, x < 0].abs().mean())
    amperes = sciml.problem("eit", data=tank(contrast=4.0, units="A"), reference=tank(), **PLACED)
    assert torch.allclose(amperes.data, posed.data)


def test_axes_and_electrodes_are_found_by_name() -> None:
    """The same measurement with its axes in another order and its electrodes' angles in the file, which are checked."""
    angle = 0.3 + 2 * math.pi * np.arange(8) / 8
    turned = tank(contrast=4.0).transpose().assign_attrs(radius=0.1)

    def placed(angles: Any, **names: str) -> Any:
        data = turned.assign_coords(electrode_angle=("electrode", angles)).rename(names)
        return sciml.problem("eit", data=data, reference=tank(), nodes=150)

    posed = sciml.problem("eit", data=tank(contrast=4.0), reference=tank(), **PLACED)
    torch.testing.assert_close(placed(np.mod(angle, 2 * math.pi)).data, posed.data)
    with pytest.raises(InputError, match="eit needs measurement and electrode"):
        placed(angle, measurement="channel")
    with pytest.raises(InputError, match="clockwise"):
        placed(-angle)
    for wrong in (angle + 0.2 * (np.arange(8) == 5), np.rad2deg(angle), np.where(np.arange(8) == 3, np.nan, angle)):
        with pytest.raises(InputError, match="not spaced evenly"):
            placed(wrong)


def test_missing_voltages_are_left_out() -> None:
    posed = sciml.problem("eit", data=tank(contrast=4.0, missing=9), reference=tank(missing=3), **PLACED)
    assert int(posed.noise.dof(posed.data)) == 56 - 9
    assert bool(torch.isfinite(posed.data).all())
    assert sciml.solve(posed).ok


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no reference": ({"data": "here"}, "reference="),
    "noise": ({"noise": -1.0}, "noise is -1"),
    "weight": ({"weight": 0.0}, "weight is 0"),
    "few electrodes": ({"electrodes": 2}, "electrodes is 2"),
    "part of an electrode": ({"electrodes": 16.5}, "electrodes is 16.5; give a whole number"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_one_sentence(name: str) -> None:
    settings, sentence = BAD[name]
    with pytest.raises(InputError, match=sentence):
        sciml.problem("eit", **settings)


def test_bad_measurements_are_one_sentence() -> None:
    def made(data: Any, reference: Any, **settings: Any) -> None:
        sciml.problem("eit", data=data, reference=reference, **settings)

    good = tank()
    with pytest.raises(InputError, match="radius= of the tank"):
        made(good, good)
    with pytest.raises(InputError, match="other currents"):
        made(good.assign(current_pattern=2 * good["current_pattern"]), good, **PLACED)
    with pytest.raises(InputError, match="no voltage_pattern"):
        made(good.drop_vars("voltage_pattern"), good, **PLACED)
    with pytest.raises(InputError, match="'pounds'"):
        made(tank(units="pounds"), good, **PLACED)
    with pytest.raises(InputError, match="nothing is left"):
        made(tank(missing=56), good, **PLACED)
    with pytest.raises(InputError, match="wrong sign"):
        made(good, good.assign(voltage=-good["voltage"]), **PLACED)


@pytest.mark.skipif(not REAL.is_dir(), reason="SCIML_REAL_DATA has no eit_ktc2023")
def test_a_measured_tank_on_a_coarse_image() -> None:
    """One of the challenge's training targets; the target for both at full size is 0.78 on average."""
    from scipy.io import loadmat

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        posed = sciml.problem("eit", data=str(REAL / "data2.mat"), reference=str(REAL / "ref.mat"), nodes=400)
    found = sciml.solve(posed)
    assert found.ok
    truth = torch.as_tensor(loadmat(REAL / "true2.mat")["truth"])
    assert float(ktc_score(posed.forward.kinds(found.value)[0], truth)) > 0.7
    assert float(ktc_score(posed.forward.kinds(-found.value)[0], truth)) < 0.3  # kinds exchanged


@pytest.mark.skipif(not REAL.is_dir(), reason="SCIML_REAL_DATA has no eit_ktc2023")
def test_a_measurement_of_level_three_says_what_it_dropped() -> None:
    with pytest.warns(UserWarning, match="952 of 2356"):
        posed = sciml.problem("eit", data=str(REAL / "level3_data1.mat"), reference=str(REAL / "ref.mat"), nodes=200)
    assert int(posed.noise.dof(posed.data)) == 2356 - 952
