"""PrimalDualNewton: the minimiser of primal-dual steps, on meshes and pixels, where the forward model is not linear, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import sciml
from sciml.core import Code, GaussianNoise, Inverse
from sciml.domains import InputError, Pixels, disc
from sciml.forward import Convolution, Impedance, Logarithm, PointElectrodes, Spread, adjacent, gaussian_kernel
from sciml.priors import Smoothness, TotalVariation
from sciml.solvers import Discrepancy, PrimalDual, PrimalDualNewton, primal_dual_newton


def blurred(batch: int = 1) -> Inverse:
    """Squares of two sizes behind a blur, a weight for each."""
    pixels = Pixels((12, 9), (1.2, 0.9))
    truth = torch.zeros(batch, 1, 12, 9, dtype=torch.float64)
    for i in range(batch):
        truth[i, :, 3 : 7 + i, 2:6] = 1.0
    forward = Convolution(pixels, gaussian_kernel(0.1, pixels.spacing))
    noise = GaussianNoise(0.02)
    data = noise.sample(forward(truth), generator=torch.Generator().manual_seed(0))
    return Inverse("squares", forward, data, noise, TotalVariation(), 30.0 * torch.arange(1, batch + 1))


def test_the_minimiser_of_primal_dual_steps() -> None:
    for posed in (blurred(), primal_dual_newton.example()[1]):
        tight = posed.with_target(optimality=1e-6)
        found = sciml.solve(tight, PrimalDualNewton())
        wanted = sciml.solve(tight, PrimalDual(max_steps=50_000))
        assert found.code == Code.CONVERGED and wanted.code == Code.CONVERGED
        weight = posed.weights()
        best = tight.objective(wanted.value, weight)
        assert float((tight.objective(found.value, weight) / best - 1).abs().max()) < 2e-6  # both certified to 1e-6
        assert found.stats["steps"] < 40
        other = sciml.solve(dataclasses.replace(tight, weight=3 * weight), PrimalDualNewton()).value
        assert float((tight.objective(other, weight) / best - 1).abs().max()) > 1e-4  # another weight is told apart


def test_a_batch_is_the_stack_of_its_members() -> None:
    posed = blurred(2)
    together = sciml.solve(posed, PrimalDualNewton())
    apart = torch.cat([sciml.solve(posed.member(i), PrimalDualNewton()).value for i in range(2)])
    assert together.ok
    assert torch.allclose(together.value, apart, atol=1e-9)
    assert not torch.allclose(together.value[:1], together.value[1:], atol=1e-2)


def test_large_images_are_solved_for_by_conjugate_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    posed = blurred()
    dense = sciml.solve(posed, PrimalDualNewton())
    monkeypatch.setattr("sciml.solvers.primal_dual_newton.DENSE", 10)
    krylov = sciml.solve(posed, PrimalDualNewton())
    assert dense.ok and krylov.ok
    assert torch.allclose(dense.value, krylov.value, atol=0.02)


def test_a_conductivity_by_gradients_and_by_jumps() -> None:
    """On nodes and on triangles; the answer is stationary for a model that is not linear."""
    mesh = disc(nodes=150, electrodes=8, edge=0.5)
    coarse = disc(nodes=60)
    for space in (coarse.space(), coarse.elements.space()):
        forward = Impedance(mesh, PointElectrodes(), adjacent(8), image=Spread(mesh, space), chart=Logarithm())
        assert space.domain is not None
        x, y = space.domain.points()
        truth = torch.where((x - 0.3).square() + y.square() < 0.1, 1.0, 0.0).to(torch.float64).reshape(1, 1, -1)
        clean = forward(truth)
        noise = GaussianNoise(0.002 * float(clean.abs().max()))
        data = noise.sample(clean, generator=torch.Generator().manual_seed(0))
        posed = Inverse("disc in a disc", forward, data, noise, TotalVariation(), weight=3.0)
        found = sciml.solve(posed, PrimalDualNewton())
        assert found.code == Code.CONVERGED
        assert float((found.value - truth).norm() / truth.norm()) < 0.7
        assert float(found.value[truth == 1].mean()) > 0.5 > float(found.value[truth == 0].mean().abs()) + 0.3


def test_what_is_refused_is_told_in_a_sentence() -> None:
    posed = blurred()
    solver = PrimalDualNewton()
    assert solver.accepts(posed) is None
    assert "no sum of lengths" in str(solver.accepts(posed.with_prior(Smoothness(), 1.0)))
    assert "bounds" in str(solver.accepts(posed.with_prior(TotalVariation(lower=0.0), 1.0)))
    assert "Discrepancy(PrimalDualNewton())" in str(solver.accepts(posed.with_prior(TotalVariation())))
    assert Discrepancy(solver).accepts(posed.with_prior(TotalVariation())) is None
    assert "Inverse" in str(solver.accepts(sciml.problem("poisson", n=7)))
    with pytest.raises(InputError, match="positive"):
        PrimalDualNewton(largest=0.0)
