"""A prior trained through the solver that uses it: it learns, and a run killed at any moment goes on to the same bits."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

import sciml
from sciml import Answer, InputError, Inverse
from sciml.core import GaussianNoise
from sciml.core.matrix import Matrix
from sciml.core.solver import Solver
from sciml.metrics import relative_l2
from sciml.networks import UnfoldedNetwork
from sciml.priors import Denoiser, TotalVariation, Unfolded
from sciml.solvers import Chained, PrimalDual
from sciml.training import AdamW, FittedPrior, LogL2, Muon
from sciml.training.fit import fit
from sciml.training.through import _number, _told

GENERATOR = torch.Generator().manual_seed(0)
MATRIX = Matrix(torch.randn(1, 14, 20, generator=GENERATOR) / 14**0.5)
THROUGH = PrimalDual(max_steps=3, ratio=0.3, relaxation=1.0)


def members(seed: int) -> Inverse[Any]:
    """Four signals of two levels on 20 points, 14 numbers of each."""
    generator = torch.Generator().manual_seed(seed)
    edge = torch.randint(4, 16, (4, 1, 1), generator=generator)
    truth = torch.where(torch.arange(20) < edge, 1.0, torch.rand(4, 1, 1, generator=generator))
    noise = GaussianNoise(0.02)
    return Inverse("two levels", MATRIX, noise.sample(MATRIX(truth), generator=generator), noise, truth=truth)


def untrained() -> Unfolded:
    return Unfolded(UnfoldedNetwork(dim=1, stages=3, memory=6, hidden=8, seed=1))


def run(out: Any = None, draw: Any = members, **settings: Any) -> FittedPrior[Unfolded]:
    chosen = {"through": THROUGH, "epochs": 3, "steps": 5, "learning_rate": 2e-3, "optimizer": Muon(), **settings}
    return fit(untrained(), draw, out=out, progress=False, **chosen)


def error(prior: Unfolded, problem: Inverse[Any], solver: Any = THROUGH) -> float:
    assert problem.truth is not None
    with pytest.warns(UserWarning):
        value = sciml.solve(problem.with_prior(prior), solver).value
    return float(relative_l2(value.detach(), problem.truth).mean())


def test_it_learns() -> None:
    """From pulling at the data alone (0.6) to well below what three steps of total variation reach at any weight."""
    found = run(epochs=3, steps=50, loss=LogL2(), learning_rate=3e-3)
    fresh = members(12345)
    learned = error(found.prior, fresh)
    assert learned < 0.6 * error(untrained(), fresh)
    best = min(error_of_variation(fresh, weight) for weight in (0.3, 1.0, 3.0, 10.0))
    assert learned < best
    assert found.history[-1]["validation"] >= found.best_error
    assert not any(w.requires_grad for w in found.prior.weights.values())
    assert found.through is THROUGH


def error_of_variation(problem: Inverse[Any], weight: float) -> float:
    assert problem.truth is not None
    with pytest.warns(UserWarning):
        value = sciml.solve(problem.with_prior(TotalVariation(), weight=weight), PrimalDual(max_steps=3)).value
    return float(relative_l2(value.detach(), problem.truth).mean())


class Pulled(Solver[Any]):
    """A formula to begin with: the transpose of the data."""

    def accepts(self, problem: Any) -> None:
        return None

    def run(self, problem: Any, start: Any, context: Any) -> Answer:
        return Answer(problem.forward.adjoint(problem.data), torch.ones(problem.batch, dtype=torch.int64), steps=1)

    def __repr__(self) -> str:
        return "Pulled()"


@pytest.mark.filterwarnings("ignore")
def test_the_start_of_a_chain_is_used() -> None:
    """The weights get a gradient through the second solver, whose start is the first one's answer."""
    posed = members(5).with_prior(untrained())
    plain = sciml.solve(posed, THROUGH)
    chained = sciml.solve(posed, Chained(Pulled(), THROUGH))
    assert not torch.equal(plain.value, chained.value)
    chained.value.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in posed.prior.network.out)
    posed.prior.network.zero_grad()
    found = fit(untrained(), members, through=Chained(Pulled(), THROUGH), epochs=1, steps=2)
    assert found.config["through"].startswith("Chained(first=Pulled()")


def same(one: FittedPrior[Unfolded], two: FittedPrior[Unfolded]) -> bool:
    return all(torch.equal(one.prior.weights[name], two.prior.weights[name]) for name in one.prior.weights)


class Stop(Exception):
    pass


def stopping(after: int) -> Any:
    """Members of which one is never drawn, as if the machine had stopped then."""
    drawn = [0]

    def draw(seed: int) -> Inverse[Any]:
        drawn[0] += 1
        if drawn[0] > after:
            raise Stop
        return members(seed)

    return draw


def test_resume_to_the_same_bits(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    for after in (3, 9, 8):  # within the first epoch, the second, the third: one draw is for validation
        with pytest.raises(Stop):
            run(tmp_path / "part", stopping(after))
    again = run(tmp_path / "part")
    assert same(whole, again)
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in whole.history]
    assert strip == [{k: v for k, v in row.items() if k != "seconds"} for row in again.history]
    assert os.listdir(tmp_path / "whole") and not list(tmp_path.rglob("*.tmp"))
    assert same(whole, run(tmp_path / "whole"))  # finished: nothing is drawn but the validation members

    loaded = Unfolded.load(tmp_path / "part")
    posed = members(99)
    assert error(loaded, posed) == error(again.prior, posed)


def test_resume_without_optimizer_state_would_be_seen(tmp_path: Path) -> None:
    """The broken twin: the moments start from nothing."""
    from sciml.training import through

    whole = run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "part", stopping(12))

    def forget(path: Any) -> Any:
        model, best, _, facts = through_load(path)
        return model, best, {}, facts

    through_load = through.load_run
    with patch("sciml.training.through.load_run", forget):
        assert not same(whole, run(tmp_path / "part"))


def test_members_of_steps_differ_and_none_is_for_validation() -> None:
    seen = [_number(seed, step, validation) for seed in (0, 1) for step in range(9) for validation in (False, True)]
    assert len(set(seen)) == len(seen)


def test_catalogue_name_as_members() -> None:
    network = UnfoldedNetwork(stages=2, memory=3, hidden=2)
    through = PrimalDual(max_steps=2, ratio=0.3, relaxation=1.0)
    draws: list[tuple[str, dict[str, Any]]] = []

    def small(name: str, **settings: Any) -> Any:
        draws.append((name, settings))
        return load(name, n=16, **settings)

    load = sciml.problem
    with patch("sciml.catalogue.problem", small):
        found = fit(Unfolded(network), "ct", through=through, epochs=1, steps=1, batch_size=2)
    assert [name for name, _ in draws] == ["ct", "ct"] and all(s["batch"] == 2 for _, s in draws)
    assert draws[0][1]["seed"] != draws[1][1]["seed"]
    assert found.config["members"] == "ct"


def truthless(seed: int) -> Inverse[Any]:
    return members(seed).blind()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"draw": truthless}, "truth"),
        ({"draw": lambda seed: sciml.problem("poisson", n=7)}, "Inverse"),
        ({"through": PrimalDual()}, "max_steps=3"),
        ({"through": "primal dual"}, "takes a solver"),
        ({"steps": 0}, "above zero"),
        ({"inputs": "a"}, "inputs"),
        ({"normalise": False}, "normalise"),
    ],
)
def test_refusals(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run(**settings)


def test_priors_without_weights_are_refused() -> None:
    for prior in (TotalVariation(), Denoiser(lambda x, sigma: x), untrained_frozen()):
        with pytest.raises(InputError, match="nothing to train"):
            fit(prior, members, through=THROUGH)
    with pytest.raises(InputError, match="through which solver"):
        fit(untrained(), members)  # type: ignore[call-overload]


def untrained_frozen() -> Unfolded:
    prior = untrained()
    prior.network.requires_grad_(False)
    return prior


def test_a_loss_that_is_not_finite_is_told(tmp_path: Path) -> None:
    def broken(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (prediction - target).sum() * float("nan")

    with pytest.raises(InputError, match="loss is nan at step 1"):
        run(loss=broken)
    run(tmp_path, epochs=1)
    with pytest.raises(InputError, match="learning_rate"):
        run(tmp_path, epochs=1, learning_rate=1e-4)
    with pytest.raises(InputError, match="optimizer"):
        run(tmp_path, epochs=1, optimizer=AdamW())


def test_settings_name_functions_and_not_places_in_memory() -> None:
    """A run is taken up again by another process, where the same function lies elsewhere."""
    solver = dataclasses.replace(untrained(), filtered=True).solver()
    assert "0x" in repr(solver)
    assert "0x" not in _told(solver) and "hann" in _told(solver)
