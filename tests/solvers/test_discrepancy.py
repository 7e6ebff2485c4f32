"""The weight by Morozov's principle: data far out of their noise, few rounds, members, weights that do not exist."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from sciml import solve
from sciml.core import GaussianNoise, Inverse, Matrix
from sciml.domains import InputError
from sciml.priors import Smoothness, TotalVariation
from sciml.solvers import ADMM, Discrepancy, GaussNewton, PrimalDual, ProximalGradient
from sciml.solvers.discrepancy import _kept, _Search
from sciml.solvers.primal_dual import example

D = torch.float64


def blocky(sigma: float) -> Inverse[Any]:
    _, posed = example()
    noise = GaussianNoise(sigma)
    draw = torch.Generator().manual_seed(3)
    return Inverse(
        "blocky", posed.forward, noise.sample(posed.forward(posed.truth), generator=draw), noise, TotalVariation()
    )


@pytest.mark.parametrize("inner", [ProximalGradient(), PrimalDual()], ids=lambda s: type(s).__name__)
def test_data_far_out_of_their_noise(inner: Any) -> None:
    """Small weights leave chi-square on the plateau 1 - n/m = 0.125 of this matrix; the weight sought lies beyond it."""
    posed = blocky(1e-3 if isinstance(inner, ProximalGradient) else 3e-2)
    found = solve(posed, Discrepancy(inner))
    assert found.ok and 0.75 < float(posed.misfit(found.value)) < 1.25
    # The weight goes with one over sigma: 12 over sigma, to the width of the search's band.
    assert 0.5 < float(found.weight) * float(posed.noise.sigma) / 12 < 2


def test_few_rounds_are_still_solved_as_asked() -> None:
    posed = dataclasses.replace(example()[1], weight=None)
    for rounds in (1, 6):
        found = solve(posed, Discrepancy(PrimalDual(), rounds=rounds))
        assert found.ok and float(found.check("optimality").value) <= 1e-3, rounds


def drive(chi_of: Any, rounds: int = 14, solved: Any = None, first: float = 1.0) -> tuple[_Search, list[float]]:
    search, tried = _Search(torch.tensor([first], dtype=D), 1.0, 0.05), []
    for _ in range(rounds):
        w = float(search.weight)
        tried.append(w)
        fine = True if solved is None else solved(w)
        if search.look(torch.tensor([chi_of(w)], dtype=D), torch.tensor([fine])):
            break
        search.advance()
    return search, tried


@pytest.mark.parametrize("first", [1e-3, 1.0, 1e6])
def test_a_plateau_below_the_target_is_left_upwards(first: float) -> None:
    def chi(w: float) -> float:
        return 0.125 + w / 1e4

    search, tried = drive(chi, first=first)
    assert chi(float(search.best)) == pytest.approx(1.0, rel=0.05) and not bool(search.stuck.any())
    assert len(tried) <= 12


def test_a_target_beyond_reach_ends_the_search() -> None:
    search, tried = drive(lambda w: 3.0 + 1e-3 * w / (1 + w))
    assert bool(search.stuck.all()) and len(tried) <= 4
    above, tried = drive(lambda w: 0.3, rounds=30)  # nothing lifts it: the end of the weights
    assert bool(above.stuck.all()) and len(tried) <= 12 and math.isfinite(float(above.best))


def test_rounds_that_were_not_finished_set_no_bracket() -> None:
    def chi(w: float) -> float:
        return 500.0 if w < 20 else 0.2 + w / 1e3

    search, _ = drive(chi, solved=lambda w: w >= 20)
    assert chi(float(search.best)) == pytest.approx(1.0, rel=0.05)
    fooled, _ = drive(chi)  # the broken twin believes them, and seeks below
    assert chi(float(fooled.best)) != pytest.approx(1.0, rel=0.05)


def test_an_end_of_the_bracket_opens_when_it_is_contradicted() -> None:
    search = _Search(torch.tensor([10.0], dtype=D), 1.0, 0.05)
    search.look(torch.tensor([1.5], dtype=D), torch.tensor([True]))  # loosely solved: too high
    search.advance()
    search.weight = torch.tensor([10.0], dtype=D)
    search.look(torch.tensor([0.6], dtype=D), torch.tensor([True]))
    search.advance()
    assert float(search.weight) > 10


def test_each_member_has_its_own_weight() -> None:
    draw = torch.Generator().manual_seed(0)
    matrix = Matrix(torch.rand(40, 12, generator=draw, dtype=D))
    truth = torch.linspace(0, 1, 12, dtype=D).square().reshape(1, 1, 12)
    noises = torch.tensor([1e-4, 1e-1], dtype=D)
    data = [GaussianNoise(float(s)).sample(matrix(truth), generator=draw) for s in noises]
    both = Inverse("two", matrix, torch.cat(data), GaussianNoise(noises), Smoothness())
    found = solve(both, Discrepancy(GaussNewton()))
    assert found.ok
    for i, one in enumerate(data):
        alone = solve(
            Inverse("one", matrix, one, GaussianNoise(float(noises[i])), Smoothness()), Discrepancy(GaussNewton())
        )
        assert float(alone.weight) == pytest.approx(
            float(found.weight[i]), rel=0.5
        )  # the band, not the bits: rounds end together


def test_a_target_outside_of_the_band_fails_the_gate() -> None:
    posed = dataclasses.replace(example()[1], weight=None)
    with pytest.warns(UserWarning, match="misfit"):
        found = solve(posed, Discrepancy(PrimalDual(), target=1.9))
    assert not found.ok and float(found.check("optimality").value) <= 1e-3
    assert solve(posed.with_target(misfit=2.0), Discrepancy(PrimalDual(), target=1.9)).ok


def test_settings_that_make_no_sense() -> None:
    for settings in ({"target": 0.0}, {"rounds": 0}, {"first": -1.0}):
        with pytest.raises(InputError, match="must be positive"):
            Discrepancy(ADMM(), **settings)
    with pytest.raises(InputError, match="wraps a solver"):
        Discrepancy(TotalVariation())


def test_a_misfit_that_no_weight_lowers_ends_the_search() -> None:
    """A forward model that is wrong: chi falls by 4 % and more slowly; the weights stay within reach."""
    search, tried = drive(lambda w: 3.4 + 0.2 * min(w, 1.0), first=3.0)
    assert search.ended and len(tried) <= 5 and min(tried) > 1e-6
    search, tried = drive(lambda w: 3.4 * w**0.04)  # at this rate no weight within reach would do
    assert search.ended and len(tried) <= 5 and min(tried) > 1e-3
    search, tried = drive(lambda w: w**0.5, first=30.0)  # one that falls is followed
    assert search.ended and tried[-1] == pytest.approx(1.0, rel=0.1)


def test_weights_too_hard_to_solve_end_the_search_at_the_last_that_was() -> None:
    search, tried = drive(lambda w: 3.0 * w**0.1, solved=lambda w: w >= 0.3)
    assert search.ended and len(tried) < 14 and 0.3 <= float(search.weight) <= 1.0


def test_a_round_that_ran_away_is_not_the_next_start() -> None:
    posed = dataclasses.replace(blocky(3e-2), weight=1.0)
    batch = dataclasses.replace(posed, data=posed.data.expand(3, *posed.data.shape[1:]), truth=None)
    good = solve(posed, PrimalDual()).value.expand(3, *posed.space.shape)
    far = good * torch.tensor([1.0, 1e3, 1e3], dtype=D).reshape(3, 1, 1)
    kept = _kept(batch, good, far, torch.tensor([False, False, True]))
    assert torch.equal(kept[0], good[0]) and torch.equal(kept[1], good[1]) and torch.equal(kept[2], far[2])
    assert torch.equal(_kept(batch, None, far, torch.tensor([False] * 3)), far)


def test_what_loose_rounds_said_of_the_sides_is_not_believed_by_tight_ones() -> None:
    search = _Search(torch.tensor([1.0], dtype=D), 1.0, 0.0125)
    solved = torch.tensor([True])
    search.look(torch.tensor([1.02], dtype=D), solved)  # loosely: too large
    search.advance()
    search.forget()
    for _ in range(6):  # in truth the weight sought is 1.3
        if search.look(search.weight / 1.3, solved):
            break
        search.advance()
    assert float(search.weight) == pytest.approx(1.3, rel=0.0125)
