"""The catalogue's inverse Darcy problem: how its data are made, that the medium is found, what measured data need."""

from __future__ import annotations

import pytest
import torch

import sciml
from sciml import checks
from sciml.domains import Dirichlet, InputError, Neumann
from sciml.forward import ParameterToState, PointValues
from sciml.solvers import ConjugateGradient, Direct, GaussNewton


def test_data_come_from_a_finer_grid() -> None:
    """Without noise to speak of, the truth misses them by the discretisation error of the coarse grid, and by no more."""
    gaps = []
    for n in (15, 31):
        posed = sciml.problem("inverse_darcy", n=n, noise=1e-9, sensors=20, seed=3)
        gap = (posed.forward(posed.truth) - posed.data).abs().max() / posed.data.max()
        gaps.append(float(gap))
    assert 1e-4 < gaps[1] < gaps[0] < 0.1  # zero would be the inverse crime
    assert gaps[0] / gaps[1] > 2.5  # second order, at random points


def test_the_noise_is_one_percent() -> None:
    posed = sciml.problem("inverse_darcy", n=15, sensors=200)
    quiet = sciml.problem("inverse_darcy", n=15, sensors=200, noise=1e-12)
    rest = (posed.data - quiet.data) / posed.noise.sigma
    assert abs(float(rest.std()) - 1) < 0.2  # 200 normal numbers: deviation 0.05
    assert posed.noise.sigma == pytest.approx(0.01 * float(quiet.data.max()), rel=1e-6)


def test_members_depend_on_seed_and_number_alone() -> None:
    batch = sciml.problem("inverse_darcy", n=9, batch=3, seed=1)
    more = sciml.problem("inverse_darcy", n=9, batch=4, seed=1)
    alone = sciml.problem("inverse_darcy", n=9, seed=1)
    assert torch.equal(batch.data, more.data[:3])
    assert torch.equal(batch.data[:1], alone.data)
    assert torch.equal(batch.forward.observe.points, alone.forward.observe.points)
    assert not torch.equal(batch.truth[0], batch.truth[1])
    torch.testing.assert_close(batch.forward(batch.truth)[1:2], alone.forward(batch.truth[1:2]), rtol=0, atol=1e-12)


def test_the_forward_model_keeps_its_promises() -> None:
    posed = sciml.problem("inverse_darcy", n=9, sensors=7)
    assert checks.derivative(posed.forward, 0.5 * posed.truth)
    assert checks.adjoint(posed.forward.linearise(posed.truth))
    assert isinstance(posed.forward.solver, Direct)
    assert isinstance(sciml.problem("inverse_darcy", dim=3, n=5).forward.solver, ConjugateGradient)


def test_the_medium_is_found() -> None:
    """The recommended solver fits the data as well as the noise allows and finds most of the medium."""
    posed = sciml.problem("inverse_darcy", n=9)
    solution = sciml.solve(posed)
    assert solution.ok, str(solution)
    error = float((solution.value - posed.truth).norm() / posed.truth.norm())
    assert error < 0.6  # knowing nothing: 1
    stiff = sciml.solve(posed.with_weight(1e6), GaussNewton())
    assert float((stiff.value - posed.truth).norm() / posed.truth.norm()) > 1.2 * error


def test_other_sides_and_measured_data() -> None:
    sides = {"x": (Dirichlet(1.0), Neumann(0.0)), "y": Neumann(0.0)}
    made = sciml.problem("inverse_darcy", n=(9, 12), extent=(1.0, 1.3), sensors=12, sides=sides, source=0.5)
    points, sigma = made.forward.observe.points, made.noise.sigma
    again = sciml.problem(
        "inverse_darcy",
        n=(9, 12),
        extent=(1.0, 1.3),
        sides=sides,
        source=0.5,
        data=made.data[0, 0],
        points=points,
        sigma=sigma,
    )
    assert again.truth is None
    arrays = {"data": made.data[0, 0].numpy(), "points": points.numpy(), "sigma": sigma}
    same = sciml.problem("inverse_darcy", n=(9, 12), extent=(1.0, 1.3), sides=sides, source=0.5, **arrays)
    assert torch.equal(same.data, again.data)
    torch.testing.assert_close(again.misfit(made.truth), made.misfit(made.truth))
    # Values on the side count: a well beside it sees the pressure of one.
    flow = again.forward
    beside = ParameterToState(
        flow.problem, "coefficient", solver=flow.solver, observe=torch.tensor([[0.0, 0.5]]).double()
    )
    assert float(beside(torch.ones(1, 1, 9, 12, dtype=torch.float64))) == pytest.approx(1.0)
    assert isinstance(beside.observe, PointValues)


def test_bad_settings_are_named() -> None:
    with pytest.raises(InputError, match="need points="):
        sciml.problem("inverse_darcy", data=torch.zeros(3, dtype=torch.float64))
    with pytest.raises(InputError, match="sigma= is the noise of measured data="):
        sciml.problem("inverse_darcy", n=9, sigma=0.1)
    with pytest.raises(InputError, match="data is complex"):
        sciml.problem("inverse_darcy", n=9, data=[1j], points=[[0.5, 0.5]], sigma=0.1)
    with pytest.raises(InputError, match="noise 0"):
        sciml.problem("inverse_darcy", n=9, noise=0.0)
    with pytest.raises(InputError, match="outside the box"):
        sciml.problem("inverse_darcy", n=9, points=torch.tensor([[2.0, 0.5]]).double())
