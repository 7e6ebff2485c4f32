"""The learned steps: exact transposes, units, sizes, batches, what is refused, and that the solver can differentiate through them."""

from __future__ import annotations

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml import InputError, Inverse
from sciml.core import GaussianNoise
from sciml.core.linear import LinearOperator
from sciml.domains import Pixels, Space
from sciml.forward import Radon
from sciml.networks import UnfoldedNetwork
from sciml.priors import TotalVariation, Unfolded
from sciml.priors.unfolded import Lifting
from sciml.solvers import Discrepancy, PrimalDual

THROUGH = PrimalDual(max_steps=3, ratio=0.3, relaxation=1.0)


def prior(**settings: Any) -> Unfolded:
    network = UnfoldedNetwork(**{"stages": 3, "memory": 6, "hidden": 5, **settings})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # no weight stays at a special value
        for weight in network.parameters():
            weight += 0.1 * weight.abs().mean() * torch.randn(weight.shape, generator=generator)
    return Unfolded(network.requires_grad_(False))


def scan(shape: tuple[int, int] = (12, 9), count: int = 3, dtype: torch.dtype = torch.float64) -> Inverse[Any]:
    """Random smooth images, seven views, noise."""
    generator = torch.Generator().manual_seed(0)
    angles = torch.arange(7, dtype=dtype) * (math.pi / 7)
    radon = Radon(Pixels(shape, (2.0, 1.5)), angles)
    truth = torch.randn(count, 1, *shape, generator=generator, dtype=torch.float64).cumsum(-1).to(dtype)
    noise = GaussianNoise(0.05)
    return Inverse("scan", radon, noise.sample(radon(truth), generator=generator), noise, prior(), truth=truth)


def image(problem: Inverse[Any], solver: Any = THROUGH) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sciml.solve(problem, solver).value


class Doubled(Lifting):
    """The broken twin: its transpose is twice too large."""

    def adjoint(self, v: Tensor) -> Tensor:
        return 2 * super().adjoint(v)


def transposed(operator: LinearOperator) -> float:
    """``|<K x, p> - <x, K^T p>|``, relative."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 3, *operator.space.shape, generator=generator, dtype=torch.float64)
    p = torch.randn(2, 3, *operator.codomain.shape, generator=generator, dtype=torch.float64)
    one, two = (operator(x) * p).sum(), (x * operator.adjoint(p)).sum()
    return float((one - two).abs() / one.abs())


@pytest.mark.parametrize("shape", [(9,), (14,), (12, 9), (2, 3), (9, 14, 11), (4, 5, 2)])
def test_lifting_has_an_exact_transpose(shape: tuple[int, ...]) -> None:
    kernel = prior(dim=len(shape), channels=2).weights["lifts.1"].double()
    on = Space(None, (2, *shape), dtype=torch.float64)
    assert transposed(Lifting(on, kernel)) < 1e-12  # a few hundred products in double precision
    assert transposed(Doubled(on, kernel)) > 0.1
    assert Lifting(on, kernel).codomain.shape == Lifting(on, kernel)(torch.ones(2, *shape).double()).shape


@pytest.mark.parametrize("shape", [(16, 16), (9, 14)])
def test_metric_is_symmetric_and_positive(shape: tuple[int, int]) -> None:
    bound = prior().on(Space(None, (1, *shape), dtype=torch.float64))
    eye = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, 1, *shape)
    for at in (bound, bound.stage(0), bound.stage(2)):
        matrix = at.metric(eye).flatten(1)
        assert (matrix - matrix.T).abs().max() < 1e-12 * matrix.abs().max()
        assert torch.linalg.eigvalsh(matrix)[0] > 0


def test_every_step_has_its_own_weights() -> None:
    posed = scan()
    whole = image(posed)
    for name in ("lifts.0", "lifts.2", "into.1", "low.1", "out.1", "gains.1", "filters.0", "filters.1"):
        weight = posed.parameters()[name]
        assert not torch.equal(image(posed.replace(**{name: weight + 0.1})), whole), name
    with pytest.raises(InputError, match="3 steps"):
        posed.prior.stage(3)
    shared = prior(groups=2)
    assert len(shared.network.out) == 2 and shared.network.stages == 3


class Biased(UnfoldedNetwork):
    """The broken twin: it knows how large an image is."""

    def respond(self, u: Tensor, stage: int) -> Tensor:
        return super().respond(u, stage) + 0.1


def away(network: UnfoldedNetwork, image_factor: float, data_factor: float) -> float:
    """How far the answer is from its expected multiple when units change: ``y`` times both, ``A`` times the second."""
    one = dataclasses.replace(scan(), prior=Unfolded(network.requires_grad_(False)))
    turned = one.forward * data_factor
    factor = image_factor * data_factor
    two = Inverse("other units", turned, one.data * factor, GaussianNoise(0.05 * factor), Unfolded(network))
    expected = image_factor * image(one)
    return float((image(two) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("factors", [(1.0, 1e3), (1e-3, 1.0), (250.0, 0.02)])
def test_units_play_no_part(factors: tuple[float, float]) -> None:
    """Images, data and forward model in other units give the same answer in those units, to rounding."""
    network = prior().network
    assert away(network, *factors) < 1e-10
    if factors[0] != 1:
        assert away(Biased(**network.settings), *factors) > 1e-3


def test_a_batch_is_the_stack_of_its_members_twice_the_same_bits() -> None:
    posed = scan()
    whole = image(posed)
    assert torch.equal(whole, image(posed))
    alone = torch.cat([image(posed.member(i)) for i in range(3)])
    assert (whole - alone).abs().max() < 1e-11 * whole.abs().max()  # sums run in another order


@pytest.mark.parametrize("shape", [(8, 8), (9, 13), (2, 3), (33, 2)])
def test_any_size_of_image(shape: tuple[int, int]) -> None:
    found = image(scan(shape, 1))
    assert found.shape == (1, 1, *shape) and torch.isfinite(found).all()


def test_single_precision_follows_double() -> None:
    """The weights go with the problem's dtype; three steps in float32 agree to a few thousand roundings."""
    high, low = image(scan()), image(scan().to(torch.float32))
    assert low.dtype == torch.float32
    assert (low.double() - high).abs().max() < 1e-4 * high.abs().max()


def test_it_is_judged_by_the_misfit_alone() -> None:
    posed = scan()
    with pytest.warns(UserWarning, match="misfit"):
        solution = sciml.solve(posed, THROUGH)
    assert [check.name for check in solution.checks if check.target is not None] == ["misfit"]
    with pytest.warns(UserWarning):
        heavy = sciml.solve(posed.with_weight(7.0), THROUGH)
    assert torch.equal(heavy.value, solution.value)  # a weight plays no part
    loose = float(solution.check("misfit").value.max()) * 1.01
    assert sciml.solve(posed.with_target(misfit=loose), THROUGH).ok


def test_refusals() -> None:
    posed = scan()
    with pytest.raises(InputError, match="states no energy"):
        sciml.solve(posed, Discrepancy(THROUGH))
    for wrong in (PrimalDual(), PrimalDual(max_steps=3, ratio=0.3), PrimalDual(max_steps=4, ratio=0.3, relaxation=1.0)):
        with pytest.raises(InputError, match=r"PrimalDual\(max_steps=3, ratio=0.3, relaxation=1.0\)"):
            sciml.solve(posed, wrong)
    assert THROUGH.accepts(posed.with_prior(TotalVariation())) is not None  # the others still need a weight
    with pytest.raises(InputError, match="1 channels on 2 axes"):
        prior().on(Space(None, (2, 8, 8)))
    with pytest.raises(InputError, match="real"):
        prior().on(Space(None, (1, 8, 8), complex=True))
    with pytest.raises(InputError, match="two points"):
        prior().on(Space(None, (1, 8, 1)))
    with pytest.raises(InputError, match="does not know its space"):
        prior().operator  # noqa: B018
    with pytest.raises(InputError, match="UnfoldedNetwork"):
        Unfolded(torch.nn.Linear(3, 3))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="groups at most stages"):
        UnfoldedNetwork(stages=3, groups=4)


def test_gradients_of_weights_and_data_through_all_steps() -> None:
    """The directional derivative against a central difference of step 1e-6, which is good to about 1e-9 relative in float64.

    Rectifiers bend: a direction in which one switches within the step would show as 1e-6.
    """
    posed = scan()
    known = {name: posed.parameters()[name] for name in ("data", "lifts.1", "into.1", "low.1", "out.2", "filters.0")}
    generator = torch.Generator().manual_seed(3)
    along = {n: torch.randn(t.shape, generator=generator, dtype=t.dtype) * t.abs().mean() for n, t in known.items()}
    seen = torch.randn(3, 1, 12, 9, generator=generator, dtype=torch.float64)

    def value(step: float) -> Tensor:
        moved = posed.replace(**{name: t + step * along[name] for name, t in known.items()})
        return (image(moved) * seen).sum()

    leaves = {name: t.clone().requires_grad_() for name, t in known.items()}
    slopes = torch.autograd.grad((image(posed.replace(**leaves)) * seen).sum(), list(leaves.values()))
    exact = sum(((g * along[n]).sum() for n, g in zip(leaves, slopes, strict=True)), torch.zeros(()))
    difference = (value(1e-6) - value(-1e-6)) / 2e-6
    assert abs(float(exact - difference)) < 1e-5 * abs(float(exact))
    assert abs(float(2 * exact - difference)) > 0.1 * abs(float(exact))


def test_saved_and_loaded(tmp_path: Path) -> None:
    posed = scan(dtype=torch.float32)
    posed.prior.save(tmp_path)
    for loaded in (Unfolded.load(tmp_path), sciml.pretrained(str(tmp_path))):
        assert torch.equal(image(posed.with_prior(loaded)), image(posed))
        assert not any(weight.requires_grad for weight in loaded.weights.values())
    (tmp_path / "checkpoint.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError):
        Unfolded.load(tmp_path)


def test_its_solver_is_the_one_of_the_training() -> None:
    steps = Unfolded(UnfoldedNetwork(stages=3, memory=6, hidden=5)).solver()
    assert steps.accepts(scan()) is None and (steps.max_steps, steps.ratio, steps.relaxation) == (3, 0.3, 1.0)
    chain = dataclasses.replace(prior(), filtered=True).solver()
    posed = scan()
    start = posed.forward.backproject_filtered(posed.data, chain.first.window)
    assert torch.equal(image(posed, chain), sciml_from(posed, start))


def sciml_from(posed: Inverse[Any], start: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sciml.solve(posed, THROUGH, start=start).value


def test_rounding_is_for_training_only() -> None:
    """bfloat16 keeps three digits; evaluation does not round."""
    coarse, fine = prior(rounded=True).network, prior().network
    u = torch.randn(2, 6, 8, 7, generator=torch.Generator().manual_seed(4))
    assert torch.equal(coarse.eval().respond(u, 1), fine.respond(u, 1))
    rounded = coarse.train().respond(u, 1)
    error = (rounded - fine.respond(u, 1)).norm() / fine.respond(u, 1).norm()
    assert 1e-5 < error < 2e-2
