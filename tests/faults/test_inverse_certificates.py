"""Images that look solved and are not: no certificate, whatever the solver thinks."""

from __future__ import annotations

import dataclasses
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import sciml
from sciml import GaussianNoise, Inverse, Periodic, Pixels, PoissonNoise, TransmissionNoise
from sciml.core import Matrix
from sciml.core.linear import ForwardModel
from sciml.domains import InputError
from sciml.forward import Convolution, gaussian_kernel
from sciml.priors import Smoothness, TotalVariation
from sciml.solvers import ADMM, GaussNewton, LeastSquares, PrimalDual, ProximalGradient

D = torch.float64


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quietly(problem: Any, solver: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sciml.solve(problem, solver)


@pytest.mark.parametrize("solver", [PrimalDual(max_steps=300), ProximalGradient(max_steps=100)])
def test_data_that_are_seen_weakly(solver: Any) -> None:
    """A grating that the blur takes to a ten-thousandth: the zero image has a tiny gradient and a huge objective."""
    blur = Convolution(Pixels((96,), (96.0,)), gaussian_kernel(4.0, (1.0,)), Periodic())
    truth = torch.sin(2 * torch.pi * torch.arange(96, dtype=D) / 6).reshape(1, 1, 96)
    noise = GaussianNoise(1e-6)
    problem = Inverse("grating", blur, noise.sample(blur(truth), generator=gen()), noise, TotalVariation(), weight=1.0)
    solution = quietly(problem, solver)
    least = float(problem.objective(truth))
    assert not solution.ok or float(problem.objective(solution.value)) <= 1.01 * least


def test_the_zero_image_of_an_ill_conditioned_model() -> None:
    matrix = Matrix(torch.diag(torch.tensor([1.0, 1e-4], dtype=D)))
    data = torch.tensor([[[0.0, 1.0]]], dtype=D)
    problem = Inverse("two", matrix, data, GaussianNoise(0.1), Smoothness(), weight=1e-12)
    assert not problem.certify(torch.zeros(1, 1, 2, dtype=D))[0].passed.any()
    solution = quietly(problem, GaussNewton())
    assert not solution.ok or float(problem.objective(solution.value)) < 1.0


def test_a_proximal_map_that_has_not_converged_is_no_witness() -> None:
    one = Convolution(Pixels((1500,), (1500.0,)), torch.ones(1, dtype=D))
    y = torch.linspace(-1, 1, 1500, dtype=D).reshape(1, 1, -1)
    problem = Inverse("flat", one, y, GaussianNoise(1.0), TotalVariation(), weight=1e4)
    unfinished = problem.prior.prox(y, 1e4)
    assert float(problem.objective(unfinished)) > 10 * float(problem.objective(torch.zeros_like(y)))
    assert not problem.certify(unfinished)[0].passed.any()


class Square(ForwardModel):
    """``x^2``: its derivative vanishes at zero."""

    space = codomain = Matrix(torch.eye(1, dtype=D)).space

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.square()

    def linearise(self, x: torch.Tensor) -> Any:
        return Matrix(torch.diag_embed(2 * x[:, 0]))


def test_where_the_model_does_not_move_nothing_is_certified() -> None:
    problem = Inverse(
        "root", Square(), torch.full((1, 1, 1), 4.0, dtype=D), GaussianNoise(0.1), Smoothness(), weight=1.0
    )
    assert not quietly(problem, GaussNewton()).ok
    found = sciml.solve(problem, GaussNewton(), start=torch.ones(1, 1, 1, dtype=D))
    assert found.ok
    assert float(found.value) == pytest.approx(2.0, abs=1e-3)


def counts() -> tuple[Matrix, torch.Tensor]:
    matrix = Matrix(torch.rand(20, 12, generator=gen(), dtype=D))
    truth = torch.ones(1, 1, 12, dtype=D)
    truth[..., 5:] = 3
    return matrix, truth


def test_counts_come_as_integers() -> None:
    matrix, truth = counts()
    y = PoissonNoise(5.0).sample(matrix(truth), generator=gen())
    whole = Inverse("counts", matrix, y.long(), PoissonNoise(5.0), TotalVariation(lower=0.0), weight=1.9)
    assert float(whole.weight) == 1.9  # type: ignore[arg-type]
    assert whole.data.dtype == D


@pytest.mark.parametrize("background", [0.0, 0.1])
def test_photons_without_background(background: float) -> None:
    matrix, truth = counts()
    noise = PoissonNoise(background)
    problem = Inverse(
        "photons",
        10.0 * matrix,
        noise.sample(10 * matrix(truth), generator=gen()),
        noise,
        TotalVariation(lower=0.0),
        0.5,
    )
    start = torch.full((1, 1, 12), 2.0, dtype=D)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solution = sciml.solve(problem, PrimalDual(max_steps=20000), start=start)
    assert solution.ok, str(solution)


def test_transmission_is_reconstructed() -> None:
    matrix, truth = counts()
    thin = 0.1 * matrix
    noise = TransmissionNoise(1e4)
    data = noise.sample(thin(truth), generator=gen(1))
    solution = sciml.solve(
        Inverse("x rays", thin, data, noise, TotalVariation(lower=0.0), 5.0), PrimalDual(max_steps=20000)
    )
    assert solution.ok, str(solution)
    assert (solution.value - truth).abs().max() < 1.0


def test_sigma_and_mask_have_the_axes_of_the_data() -> None:
    matrix, truth = counts()
    sigma = torch.linspace(0.01, 1, 20, dtype=D)
    data = matrix(truth)
    one = Inverse("rows", matrix, data, GaussianNoise(sigma[None]), Smoothness(), weight=1.0)
    assert one.batch == 1
    full = Inverse("rows", matrix, data, GaussianNoise(sigma.reshape(1, 1, 20)), Smoothness(), weight=1.0)
    torch.testing.assert_close(sciml.solve(one, LeastSquares()).value, sciml.solve(full, LeastSquares()).value)
    masked = Inverse("masked", matrix, data, GaussianNoise(0.1, measured=torch.arange(20) > 3), Smoothness(), 1.0)
    assert masked.batch == 1
    assert float(masked.noise.dof(masked.data)) == 16
    assert Inverse("numpy", matrix, data.numpy(), GaussianNoise(np.float32(0.1)), Smoothness(), 1.0).batch == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"noise": 0.1}, "write|such as GaussianNoise"),
        ({"noise": None}, "such as GaussianNoise"),
        ({"noise": GaussianNoise}, "such as GaussianNoise"),
        ({"prior": TotalVariation}, r"write TotalVariation\(\)"),
        ({"weight": "strong"}, "positive number"),
        ({"weight": -1.0}, "must be positive"),
        ({"weight": torch.ones(1, 1, 12)}, "one per member"),
        ({"truth": torch.zeros(3, 3, dtype=D)}, "truth has shape"),
        ({"noise": GaussianNoise(0.1, measured=torch.ones(1, 1, 20))}, "must be boolean"),
        ({"noise": GaussianNoise(torch.ones(7, 9, dtype=D))}, "sigma has shape"),
        ({"noise": GaussianNoise("big")}, "sigma is 'big'"),  # type: ignore[arg-type]
        ({"data": torch.zeros(1, 1, 19, dtype=D)}, "the data have shape"),
        ({"forward": torch.eye(3)}, "give a ForwardModel"),
    ],
)
def test_mistakes_are_told_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    matrix, truth = counts()
    whole = {
        "forward": matrix,
        "data": matrix(truth),
        "noise": GaussianNoise(0.1),
        "prior": TotalVariation(),
        "weight": 1.0,
    }
    with pytest.raises(InputError, match=sentence):
        sciml.solve(Inverse("mistaken", **{**whole, **changes}), PrimalDual())


def test_pickling_keeps_what_was_changed_behind_the_recipe() -> None:
    ct = sciml.problem("ct", n=16, views=8)

    def again(problem: Any) -> Any:
        return pickle.loads(pickle.dumps(problem))

    assert float(again(dataclasses.replace(ct, weight=2.0)).weight) == 2.0
    assert isinstance(again(dataclasses.replace(ct, prior=Smoothness())).prior, Smoothness)
    assert again(dataclasses.replace(ct, noise=GaussianNoise(0.5))).noise.sigma == 0.5
    mask = torch.arange(ct.data.shape[-1]) % 2 > 0
    kept = again(dataclasses.replace(ct, noise=GaussianNoise(0.5, measured=mask)))
    assert kept.noise.measured is not None
    assert again(ct.blind()).truth is None
    assert again(ct).recipe.complete
    assert torch.equal(again(ct.replace(data=2 * ct.data)).data, 2 * ct.data)
    assert isinstance(again(ct.with_prior(Smoothness(), 3.0)).prior, Smoothness)


def test_tiny_units_in_single_precision() -> None:
    matrix, truth = counts()
    for c in (1e-6, 1.0, 1e6):
        data = (c * matrix(truth)).float()
        problem = Inverse(
            "units", Matrix(matrix.entries.float()), data, GaussianNoise(0.1 * c), TotalVariation(), weight=10 / c
        )
        for solver in (PrimalDual(), ADMM()):
            assert sciml.solve(problem, solver).ok, f"{c} {solver}"
