"""Physics-informed networks: derivatives, Gauss-Newton steps, forms, sampling, refusals, certificates."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sciml
from sciml import Code, InputError
from sciml.core import Continuous, Equation, Evolution, GaussianNoise, Inverse, Law, Linear
from sciml.core.continuous import At
from sciml.core.tree import rebuild
from sciml.discretise import Diffusion, SideLaw
from sciml.domains import Dirichlet, Grid, Neumann, Periodic
from sciml.domains.interpolant import Interpolant
from sciml.forward import ParameterToState
from sciml.learned import PINN
from sciml.learned._ansatz import box_of
from sciml.learned._fields import Evolved
from sciml.learned._jets import Layers, Streams, jets_of
from sciml.learned._optimisers import Momentum, definite
from sciml.learned.pinn import (
    SOAP,
    Balanced,
    Descent,
    Even,
    Exact,
    Fixed,
    Given,
    LimitedMemory,
    Odd,
    Penalised,
    ResidualAdaptive,
    Sobol,
    Staged,
    Tempered,
    Uniform,
    WoodburyGaussNewton,
)
from sciml.networks import FNO, MLP, SIREN
from sciml.solvers import ExponentialRungeKutta

warnings.filterwarnings("ignore", message="BUDGET|UNCERTIFIED|STAGNATED")
DOUBLE = torch.float64


def quiet(problem: Any, solver: PINN, **settings: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sciml.solve(problem, solver, **settings)


def poisson(n: int = 15) -> Linear:
    return sciml.problem("poisson", n=(n, n + 2), extent=(1.0, 1.3))


def burgers(n: int = 64, viscosity: Any = 0.1, **settings: Any) -> Evolution:
    x = torch.arange(n, dtype=DOUBLE) * 2 / n
    given = {"length": 2.0, "times": (0.25, 0.5), "start": torch.sin(math.pi * x), **settings}
    return sciml.problem("burgers", n=n, viscosity=viscosity, **given)


def small(inputs: int = 2, width: int = 8, **settings: Any) -> MLP:
    return MLP(inputs, width=width, layers=2, seed=1, **settings)


def objective_of(solver: PINN, problem: Any) -> tuple[Any, Tensor]:
    setup = solver.setup(problem)
    state = solver.init(problem, setup, None)
    return state.objective, state.theta[0]


@pytest.mark.parametrize(
    "network",
    [
        small(),
        small(activation="gelu"),
        small(activation="sin"),
        small(activation="silu"),
        small(activation="softplus"),
        SIREN(2, width=7, layers=2, omega=3.0),
    ],
)
def test_derivatives_equal_those_of_autograd(network: nn.Module) -> None:
    """To rounding times the size of derivatives of third order (about 100 here)."""
    network = network.double()
    points = torch.rand(6, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    streams = Streams.of([(0, 1, 1), (0, 0)])
    assert streams.indices == ((), (0,), (1,), (0, 0), (0, 1), (1, 1), (0, 1, 1))
    theta = torch.cat([p.detach().reshape(-1) for layer in network.layers for p in (layer.weight, layer.bias)])
    inputs = jets_of(lambda q: q, points, streams)
    carried = Layers.of(network).forward(theta, inputs, streams)[0]
    known = jets_of(network, points, streams)
    assert float((carried - known).detach().abs().max()) < 1e-11
    wrong = jets_of(lambda q: network(q + 1e-3), points, streams)
    assert float((carried - wrong).detach().abs().max()) > 1e-6


def test_products_follow_leibniz() -> None:
    points = torch.rand(5, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    streams = Streams.of([(0, 0), (0, 1)])
    f, g = (lambda q: torch.sin(q[:, 0] * q[:, 1])), (lambda q: torch.exp(q[:, 0]) + q[:, 1] ** 3)
    product = streams.product(jets_of(f, points, streams)[..., 0], jets_of(g, points, streams)[..., 0])
    assert torch.allclose(product, jets_of(lambda q: f(q) * g(q), points, streams)[..., 0], atol=1e-13)


@pytest.mark.parametrize(
    ("problem", "form"),
    [
        (poisson(), Exact()),
        (poisson(), Penalised()),
        (burgers(), Exact(symmetries=(Odd(0, 1.0),))),
        (burgers(), Penalised(harmonics=2)),
    ],
)
def test_the_jacobian_is_that_of_the_rows(problem: Any, form: Any) -> None:
    """Row by row, against reverse mode through the whole residual."""
    solver = PINN(small(PINN(form=form).setup(problem).layers.sizes[0], width=4), form=form, sampling=Sobol(7))
    objective, theta = objective_of(solver, problem)
    rows, jacobian = objective.jacobian(theta)
    known = torch.autograd.functional.jacobian(objective.rows, theta)
    size = float(known.abs().max())
    assert torch.allclose(rows, objective.rows(theta), atol=1e-13)
    assert float((jacobian - known).abs().max()) < 1e-12 * size
    value, gradient = objective.value_and_gradient(theta)
    assert torch.allclose(gradient, jacobian.T @ rows, atol=1e-11 * size)
    assert float(value) == pytest.approx(0.5 * float(rows @ rows))
    twin = dataclasses.replace(objective.layers, gain=1.01)  # another network: its Jacobian must not pass
    other = dataclasses.replace(objective, layers=twin).jacobian(theta)[1]
    assert float((other - known).abs().max()) > 1e-4 * size


@pytest.mark.parametrize("points", [20, 150], ids=["fewer points than weights", "more points than weights"])
def test_a_gauss_newton_step_is_dense_least_squares(points: int) -> None:
    """The minimiser of |J d + r|^2 + damping |d|^2, from a QR of the stacked matrix; the condition is below 1e6."""
    objective, theta = objective_of(PINN(small(), sampling=Sobol(points)), poisson())
    damping = 10.0
    r, j = objective.jacobian(theta)
    assert (j.shape[0] < j.shape[1]) == (points == 20)
    rule = WoodburyGaussNewton(damping=damping, tries=1)
    moved, memory = rule.step(objective, theta, Momentum(damping))
    stacked = torch.cat((j, math.sqrt(damping) * torch.eye(len(theta), dtype=DOUBLE)))
    known = torch.linalg.lstsq(stacked, torch.cat((-r, torch.zeros_like(theta))).unsqueeze(1)).solution[:, 0]
    assert memory.stuck == 0
    assert float(torch.linalg.vector_norm(moved - theta - known)) < 1e-8 * float(torch.linalg.vector_norm(known))
    other = WoodburyGaussNewton(tries=1).step(objective, theta, Momentum(1.1 * damping))[0]
    assert float(torch.linalg.vector_norm(other - theta - known)) > 1e-4 * float(torch.linalg.vector_norm(known))
    assert memory.last is not None and torch.allclose(theta + memory.last, moved, atol=1e-15)
    before = 0.3 * known  # the minimiser of |J d + r|^2 + damping |d - momentum before|^2
    moved, _ = rule.step(objective, theta, Momentum(damping, last=before))
    right = torch.cat((-r, math.sqrt(damping) * rule.momentum * before))
    drawn = torch.linalg.lstsq(stacked, right.unsqueeze(1)).solution[:, 0]
    size = float(torch.linalg.vector_norm(drawn))
    assert float(torch.linalg.vector_norm(moved - theta - drawn)) < 1e-8 * size
    assert float(torch.linalg.vector_norm(known - drawn)) > 1e-4 * size


def test_a_matrix_that_lost_its_definiteness_gets_jitter_that_is_told() -> None:
    v = torch.linspace(1, 2, 6, dtype=DOUBLE)
    singular = torch.outer(v, v) - 1e-12 * torch.eye(6, dtype=DOUBLE)
    factor, jitter = definite(singular, 0.0)
    assert 1e-12 <= jitter < 1e-9 and bool(torch.isfinite(factor).all())
    assert definite(torch.eye(3, dtype=DOUBLE), 0.0)[1] == 0.0
    with pytest.raises(InputError, match="not finite"):
        definite(torch.full((2, 2), math.nan, dtype=DOUBLE), 1.0)
    solution = quiet(poisson(), PINN(small(), sampling=Sobol(50), max_steps=2))
    assert solution.stats["jitter"] == 0.0


def test_it_solves_poissons_equation() -> None:
    """A smooth solution; the discrete solution is 1e-3 away (second order), the network is 1e-4 from the exact one."""
    problem = poisson()
    solution = quiet(problem, PINN(small(), sampling=Sobol(200), max_steps=90))
    away = problem.space.norm(solution.value - problem.exact) / problem.space.norm(problem.exact)
    assert float(away.max()) < 1e-4
    assert solution.code is Code.CONVERGED and solution.ok  # as a function; the grid's equations it does not meet
    strict = problem.with_target(strong=1e-6)
    assert quiet(strict, PINN(small(), sampling=Sobol(200), max_steps=90)).code is Code.BUDGET
    points = torch.stack([p.reshape(-1) for p in problem.space.grid.points()], 1)
    assert torch.equal(solution.field(points).reshape(solution.value.shape), solution.value)


def test_it_solves_an_evolution_with_the_start_built_in() -> None:
    problem = burgers()
    known = sciml.solve(problem, ExponentialRungeKutta()).value
    solver = PINN(small(3), sampling=ResidualAdaptive(200, every=10), max_steps=50)
    solution = quiet(problem, solver)
    assert float(torch.linalg.vector_norm(solution.value - known) / torch.linalg.vector_norm(known)) < 5e-3
    x = torch.rand(20, 1, dtype=DOUBLE) * 2
    first = solution.field(torch.cat((x, torch.zeros_like(x)), 1))[0, 0]
    assert torch.allclose(first, torch.sin(math.pi * x[:, 0]), atol=1e-12)
    assert solution.check("steps").value.shape == (1,)


def test_two_steps_are_reported_honestly() -> None:
    solution = quiet(poisson(), PINN(small(), sampling=Sobol(50), max_steps=2))
    assert solution.stats["steps"] == 2 and solution.code is Code.BUDGET
    assert "root mean square" in solution.sentence
    told = solution.check("discrete backward error")
    assert told.target is None and torch.equal(told.value, poisson().certify(solution.value)[0].value)
    assert float(solution.check("strong").value) > 1e-2


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    solver = PINN(sampling=ResidualAdaptive(60, every=2), max_steps=5, seed=3)
    torch.manual_seed(0)
    one = quiet(burgers(), solver).value
    torch.manual_seed(1)
    assert torch.equal(one, quiet(burgers(), solver).value)
    assert not torch.equal(one, quiet(burgers(), dataclasses.replace(solver, seed=4)).value)


def test_members_are_solved_on_their_own() -> None:
    batch = sciml.problem("poisson", n=(7, 9), batch=2, seed=5)
    solver = PINN(small(), sampling=Sobol(40), max_steps=3)
    together = quiet(batch, solver)
    assert torch.equal(together.value[1:], quiet(batch.member(1), solver).value)
    assert together.field(torch.tensor([[0.3, 0.4]])).shape == (2, 1, 1)
    assert not torch.equal(together.value[0], together.value[1])


def test_a_parametric_network_answers_for_a_range() -> None:
    rates = torch.tensor([0.1, 0.2, 0.3], dtype=DOUBLE)
    batch = burgers(32, rates)
    solution = quiet(batch, PINN(small(4, 10), parametric=("viscosity",), sampling=Sobol(300), max_steps=100))
    known = sciml.solve(batch, ExponentialRungeKutta()).value
    assert solution.value.shape == known.shape
    gaps = (solution.value - known).flatten(1).norm(dim=1) / known.flatten(1).norm(dim=1)
    assert float(gaps.max()) < 2e-2
    strong = solution.check("strong").value  # of every member at its own number
    assert strong.shape == (3,) and 1e-4 < float(strong.max()) < 5e-2
    between = sciml.solve(burgers(32, 0.15), ExponentialRungeKutta()).value[0, -1, 0]
    x = torch.arange(32, dtype=DOUBLE) * 2 / 32
    found = solution.field(torch.stack((x, torch.full_like(x, 0.5), torch.full_like(x, 0.15)), 1))[0, 0]
    assert float((found - between).norm() / between.norm()) < 2e-2
    with pytest.raises(InputError, match="outside the domain"):
        solution.field(torch.tensor([[0.5, 0.5, 0.5]]))
    with pytest.raises(InputError, match="span a range"):
        sciml.solve(burgers(32), PINN(parametric=("viscosity",)))
    assert "none of the problem's numbers" in (PINN(parametric=("start",)).accepts(batch) or "")


def sensed(viscosity: float = 0.1, noise: float = 0.01) -> Inverse[Any]:
    """Burgers' viscosity from 20 sensors at 5 times."""
    times = (0.1, 0.2, 0.3, 0.4, 0.5)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(20, 1, dtype=DOUBLE, generator=generator) * 2
    forward = ParameterToState(
        burgers(64, 0.2, times=times), "viscosity", solver=ExponentialRungeKutta(), observe=points
    )
    clean = forward(torch.full((1, *forward.space.shape), viscosity, dtype=DOUBLE))
    data = clean + noise * torch.randn(clean.shape, generator=generator, dtype=DOUBLE)
    return Inverse("viscosity from sensors", forward, data, GaussianNoise(noise))


def test_it_finds_a_number_from_noisy_sensors() -> None:
    """100 values with 1 % noise fix the viscosity to within a percent or two; the misfit is judged by a classical solve."""
    problem = sensed()
    solution = quiet(problem, PINN(small(3), sampling=Sobol(200), max_steps=40))
    assert float(solution.value.reshape(())) == pytest.approx(0.1, rel=0.02)
    assert solution.code is Code.CONVERGED and solution.check("misfit").target is not None
    assert float(solution.field(torch.tensor([[0.5, 0.0]]))) == pytest.approx(1.0, abs=1e-9)
    other = quiet(problem, PINN(small(3), sampling=Sobol(200), max_steps=1))
    assert other.code is not Code.CONVERGED


@pytest.mark.parametrize("optimiser", [Descent(each=5), LimitedMemory(each=5)])
def test_other_optimisers_lower_the_loss_and_repeat(optimiser: Any) -> None:
    solver = PINN(small(), sampling=Sobol(60), optimiser=optimiser, max_steps=4)
    one, two = quiet(poisson(), solver), quiet(poisson(), solver)
    assert float(one.history[-1]) < 0.9 * float(one.history[0])
    assert torch.equal(one.value, two.value)


def test_soap_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pytorch_optimizer", None)
    with pytest.raises(InputError, match="pip install"):
        sciml.solve(poisson(), PINN(small(), optimiser=Descent(SOAP()), max_steps=1))


def test_training_goes_on_from_a_trained_network() -> None:
    first = quiet(poisson(), PINN(small(), sampling=Sobol(60), max_steps=3))
    again = quiet(poisson(), PINN(first.field.network, sampling=Sobol(60), max_steps=3))
    assert float(again.history[0]) == pytest.approx(float(first.history[-1]), rel=1e-12)


def test_balanced_terms_pull_alike() -> None:
    objective, theta = objective_of(
        PINN(small(), form=Penalised(), weighting=Balanced(), sampling=Sobol(40)), poisson()
    )
    _, jacobian = objective.jacobian(theta)
    sizes = [float(part.square().sum()) for part in torch.split(jacobian, [t.count for t in objective.terms])]
    assert len(sizes) == 5 and max(sizes) < 1.0001 * min(sizes)
    even, _ = objective_of(PINN(small(), form=Penalised(), sampling=Sobol(40)), poisson())
    rows = torch.split(even.jacobian(theta)[1], [t.count for t in even.terms])
    assert float(rows[0].square().sum()) > 2 * float(rows[1].square().sum())


def test_sides_that_are_not_held_become_terms() -> None:
    mixed = sciml.problem(
        "poisson", n=(9, 11), sides={"x": (Dirichlet(0.0), Neumann(0.0)), "y": Periodic()}, source=1.0
    )
    objective, _ = objective_of(PINN(small(3), sampling=Sobol(20)), mixed)
    assert [term.name for term in objective.terms] == ["interior", "x_upper"]
    soft, _ = objective_of(PINN(small(3), form=Penalised(), sampling=Sobol(20)), mixed)
    assert [term.name for term in soft.terms] == ["interior", "x_lower", "x_upper"]


def test_values_that_differ_between_opposite_sides_are_held() -> None:
    line = sciml.problem("poisson", dim=1, n=9, sides={"x": (Dirichlet(1.0), Dirichlet(3.0))}, source=0.0)
    solution = quiet(line, PINN(small(1), sampling=Sobol(30), max_steps=20))
    x = line.space.grid.points()[0]
    assert float((solution.value[0, 0] - 1 - 2 * x).abs().max()) < 1e-5
    ends = solution.field(torch.tensor([[0.0], [1.0]], dtype=DOUBLE))[0, 0]
    assert torch.allclose(ends, torch.tensor([1.0, 3.0], dtype=DOUBLE), atol=1e-14)


def lifted(at: At) -> Tensor:
    return at.x[0] * (1 - at.x[0]) * at.u + 1 + 2 * at.x[0]


def waves(at: At) -> Tensor:
    return torch.stack((torch.sin(at.x[0]), torch.cos(2 * at.x[0])), 1)


def test_the_problems_own_lift_and_features_come_first() -> None:
    line = sciml.problem("poisson", dim=1, n=9, sides={"x": (Dirichlet(1.0), Dirichlet(3.0))}, source=0.0)
    strong = dataclasses.replace(line.continuous, lift=lifted, features=waves)
    own = dataclasses.replace(line, continuous=strong, recipe=None)
    objective, _ = objective_of(PINN(small(2), sampling=Sobol(10)), own)
    assert [term.name for term in objective.terms] == ["interior"]
    bent = dataclasses.replace(own, continuous=dataclasses.replace(strong, lift=lambda at: at.u**2))
    with pytest.raises(InputError, match="not affine"):
        sciml.solve(bent, PINN(small(2)))


def test_symmetries_hold_and_false_ones_are_refused() -> None:
    problem = burgers()
    odd = PINN(small(3), form=Exact(symmetries=(Odd(0, 1.0),)), sampling=Sobol(40), max_steps=2)
    field = quiet(problem, odd).field
    q = torch.rand(9, 2, dtype=DOUBLE) * torch.tensor([1.0, 0.5])
    mirrored = q.clone()
    mirrored[:, 0] = 2 - q[:, 0]
    assert torch.allclose(field(q), -field(mirrored), atol=1e-13)
    assert odd.setup(problem).ansatz.half.lower[0] == 1.0
    with pytest.raises(InputError, match="do not have that symmetry"):
        sciml.solve(problem, PINN(small(2), form=Exact(symmetries=(Even(0, 1.0),))))
    with pytest.raises(InputError, match="do not have that symmetry"):
        sciml.solve(problem, PINN(small(3), form=Exact(symmetries=(Odd(0, 0.9),))))
    with pytest.raises(InputError, match="mirror it about that"):
        sciml.solve(poisson(), PINN(form=Exact(symmetries=(Even(0, 0.3),))))


@pytest.mark.parametrize("rule", [Uniform(50), Sobol(50), ResidualAdaptive(50)])
def test_points_lie_in_the_box_and_repeat(rule: Any) -> None:
    box = box_of(burgers())
    points = rule.draw(box, 3, lambda q: q[:, 0])
    assert points.shape == (50, 2)
    box.refuse(points)
    assert torch.equal(points, rule.draw(box, 3, lambda q: q[:, 0]))
    assert not torch.equal(points, rule.draw(box, 4, lambda q: q[:, 0]))


def test_adaptive_points_go_where_the_residual_is() -> None:
    box = box_of(burgers())
    rule = ResidualAdaptive(200, pool=10, floor=0.0)
    right = rule.draw(box, 0, lambda q: (q[:, 0] > 1.5).to(DOUBLE))
    assert bool((right[:, 0] > 1.5).all())
    assert not bool((Sobol(200).draw(box, 0)[:, 0] > 1.5).all())


def test_nodal_fields_are_interpolated_with_their_derivatives() -> None:
    """A polynomial of degree 9 on spacing 1/16: (pi / 16)^10 is about 1e-7, times 10^2 for the second derivative."""
    grid = Grid((15, 18), (1.0, 2.0), {"y": Periodic()})
    x, y = grid.points()

    def f(q: Tensor) -> Tensor:
        return torch.sin(math.pi * q[:, 0]) * torch.cos(math.pi * q[:, 1])

    inner = Interpolant(torch.sin(math.pi * x) * torch.cos(math.pi * y), grid)
    q = torch.rand(40, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0])
    streams = Streams.of([(0, 0), (0, 1)])
    found = jets_of(lambda p: inner(*p.unbind(1)), q, streams)
    assert float((found - jets_of(f, q, streams)).abs().max()) < 1e-4
    assert float((found[0] - jets_of(f, q, streams)[0]).abs().max()) < 1e-6
    shifted = Interpolant(torch.roll(inner.values, 1, 0), grid)
    assert float((shifted(*q.unbind(1)) - f(q)).abs().max()) > 1e-2


def test_the_linear_part_carries_the_start_on() -> None:
    problem = burgers(32, 0.1)
    evolved = Evolved.of(problem)
    assert evolved is not None
    q = torch.tensor([[0.3, 0.0], [0.7, 0.4]], dtype=DOUBLE)
    streams = Streams.of([(0, 0), (1,)])
    jets = evolved.jets(q, streams)
    known = torch.sin(math.pi * q[:, 0]) * torch.exp(-0.1 * math.pi**2 * q[:, 1])
    assert torch.allclose(jets[0], known, atol=1e-13)
    assert torch.allclose(jets[streams.at((1,))], 0.1 * jets[streams.at((0, 0))], atol=1e-13)
    assert Evolved.of(sciml.problem("heat", n=9)) is None


def reaction(u: Tensor) -> Tensor:
    return u - 1


def test_refusals_are_sentences() -> None:
    grid = Grid((9,))
    silent = Equation("silent", Law(reaction), grid.space())
    assert "continuous" in (PINN().accepts(silent) or "")
    with pytest.raises(InputError, match="`continuous` is not stated"):
        sciml.solve(silent, PINN())
    with pytest.raises(InputError, match="of order 2 and the network's activation has only 1"):
        sciml.solve(poisson(), PINN(small(activation="elu")))
    with pytest.raises(InputError, match="build it so"):
        sciml.solve(poisson(), PINN(small(3)))
    with pytest.raises(InputError, match="MLP and SIREN, not FNO"):
        sciml.solve(poisson(), PINN(FNO(dim=2, modes=2, width=4)))
    outside = torch.tensor([[0.5, 0.5], [0.5, 1.4]], dtype=DOUBLE)
    with pytest.raises(InputError, match=r"1 points lie outside the domain, the first at \(0.5, 1.4\)"):
        sciml.solve(poisson(), PINN(small(), sampling=Given(outside)))
    with pytest.raises(InputError, match="no term 'sides'"):
        sciml.solve(poisson(), PINN(small(), weighting=Fixed({"sides": 10.0})))
    corner = sciml.problem(
        "poisson", n=9, sides={"x": Dirichlet(0.0), "y": (Dirichlet(0.0), Dirichlet(1.0))}, source=0.0
    )
    with pytest.raises(InputError, match="meet in a corner"):
        sciml.solve(corner, PINN(small()))
    assert quiet(corner, PINN(small(), form=Penalised(), sampling=Sobol(30), max_steps=1)).value.shape == (1, 1, 9, 9)
    torn = sciml.problem("heat", n=9, sides=Dirichlet(1.0))
    with pytest.raises(InputError, match="the start misses the value 1"):
        sciml.solve(torn, PINN(small()))
    with pytest.raises(InputError, match="at least 1"):
        PINN(max_steps=0)


def test_inverse_problems_of_another_kind_are_refused() -> None:
    ct = sciml.problem("deblur", n=16)
    assert "ParameterToState" in (PINN().accepts(ct) or "")
    darcy = ParameterToState(
        Linear(
            "d",
            Diffusion(Grid((5,)), torch.ones(1, 1, 5, dtype=DOUBLE)),
            torch.ones(1, 1, 5, dtype=DOUBLE),
            continuous=Continuous(lambda at: -at.d(0, 0), SideLaw.of(Grid((5,)))),
        ),
        "coefficient",
        solver=sciml.solvers.Direct(),
    )
    field = Inverse("d", darcy, torch.ones(1, 1, 5, dtype=DOUBLE), GaussianNoise(0.1))
    assert "a single number" in (PINN().accepts(field) or "")


def test_a_lower_precision_is_answered_in_it() -> None:
    low = rebuild(poisson(7), lambda leaf: leaf.tensor).to(torch.float32)
    assert quiet(low, PINN(small(), sampling=Sobol(20), max_steps=1)).value.dtype == torch.float32


def test_few_points_come_first() -> None:
    rule = Staged(Sobol(20), Sobol(50), until=2)
    solver = PINN(small(), sampling=rule, max_steps=4)
    problem = poisson()
    setup = solver.setup(problem)
    state = solver.init(problem, setup, None)
    counts = []
    with torch.no_grad():
        for _ in range(4):
            state = solver.step(problem, setup, state)
            counts.append(sum(term.count for term in state.objective.terms))
    assert counts == [20, 20, 50, 50] and (rule.points, rule.every) == (50, 0)
    with pytest.raises(InputError, match="at least 1 step"):
        Staged(until=0)


def test_data_lead_until_the_equation_is_met() -> None:
    problem = sensed()
    solver = PINN(small(3), sampling=Sobol(50), weighting=Tempered(share=2.0, least=1e-5, most=1e3))
    objective, theta = objective_of(solver, problem)
    terms = {term.name: term for term in objective.terms}
    size = float(objective.residual(terms["interior"], theta).square().mean())
    assert terms["data"].weight == pytest.approx(2.0 * size) and terms["interior"].weight == 1.0
    assert Tempered(most=1e-3).weigh(objective, theta)[-1] == 1e-3  # far from the solution
    assert Tempered(share=0.0).weigh(objective, theta)[-1] == 1e-4
    forward, _ = objective_of(PINN(small(), sampling=Sobol(20)), poisson())
    assert [term.weight for term in forward.terms] == [1.0]


def test_windows_of_time_follow_each_other() -> None:
    """Three windows over two wanted times; the end of a window is the start of the next, to the interpolation of its waves."""
    problem = burgers()
    known = sciml.solve(problem, ExponentialRungeKutta()).value
    solver = PINN(small(3), sampling=Sobol(200), max_steps=25, windows=3)
    solution = quiet(problem, solver)
    assert solution.value.shape == known.shape and solution.stats["steps"] == 75
    assert float(torch.linalg.vector_norm(solution.value - known) / torch.linalg.vector_norm(known)) < 5e-3
    x = torch.arange(64, dtype=DOUBLE) * 2 / 64
    at = [solution.field(torch.stack((x, torch.full_like(x, t)), 1))[0, 0] for t in (1 / 6, 1 / 6 + 1e-9, 0.25, 0.5)]
    assert float((at[1] - at[0]).abs().max()) < 1e-6
    assert torch.allclose(torch.stack(at[2:]), solution.value[0, :, 0], atol=1e-12)
    first = solution.field(torch.stack((x, torch.zeros_like(x)), 1))[0, 0]
    assert torch.allclose(first, problem.start[0, 0], atol=1e-12)
    with pytest.raises(InputError, match="outside the domain"):
        solution.field(torch.tensor([[0.5, 0.7]]))
    with pytest.raises(InputError, match="at least 1"):
        PINN(windows=0)
    assert "windows of time are for evolutions" in (PINN(windows=2).accepts(poisson()) or "")


@pytest.mark.parametrize("symmetries", [(), (Odd(0, 1.0),)])
def test_the_start_can_be_an_input(symmetries: Any) -> None:
    """All derivatives of what the network takes, against those of the function itself; the candidate keeps start and symmetry."""
    problem = burgers()
    form = Exact(symmetries=symmetries, fed=True)
    setup = PINN(small(4), form=form).setup(problem)
    assert setup.ansatz.inputs == 4
    q = torch.rand(5, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.5])
    streams = Streams.of([(0, 0), (1,)])
    inputs = setup.ansatz.patch(q, streams).inputs.reshape(len(streams.indices), len(setup.ansatz.copies), 5, 4)
    for k, (sign, mirrors) in enumerate(setup.ansatz.copies):
        wave = jets_of(
            lambda p, turn=sign: turn * torch.sin(math.pi * p[:, 0]) * torch.exp(-0.1 * math.pi**2 * p[:, 1]),
            q,
            streams,
        )
        assert float((inputs[:, k, :, 3] - wave[..., 0]).abs().max()) < 1e-12
        assert len(mirrors) == (sign < 0)
    field = quiet(problem, PINN(small(4), form=form, sampling=Sobol(40), max_steps=2)).field
    assert torch.allclose(field(q * torch.tensor([1.0, 0.0]))[0, 0], torch.sin(math.pi * q[:, 0]), atol=1e-12)
    with pytest.raises(InputError, match="feeds the start of an evolution"):
        sciml.solve(poisson(), PINN(small(3), form=Exact(fed=True)))
