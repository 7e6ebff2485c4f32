"""Reduced models: modes, interpolation, Galerkin projection, the bound, and what is refused; with twins that must fail."""

from __future__ import annotations

import dataclasses
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml import Code, InputError, Solution
from sciml.core import Context, Evolution, Law
from sciml.core.law import no_law
from sciml.discretise import Spectrum
from sciml.domains import Grid, Neumann, Periodic
from sciml.learned import ReducedModel
from sciml.learned._pointwise import Pointwise
from sciml.learned._subspace import interpolation_points, proper_modes
from sciml.solvers import Collocation, ExponentialRungeKutta

TIMES = [0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3]
TAUGHT = [0.02, 0.03, 0.045, 0.07, 0.1]


def burgers(viscosity: list[float], times: list[float] = TIMES, n: int = 90, **settings: Any) -> Evolution:
    nu = torch.tensor(viscosity, dtype=torch.float64)
    return sciml.problem("burgers", n=n, viscosity=nu, times=times, seed=3, power=3.0, **settings)


@pytest.fixture(scope="module")
def taught() -> Solution:
    return sciml.solve(burgers(TAUGHT))


@pytest.fixture(scope="module")
def unseen() -> tuple[Evolution, Tensor]:
    problem = burgers([0.025, 0.06, 0.085], times=[0.0, 0.04, 0.17, 0.3])
    return problem, sciml.solve(problem).value


def snapshots() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(14, 9, dtype=torch.float64, generator=generator) * 0.5 ** torch.arange(9, dtype=torch.float64)
    return made, 0.1 + torch.rand(9, dtype=torch.float64, generator=generator)


def left_over(made: Tensor, weights: Tensor, modes: Tensor) -> float:
    rest = made - (made * weights) @ modes.T @ modes
    return float((rest.square() * weights).sum())


def test_modes_are_the_best_subspace_and_the_singular_values_say_how_good() -> None:
    made, weights = snapshots()
    modes, values = proper_modes(made, weights)
    assert torch.allclose((modes * weights) @ modes.T, torch.eye(9, dtype=torch.float64), atol=1e-12)
    for r in (1, 3, 6):
        tail = float(values[r:].square().sum())
        # Rounding of sums of 126 products.
        assert abs(left_over(made, weights, modes[:r]) - tail) <= 1e-12 * float(values.square().sum())
        other = torch.linalg.qr(torch.randn(9, r, dtype=torch.float64, generator=torch.Generator().manual_seed(r)))[0]
        twin = (other / weights.sqrt().unsqueeze(1)).T  # orthonormal all the same
        assert left_over(made, weights, twin) > 1.01 * tail
    plain, _ = proper_modes(made, torch.ones(9, dtype=torch.float64))  # blind to the weights
    assert float(((plain * weights) @ plain.T - torch.eye(9, dtype=torch.float64)).abs().max()) > 0.1


def test_interpolation_is_exact_on_its_span_and_not_elsewhere() -> None:
    generator = torch.Generator().manual_seed(1)
    functions = torch.linalg.qr(torch.randn(31, 7, dtype=torch.float64, generator=generator))[0].T
    points = interpolation_points(functions)
    assert len(set(points.tolist())) == 7
    f = torch.randn(4, 7, dtype=torch.float64, generator=generator) @ functions

    def interpolated(f: Tensor, points: Tensor) -> Tensor:
        return torch.linalg.solve(functions[:, points].T, f[:, points].T).T @ functions

    assert torch.allclose(interpolated(f, points), f, rtol=0, atol=1e-10)
    outside = torch.randn(4, 31, dtype=torch.float64, generator=generator)
    assert float((interpolated(outside, points) - outside).abs().max()) > 0.1
    # The points matter: neighbours in a row condition the same problem far worse.
    smooth = torch.stack([torch.cos(k * torch.linspace(0, 3, 31, dtype=torch.float64)) for k in range(7)])
    smooth = torch.linalg.qr(smooth.T)[0].T
    greedy, row = (torch.linalg.cond(smooth[:, p]) for p in (interpolation_points(smooth), torch.arange(7)))
    assert float(row) > 100 * float(greedy)


def test_the_pointwise_part_of_a_law_is_found() -> None:
    problem = burgers([0.05])
    form = Pointwise.of(problem, problem.start)
    assert form is not None and len(form.powers) == 3  # u^2 up to a factor
    u = problem.start * 0.7
    meant = problem.rest(0.0, u, space=problem.space)
    assert torch.allclose(form.outer(form.inner(u)), meant, rtol=0, atol=1e-11 * float(meant.abs().max()))
    slope = (form.inner(u + 1e-6) - form.inner(u - 1e-6)) / 2e-6
    assert torch.allclose(form.inner(u, 1), slope, atol=1e-8)
    mixed = dataclasses.replace(problem, rest=Law(lambda t, u: u * u.roll(1, -1)), rest_modes=None)
    assert Pointwise.of(mixed, problem.start) is None
    clocked = dataclasses.replace(problem, rest=Law(lambda t, u: (1 + t) * u * u), rest_modes=None)
    assert Pointwise.of(clocked, problem.start) is None


def test_a_complete_basis_gives_the_full_model(taught: Solution) -> None:
    """As many modes as unknowns, a law that is not of the pointwise form: the same equations, integrated to 1e-5."""
    grid = Grid((12,), (1.0,), Periodic())
    generator = torch.Generator().manual_seed(0)
    starts = torch.randn(12, 1, 12, dtype=torch.float64, generator=generator)
    rate = torch.tensor(0.01, dtype=torch.float64)

    def posed(start: Tensor) -> Evolution:
        return Evolution(
            "mixed",
            grid.space(),
            start,
            (0.0, 0.3),
            Law(_mixed),
            Spectrum(grid, diffusivity=rate),
            referee=Collocation(),
        )

    problem = posed(starts[:2])
    value = sciml.solve(posed(starts), ExponentialRungeKutta()).value
    solution = Solution(value, torch.ones(12, dtype=torch.int64), (), posed(starts), None, {})
    exact = sciml.solve(problem, ExponentialRungeKutta()).value
    away = [
        float(
            problem.space.norm(
                ReducedModel(solution, modes=m, reference=0).run(problem, None, Context()).value - exact
            ).max()
        )
        for m in (12, 8)
    ]
    assert away[0] < 2e-5 * float(problem.space.norm(exact).max())
    assert away[1] > 1e-2  # the twin with too few


def _mixed(t: float, u: Tensor) -> Tensor:
    return u.roll(1, -1) * 0.5 - u * u.roll(1, -1).square()


def test_the_bound_bounds_the_error_on_unseen_members(taught: Solution, unseen: tuple[Evolution, Tensor]) -> None:
    problem, exact = unseen
    space = problem.space
    for modes, allowed in ((6, 0.1), (10, 1e-2)):
        answer = ReducedModel(taught, modes=modes, reference=30).run(problem, None, Context())
        error = (space.norm(answer.value - exact) / space.norm(exact)).T
        assert answer.history is not None and answer.history.shape == (4, 3)
        assert float(error.max()) < allowed
        assert bool((answer.history >= error).all())
        effectivity = (answer.history / error)[1:]
        assert float(effectivity.max()) < 50
        # The twin: what the certificate's own solution would be told by a bound without the richer model's distance.
        assert bool((2e-5 < error[1:]).all())
        assert answer.counts["bound"] == float(answer.history.max())
    assert ReducedModel(taught, modes=6, reference=0).run(problem, None, Context()).history is None


def test_a_batch_is_the_stack_of_its_members_and_runs_repeat(
    taught: Solution, unseen: tuple[Evolution, Tensor]
) -> None:
    problem, _ = unseen
    solver = ReducedModel(taught, modes=8, reference=0)
    whole = solver.run(problem, None, Context()).value
    assert torch.equal(whole, solver.run(problem, None, Context()).value)
    alone = torch.cat([solver.run(problem.member(i), None, Context()).value for i in range(3)])
    # Members choose their own steps when alone: both are within the error of the time steps, 1e-5.
    assert torch.allclose(whole, alone, rtol=0, atol=1e-5)
    assert not torch.allclose(whole, alone.roll(1, 0), rtol=0, atol=1e-5)


def test_saved_and_loaded_it_gives_the_same_bits(
    taught: Solution, unseen: tuple[Evolution, Tensor], tmp_path: Path
) -> None:
    problem, _ = unseen
    solver = ReducedModel(taught, modes=8)
    solver.save(tmp_path / "rom")
    again = ReducedModel.load(tmp_path / "rom", modes=8)
    one, two = (s.run(problem, None, Context()) for s in (solver, again))
    assert torch.equal(one.value, two.value) and torch.equal(one.history, two.history)
    assert torch.equal(pickle.loads(pickle.dumps(again)).run(problem, None, Context()).value, one.value)
    with pytest.raises(InputError, match="there is no file"):
        ReducedModel.load(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (lambda: burgers([0.05, 0.2]), "viscosity of member 1 is 0.2 and its snapshots range from 0.02 to 0.1"),
        (lambda: burgers([0.05], times=[0.5]), "cover the times 0 to 0.3, the problem asks for 0 to 0.5"),
        (lambda: burgers([0.05], n=64), "keeps the grid of its snapshots"),
        (lambda: burgers([0.05], length=2.0), "taken on another grid"),
        (lambda: burgers([0.05]).replace(start=torch.rand(1, 1, 90, dtype=torch.float64)), "lies outside of the modes"),
        (lambda: sciml.problem("poisson", n=15), "use Trained"),
    ],
)
def test_what_the_snapshots_do_not_cover_is_refused(taught: Solution, problem: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        sciml.solve(problem(), ReducedModel(taught, modes=8))


def test_derivatives_pass_through_the_small_system(taught: Solution) -> None:
    problem = burgers([0.03, 0.06], times=[0.05])
    solver = ReducedModel(taught, modes=6, reference=0)

    def size(nu: Tensor) -> Tensor:
        return solver.run(problem.replace(viscosity=nu), None, Context()).value.square().sum((1, 2, 3))

    nu = torch.tensor([0.03, 0.06], dtype=torch.float64, requires_grad=True)
    size(nu).sum().backward()
    assert nu.grad is not None
    with torch.no_grad():
        slope = (size(nu + 1e-5) - size(nu - 1e-5)) / 2e-5
    # The differences are wrong by their square and by rounding over 1e-5.
    assert torch.allclose(nu.grad, slope, rtol=1e-4)
    assert not torch.allclose(nu.grad, slope.flip(0), rtol=1e-4)


def test_it_is_judged_like_any_other(taught: Solution, unseen: tuple[Evolution, Tensor]) -> None:
    problem, _ = unseen
    with pytest.warns(UserWarning, match="UNCERTIFIED.*by its own bound"):
        solution = sciml.solve(problem, ReducedModel(taught, modes=8))
    assert solution.code is Code.UNCERTIFIED and solution.value.shape == (3, 4, 1, 90)
    assert torch.equal(solution.value[:, 0], problem.start.expand(3, 1, 90))
    assert solution.stats["bound"] > 0


def test_heat_on_sides_that_feed_it() -> None:
    """Side values enter as a constant rate; the weights of the space are half at the end with a node."""
    k = torch.tensor([0.05, 0.07, 0.1, 0.15, 0.2], dtype=torch.float64)
    settings: dict[str, Any] = {"n": 25, "sides": {"x": (Neumann(0.03), sciml.Dirichlet(0.2))}, "seed": 1}
    fine = [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4]
    taught = sciml.solve(sciml.problem("heat", diffusivity=k, times=fine, **settings))
    unseen = torch.tensor([0.06, 0.17], dtype=torch.float64)
    problem = sciml.problem("heat", diffusivity=unseen, times=[0.05, 0.4], **settings)
    exact = sciml.solve(problem).value
    solver = ReducedModel(taught, modes=8, reference=16)
    answer = solver.run(problem, None, Context())
    error = (problem.space.norm(answer.value - exact) / problem.space.norm(exact)).T
    assert float(error.max()) < 3e-3 and answer.history is not None
    assert bool((answer.history >= error).all())
    unfed = dataclasses.replace(problem, rest=Law(no_law))  # the twin whose sides feed nothing
    assert float(problem.space.norm(solver.run(unfed, None, Context()).value - exact).max()) > 1e-2


def test_from_a_generated_data_set(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n": 32, "viscosity": 0.05, "times": [0.0, 0.05, 0.1, 0.2], "power": 4.0}
    sciml.generate("burgers", count=6, out=tmp_path / "movies.h5", progress=False, **settings)
    movies = sciml.open_dataset(tmp_path / "movies.h5")
    solver = ReducedModel(snapshots=movies, modes=16)
    assert solver.reduction.ranges["viscosity"] == (0.05, 0.05)
    problem = sciml.problem("burgers", **settings).replace(
        start=torch.from_numpy(movies.u.values[2:3, 0]).double()[:, None]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = sciml.solve(problem, solver).value
    exact = sciml.solve(problem).value
    assert float((problem.space.norm(value - exact) / problem.space.norm(exact)).max()) < 0.05


def test_bad_settings_are_refused(taught: Solution) -> None:
    with pytest.raises(InputError, match="at least one mode"):
        ReducedModel(taught, modes=0)
    with pytest.raises(InputError, match="more in the reference"):
        ReducedModel(taught, modes=8, reference=8)
    with pytest.raises(InputError, match="not a number|takes a Solution"):
        ReducedModel(3.0)
    failed = dataclasses.replace(taught, codes=torch.full_like(taught.codes, int(Code.BUDGET)))
    with pytest.raises(InputError, match="must be certified"):
        ReducedModel(failed)


def test_the_example_tells_what_it_should() -> None:
    import importlib.util

    path = Path(__file__).resolve().parents[2] / "examples" / "reduced.py"
    spec = importlib.util.spec_from_file_location("reduced_example", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.main(n=96, asked=5)
    assert found["error"] < 2e-4
    assert 1 <= found["least effectivity"] and found["effectivity"] < 50
