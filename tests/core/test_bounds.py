"""What a modulus of convexity tells of an objective: never less than what is left to gain, and much less than a reach does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciml import Inverse
from sciml.core import GaussianNoise
from sciml.core.bounds import slack
from sciml.core.matrix import Matrix
from sciml.domains import GaussianField, InputError, Pixels
from sciml.forward import Fourier
from sciml.priors import Gaussian, Smoothness

GENERATOR = torch.Generator().manual_seed(0)


def posed(prior: object, weight: float = 3.0) -> Inverse:
    """Fewer data than unknowns."""
    matrix = Matrix(torch.randn(1, 9, 14, generator=GENERATOR, dtype=torch.float64))
    truth = torch.linspace(0, 1, 14, dtype=torch.float64).reshape(1, 1, 14)
    return Inverse("few data", matrix, matrix(truth), GaussianNoise(0.1), prior, weight)


def least(problem: Inverse, modulus: float) -> Tensor:
    """The minimiser, by a dense solve."""
    a = problem.forward.dense()[0] / 0.1
    normal = a.T @ a + 3.0 * modulus * torch.eye(14, dtype=torch.float64)
    return torch.linalg.solve(normal, a.T @ (problem.data.flatten() / 0.1)).reshape(1, 1, 14)


@pytest.mark.parametrize("away", [1e-6, 1e-3, 1.0])
def test_bounds_what_is_left(away: float) -> None:
    problem = posed(Smoothness(0))
    best = least(problem, 1.0)
    x = best + away * torch.randn(best.shape, generator=GENERATOR, dtype=torch.float64)
    weight = torch.tensor([3.0], dtype=torch.float64)
    value, gradient = problem.fidelity(x)
    total = gradient + 3.0 * problem.prior.gradient(x)
    left = problem.objective(x, weight) - problem.objective(best, weight)
    bound = slack(problem, total.norm().reshape(1), x, weight, problem.radius)
    assert float(left) <= float(bound) * (1 + 1e-9) + 1e-12
    twice = 2.0 * problem.prior.modulus  # a modulus that the prior does not have is no bound
    flat = torch.linalg.eigh(problem.forward.dense()[0].T @ problem.forward.dense()[0])[1][:, 0].reshape(1, 1, 14)
    y = best + away * flat
    slope = (problem.fidelity(y)[1] + 3.0 * problem.prior.gradient(y)).norm().reshape(1)
    gain = float(problem.objective(y, weight) - problem.objective(best, weight))
    assert gain <= float(slack(problem, slope, y, weight, problem.radius)) * (1 + 1e-6) + 1e-12
    assert gain > float(slope.square() / (2 * 3.0 * twice))


def test_moduli_are_the_least_curvatures() -> None:
    space = Pixels((5, 4), extent=(1.0, 0.8)).space()
    flat = Smoothness(0).on(space)
    x = torch.randn(1, 1, 5, 4, generator=GENERATOR, dtype=torch.float64)
    assert float((flat.gradient(x) - flat.modulus * x).abs().max()) < 1e-14
    assert Smoothness(1).on(space).modulus == 0
    drawn = Gaussian(GaussianField(mean_mode=True)).on(space)
    curved = drawn.curvature(x).dense()[0]
    assert drawn.modulus == pytest.approx(float(torch.linalg.eigvalsh(curved)[0]), rel=1e-9)


def test_hidden_data_are_zero_and_the_reach_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = posed(Smoothness(0)).forward
    seen = torch.arange(9).reshape(1, 1, 9) % 3 > 0
    data = torch.where(seen, 1.0, torch.nan).double()
    problem = Inverse("hidden", matrix, data, GaussianNoise(0.1, measured=seen), Smoothness(), 1.0)
    assert torch.equal(problem.data, torch.where(seen, 1.0, 0.0).double())
    x = torch.ones(1, 1, 14, dtype=torch.float64)
    reach = problem.radius(x)
    monkeypatch.setattr(Inverse, "_afar", lambda *_: pytest.fail("the reach was sought again"))
    assert torch.equal(problem.with_weight(2.0).radius(x), reach)


def test_data_of_the_other_kind_are_refused() -> None:
    fourier = Fourier(Pixels((6, 5)))
    good = fourier(torch.ones(1, 1, 6, 5, dtype=torch.complex128))
    assert Inverse("k-space", fourier, good, GaussianNoise(0.1)).batch == 1
    with pytest.raises(InputError, match="the data are real and Fourier makes complex ones"):
        Inverse("k-space", fourier, good.real, GaussianNoise(0.1))
    with pytest.raises(InputError, match="the data are complex and Matrix makes real ones"):
        Inverse(
            "few data", posed(Smoothness(0)).forward, torch.ones(1, 1, 9, dtype=torch.complex128), GaussianNoise(0.1)
        )
