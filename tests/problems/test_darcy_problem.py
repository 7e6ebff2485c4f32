"""The catalogue's Darcy problems: the media, their statistics, symmetries, and high contrast."""

from __future__ import annotations

import math

import pytest
import torch

import sciml
from sciml.core.continuous import At
from sciml.domains import InputError, Neumann


def test_the_two_phase_medium_is_that_of_the_paper() -> None:
    """Values 12 and 3, half of each on average over media: the field is centred (64 members, deviation of the mean 0.03)."""
    medium = sciml.problem("darcy", n=31, batch=64, seed=5).operator.coefficient
    assert sorted(medium.unique().tolist()) == [3.0, 12.0]
    share = (medium == 12.0).double().mean((1, 2, 3))
    assert abs(float(share.mean()) - 0.5) < 0.1
    assert float(share.std()) > 0.04  # large inclusions: white noise has 0.5 / 31 = 0.016


def test_the_field_has_the_stated_spectrum() -> None:
    """The lognormal medium's logarithm, with the contrast undone: cosine modes fall like (k^2 + 9)^-1."""
    medium = sciml.problem("darcy", n=63, batch=48, medium="lognormal", contrast=math.e, seed=1).operator.coefficient
    (x,) = sciml.problem("darcy", dim=1, n=63).space.domain.points()
    y = medium.log()
    y = (y - y.mean((2, 3), keepdim=True)) / y.std((2, 3), keepdim=True)

    def energy(i: int, j: int) -> float:
        mode = torch.cos(i * math.pi * x)[:, None] * torch.cos(j * math.pi * x)[None, :]
        mode = mode / (1.0 if i and j else math.sqrt(2))
        return float((y[:, 0] * mode).mean((1, 2)).square().mean())

    low = (energy(1, 0) + energy(0, 1)) / 2
    for i, j in ((2, 1), (3, 3)):
        wanted = ((math.pi**2 + 9) / (math.pi**2 * (i * i + j * j) + 9)) ** 2
        found = (energy(i, j) + energy(j, i)) / 2 / low
        assert 0.5 < found / wanted < 2  # 96 squared normal numbers on each side: a deviation of 0.2
        assert not 0.5 < found / math.sqrt(wanted) < 2  # another power is seen


@pytest.mark.parametrize("contrast", [1e2, 1e6])
def test_high_contrast_is_solved(contrast: float) -> None:
    problem = sciml.problem("darcy", n=(31, 44), extent=(1.0, 1.4), medium="lognormal", contrast=contrast)
    ratio = float(problem.operator.coefficient.max() / problem.operator.coefficient.min())
    assert 0.3 * contrast < ratio < 3 * contrast
    solution = sciml.solve(problem)
    assert solution.ok
    assert solution.stats["steps"] < 25


def test_the_maximum_principle() -> None:
    """With a positive source and zero sides the pressure is positive, and a lower coefficient everywhere raises it."""
    problem = sciml.problem("darcy", n=31, batch=2)
    value = sciml.solve(problem).value
    assert float(value.min()) > 0
    twice = sciml.solve(problem.replace(coefficient=2 * problem.operator.coefficient)).value
    torch.testing.assert_close(2 * twice, value, rtol=0, atol=1e-8)


@pytest.mark.parametrize("medium", ["two_phase", "lognormal"])
def test_members_do_not_depend_on_their_batch_or_grid(medium: str) -> None:
    few, many = (sciml.problem("darcy", n=15, medium=medium, batch=c, seed=3).operator.coefficient for c in (2, 4))
    torch.testing.assert_close(few, many[:2], rtol=0, atol=0)
    fine = sciml.problem("darcy", n=31, medium=medium, batch=2, seed=3).operator.coefficient
    torch.testing.assert_close(fine[..., 1::2, 1::2], few, rtol=1e-9, atol=0)
    alone = sciml.problem("darcy", n=15, medium=medium, seed=3).operator.coefficient
    torch.testing.assert_close(alone, few[:1], rtol=0, atol=0)


def test_declared_symmetries() -> None:
    problem = sciml.problem("darcy", n=12, batch=2)
    assert len(problem.symmetries) == 2
    for symmetry in problem.symmetries:
        assert sciml.checks.symmetry(problem, symmetry)
    assert not sciml.problem("darcy", n=(12, 13)).symmetries
    assert not sciml.problem("darcy", n=12, extent=(1.0, 2.0)).symmetries


def test_discrete_and_strong_form_agree() -> None:
    def sine(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.sin(math.pi * x) * torch.sin(math.pi * y)

    problem = sciml.problem("darcy", n=31, medium="smooth")
    assert sciml.checks.consistent(problem, sine)
    sided = sciml.problem("darcy", n=9, medium="lognormal", sides={"x": (Neumann(0.3), Neumann(0.0))})
    at = At(
        tuple(p.requires_grad_() for p in sided.space.domain.side_points("x_lower")),
        lambda x, y: 1 - 0.3 * x / (2 + y),  # k du/dn = 0.3 on the lower side, where k = 2 + y
        {"coefficient": lambda x, y: 2 + y, "source": torch.tensor(1.0)},
    )
    assert float(sided.continuous.sides(at, "x_lower").detach().abs().max()) < 1e-14
    assert float(sided.continuous.sides(at, "x_upper").detach().abs().max()) > 0.1


def test_sentences() -> None:
    with pytest.raises(InputError, match="two_phase, lognormal and smooth"):
        sciml.problem("darcy", medium="sand")
    with pytest.raises(InputError, match="no sides"):
        sciml.problem("darcy", medium="smooth", sides=Neumann())
    with pytest.raises(InputError, match="needs it positive"):
        sciml.solve(sciml.problem("darcy", n=9, low=-1.0))
