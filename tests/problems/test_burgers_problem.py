"""The catalogue's Burgers problem: what it says of itself, its members, starts and symmetry."""

from __future__ import annotations

import math

import pytest
import torch

import sciml
from sciml.domains import InputError
from sciml.training import Reflection


def test_the_tour() -> None:
    problem = sciml.problem("burgers", n=128, viscosity=0.05, batch=4, times=[0.0, 0.5, 1.0], seed=0)
    solution = sciml.solve(problem)
    assert solution.ok and solution.value.shape == (4, 3, 1, 128)
    assert set(problem.parameters()) == {"start", "viscosity"} and problem.unknown == "u"
    # The mean is kept to rounding: the flux form has no constant mode.
    assert float(solution.check("mean drift").value.max()) < 1e-13


def test_what_defines_it_stands_in_name_and_recipe() -> None:
    problem = sciml.problem("burgers", n=16)
    for word in ("viscosity 0.01", "length 1", "625", "+ 25)^-2"):
        assert word in problem.name
    assert float(problem.parameters()["viscosity"]) == 0.01  # not rounded to single precision on the way
    settings = problem.recipe.settings
    assert {"viscosity": 0.01, "length": 1.0, "scale": 25.0, "shift": 25.0, "power": 2.0}.items() <= settings.items()


def test_members_depend_on_seed_and_index_alone() -> None:
    few, many = sciml.problem("burgers", n=32, batch=2, seed=4), sciml.problem("burgers", n=32, batch=5, seed=4)
    assert torch.equal(few.start, many.start[:2])
    assert not torch.equal(few.start, sciml.problem("burgers", n=32, batch=2, seed=5).start)
    fine = sciml.problem("burgers", n=512, batch=2, seed=4).start
    coarse = sciml.problem("burgers", n=256, batch=2, seed=4).start
    torch.testing.assert_close(fine[..., ::2], coarse, rtol=0, atol=1e-12)  # the same functions on another grid


def test_the_start_has_the_stated_covariance() -> None:
    """Variance of the first pair of modes, 2 (25 / (4 pi^2 + 25))^2, from 4000 amplitudes: 5 standard errors are 11 %."""
    start = sciml.problem("burgers", n=16, batch=2000, seed=0).start[:, 0]
    square = (torch.fft.rfft(start)[:, 1].abs() / 16).square().mean()
    assert float(2 * square) == pytest.approx(2 * (25 / (4 * math.pi**2 + 25)) ** 2, rel=0.11)
    assert float(start.mean(-1).abs().max()) < 1e-12


def test_length_stretches_the_same_start() -> None:
    unit, long = sciml.problem("burgers", n=64, seed=1), sciml.problem("burgers", n=64, length=3.0, seed=1)
    assert torch.equal(unit.start, long.start)
    assert long.space.domain.extent == (3.0,)


def test_a_start_of_ones_own() -> None:
    x = torch.arange(64, dtype=torch.float64) / 64
    start = torch.sin(2 * torch.pi * x)
    by_setting = sciml.problem("burgers", n=64, viscosity=0.05, start=start)
    by_replacing = sciml.problem("burgers", n=64, viscosity=0.05).replace(start=start)
    assert torch.equal(by_setting.start, by_replacing.start) and by_setting.start.shape == (1, 1, 64)
    assert "given start" in by_setting.name
    with pytest.raises(InputError, match="start"):
        sciml.problem("burgers", n=32, start=start)


def test_the_cole_hopf_solution() -> None:
    """u = -2 nu phi_x / phi with phi = 1 + a e^(-4 pi^2 nu t) cos(2 pi x): tolerance 1e-6 is the target of the steps."""
    nu, a, t = 0.02, 0.9, 0.5
    x = torch.arange(128, dtype=torch.float64) / 128

    def exact(time: float) -> torch.Tensor:
        size = a * math.exp(-4 * math.pi**2 * nu * time)
        return 4 * math.pi * nu * size * torch.sin(2 * torch.pi * x) / (1 + size * torch.cos(2 * torch.pi * x))

    problem = sciml.problem("burgers", n=128, viscosity=nu, times=(t,), start=exact(0.0))
    value = sciml.solve(problem).value[0, 0, 0]
    assert float((value - exact(t)).norm() / exact(t).norm()) < 1e-6
    assert float((value - exact(t + 1e-3)).norm() / exact(t).norm()) > 1e-5


def test_symmetry_and_strong_form() -> None:
    problem = sciml.problem("burgers", n=32)
    assert all(sciml.checks.symmetry(problem, one) for one in problem.symmetries)
    assert not sciml.checks.symmetry(problem, Reflection())  # mirrored, u would have to change its sign
    assert sciml.checks.consistent(problem, lambda x: torch.sin(2 * torch.pi * x) + 0.3 * torch.cos(6 * torch.pi * x))


@pytest.mark.parametrize("viscosity", [0.0, -0.1, float("nan")])
def test_the_viscosity_is_positive(viscosity: float) -> None:
    with pytest.raises(InputError, match="viscosity"):
        sciml.problem("burgers", n=16, viscosity=viscosity)


def test_float32_keeps_its_certificate() -> None:
    solution = sciml.solve(sciml.problem("burgers", n=128, dtype="float32", batch=2))
    assert solution.ok and solution.value.dtype == torch.float32
