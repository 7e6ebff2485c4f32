"""Trained networks as solvers: never believed on their word, refused where they do not belong, chained to a certificate."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import sciml
from sciml import Code, InputError
from sciml.learned import Rollout, Trained
from sciml.networks import FNO
from sciml.solvers import Chained, ConjugateGradient, Direct, Multigrid


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("darcy")
    sciml.generate("darcy", count=24, out=folder / "darcy.h5", n=15, progress=False)
    data = sciml.open_dataset(folder / "darcy.h5")
    fit = sciml.fit(
        FNO(dim=2, modes=4, width=8),
        data,
        inputs="coefficient",
        targets="u",
        epochs=8,
        out=folder / "run",
        progress=False,
    )
    return Trained(fit)


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> Rollout:
    folder = tmp_path_factory.mktemp("burgers")
    sciml.generate(
        "burgers", count=4, out=folder / "b.h5", n=32, viscosity=0.05, times=[0.0, 0.1, 0.2, 0.3], progress=False
    )
    movies = sciml.open_dataset(folder / "b.h5")
    fit = sciml.fit(
        FNO(dim=1, modes=6, width=8), sciml.windows(movies.u, history=1, horizon=1), epochs=3, progress=False
    )
    return Rollout(fit)


def test_a_network_is_not_certified_until_the_target_is_loosened(trained: Trained) -> None:
    darcy = sciml.problem("darcy", n=15, batch=3, seed=99)
    with pytest.warns(UserWarning, match="UNCERTIFIED.*chain it"):
        solution = sciml.solve(darcy, trained)
    assert solution.code is Code.UNCERTIFIED
    assert solution.value.dtype == torch.float64 and solution.value.shape == (3, 1, 15, 15)
    assert sciml.solve(darcy.with_target(discrete=1.0), trained).code is Code.CONVERGED


def test_chained_it_converges_and_has_a_gradient(trained: Trained) -> None:
    darcy = sciml.problem("darcy", n=15, seed=99)
    plain = sciml.solve(darcy, ConjugateGradient())
    chained = sciml.solve(darcy, Chained(trained, ConjugateGradient()))
    assert plain.ok and chained.ok
    # How many steps a network saves is measured in tests/benchmark/chained.py; here it only must not hurt much.
    assert chained.stats["steps"] <= 1.2 * plain.stats["steps"]
    exact = Chained(Direct(), ConjugateGradient())
    assert sciml.solve(darcy, exact).stats["steps"] == 0
    assert chained.stats["first_evaluations"] == 1
    assert torch.allclose(plain.value, chained.value, rtol=1e-6, atol=1e-12)
    k = darcy.operator.coefficient.clone().requires_grad_()
    sciml.solve(
        darcy.replace(coefficient=k), Chained(trained, ConjugateGradient(preconditioner=Multigrid()))
    ).value.sum().backward()
    assert torch.isfinite(k.grad).all() and float(k.grad.abs().max()) > 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"extent": 2.0}, "domain of length 1 along x and is given 2"),
        ({"sides": {"x": sciml.Neumann(0.0)}}, "grid that is interior along x and is given one that is closed"),
        ({"dim": 3, "n": 7}, "2 axes of space and is given 3"),
    ],
)
def test_another_kind_of_problem_is_refused_in_one_sentence(
    trained: Trained, settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        sciml.solve(sciml.problem("darcy", **{"n": 15, **settings}), trained)


def test_missing_fields_other_kinds_and_other_resolutions(trained: Trained, step: Rollout) -> None:
    with pytest.raises(InputError, match="needs the field 'coefficient'; the problem has"):
        sciml.solve(sciml.problem("poisson", n=15), trained)
    burgers = sciml.problem("burgers", n=32, viscosity=0.05, times=[0.1, 0.3])
    with pytest.raises(InputError, match="use Rollout"):
        sciml.solve(burgers, trained)
    with pytest.raises(InputError, match="use Trained"):
        sciml.solve(sciml.problem("poisson", n=15), step)
    finer = sciml.problem("darcy", n=31).with_target(discrete=1.0)
    assert sciml.solve(finer, trained).ok  # another resolution of the same domain is welcome


def test_rollouts_step_by_the_trained_spacing_and_are_judged_by_the_referee(step: Rollout) -> None:
    burgers = sciml.problem("burgers", n=32, viscosity=0.05, times=[0.0, 0.1, 0.3], batch=2)
    with pytest.warns(UserWarning, match="UNCERTIFIED"):
        solution = sciml.solve(burgers, step)
    assert solution.value.shape == (2, 3, 1, 32)
    assert torch.equal(solution.value[:, 0], burgers.start)
    assert float(solution.check("steps").value.min()) > 1e-4
    with pytest.raises(InputError, match="does not divide the interval"):
        sciml.solve(sciml.problem("burgers", n=32, viscosity=0.05, times=[0.15]), step)
    with pytest.raises(InputError, match="did not say how far apart"):
        signature = dataclasses.replace(step.fit.signature, time_spacing=None)
        fit = type(step.fit)(step.fit.network, signature, step.fit.encode, step.fit.decode, [])
        sciml.solve(burgers, Rollout(fit))


def test_a_batch_is_the_stack_of_its_members(trained: Trained) -> None:
    darcy = sciml.problem("darcy", n=15, batch=3, seed=5).with_target(discrete=1.0)
    whole = sciml.solve(darcy, Trained(trained.fit, batch_size=2)).value
    singles = torch.cat([sciml.solve(darcy.member(i), trained).value for i in range(3)])
    # float32 inside: reductions of different batch shapes may round differently.
    assert torch.allclose(whole, singles, rtol=1e-4, atol=1e-5 * float(singles.abs().max()))


def test_shipped_data_sets_open_by_name(tmp_path: Path) -> None:
    for name, variable in (("darcy", "coefficient"), ("burgers", "u")):
        assert variable in sciml.dataset(name)
    with pytest.raises(InputError, match="no data set 'dracy'; the package ships"):
        sciml.dataset("dracy")
    with pytest.raises(InputError, match="no pretrained weights"):
        sciml.pretrained("nothing")
