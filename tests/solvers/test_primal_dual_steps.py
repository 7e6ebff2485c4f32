"""The lengths of the steps of PrimalDual: as long as the model and the prior together allow, and no longer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import sciml
import sciml.solvers.primal_dual as module
from sciml.core import Code, GaussianNoise, Inverse, Matrix
from sciml.domains import Pixels
from sciml.forward import Convolution, Radon, gaussian_kernel
from sciml.priors import TotalVariation, Wavelet
from sciml.solvers import PrimalDual

PIXELS = Pixels((13, 10), (1.3, 1.0))


def smooth() -> Inverse[Any]:
    """A scan: the model sees what is smooth, the gradient what is not."""
    radon = Radon(PIXELS, torch.arange(8, dtype=torch.float64) * (torch.pi / 8))
    return posed(radon, TotalVariation(), 10.0)


def sharp() -> Inverse[Any]:
    """Hardly a blur: the model sees as well as the gradient what is rough."""
    return posed(Convolution(PIXELS, gaussian_kernel(0.01, PIXELS.spacing)), TotalVariation(), 1.0)


def waves() -> Inverse[Any]:
    """Orthogonal wavelets see everything alike."""
    pixels = Pixels((16, 8), (1.6, 0.8))
    return posed(Convolution(pixels, gaussian_kernel(0.1, pixels.spacing)), Wavelet(levels=1), 1.0)


def rough() -> Inverse[Any]:
    """Differences of a few neighbours, which power iterations from white noise would hardly find."""
    rows = torch.zeros(1, 9, 100, dtype=torch.float64)
    rows[0, torch.arange(9), torch.arange(9) * 11 + 3] = 1.0
    rows[0, torch.arange(9), torch.arange(9) * 11 + 4] = -1.0
    return posed(Matrix(rows), TotalVariation(), 1.0)


def posed(forward: Any, prior: Any, weight: float) -> Inverse[Any]:
    """Data of a block in noise."""
    truth = torch.zeros((2, *forward.space.shape), dtype=torch.float64)
    truth[0, ..., 3:7] = 1.0
    truth[1, ..., 5:9] = -2.0
    noise = GaussianNoise(0.05)
    data = noise.sample(forward(truth), generator=torch.Generator().manual_seed(0))
    return Inverse("a block", forward, data, noise, prior, weight=weight)


def stepped(problem: Inverse[Any], count: int) -> tuple[Any, Any]:
    """The set-up, and the state after ``count`` steps."""
    solver = PrimalDual()
    with torch.no_grad():
        setup = solver.setup(problem)
        state = solver.init(problem, setup, None)
        for _ in range(count):
            state = solver.step(problem, setup, state)
    return setup, state


def exact(problem: Inverse[Any], setup: Any) -> float:
    """``|A^H A / |A|^2 + K^H K / |K|^2|`` of the dense matrices, with the sizes that the solver took."""
    a = problem.forward.dense()[0] / 0.05
    k = problem.prior.operator.dense()[0]
    both = a.mH @ a / float(setup.data_size[0]) + k.mH @ k / float(setup.prior_size[0])
    return float(torch.linalg.eigvalsh(both)[-1])


@pytest.mark.parametrize("make", [smooth, sharp, waves, rough])
def test_the_norm_is_learned_from_the_steps(make: Callable[[], Inverse[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make()
    setup, state = stepped(problem, 300)
    assert (state.joint <= exact(problem, setup) * module.AHEAD).all()  # a Rayleigh quotient is never above
    alone = stepped(problem.member(1), 300)[1]
    torch.testing.assert_close(state.joint[1:], alone.joint, rtol=1e-9, atol=0)
    monkeypatch.setattr(module, "_joint", lambda joint, *rest: joint)
    monkeypatch.setattr(module, "MARGIN", module.MARGIN / 2)
    timid = stepped(problem, 300)[1]  # the steps that are safe whatever the norm
    assert (state.gap <= 2 * timid.gap + 1e-5).all()  # far below, a direction not seen before may disturb


def test_steps_that_learn_nothing_diverge(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = sharp()
    assert sciml.solve(problem, PrimalDual()).ok
    monkeypatch.setattr(module, "_joint", lambda joint, *rest: joint)
    with pytest.warns(UserWarning):
        assert sciml.solve(problem, PrimalDual()).code is not Code.CONVERGED


def test_a_scan_takes_fewer_steps_than_with_half_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = smooth()
    few = sciml.solve(problem, PrimalDual()).stats["steps"]
    monkeypatch.setattr(module, "MARGIN", module.MARGIN / 2)
    assert few < 0.85 * sciml.solve(problem, PrimalDual()).stats["steps"]  # sqrt(1/2) where the length is what limits
