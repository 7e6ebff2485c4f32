"""Parameters of equations and evolutions to states and values at points: derivatives, batches, refusals, speed of products."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest
import torch

import sciml
from sciml import checks
from sciml.core import Equation, Law, Linear
from sciml.core.tree import rebuild
from sciml.discretise import Diffusion, laplacian
from sciml.domains import Dirichlet, Grid, InputError, Neumann, Periodic, Pixels, Space
from sciml.forward import ParameterToState, PointValues
from sciml.solvers import ConjugateGradient, Direct, Multigrid, Newton


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def points(count: int, *extent: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(count, len(extent), generator=generator, dtype=torch.float64) * torch.tensor(extent).double()


def logistic(u: torch.Tensor, *, rate: torch.Tensor, wind: torch.Tensor, space: Space) -> torch.Tensor:
    """A nonlinear law whose tangent is not symmetric."""
    along = torch.nn.functional.pad(u, (0, 0, 1, 0))[..., :-1, :]
    return -laplacian(u, space) + wind * (u - along) + rate * u * u - 1


# Values at points


@pytest.mark.parametrize(
    "sides",
    [
        {"x": Dirichlet(0.0), "y": Neumann(0.0)},
        {"x": (Neumann(0.0), Dirichlet(0.0)), "y": (Dirichlet(0.0), Neumann(0.0))},
    ],
)
def test_linear_fields_are_interpolated_exactly(sides: dict[str, Any]) -> None:
    """``1 + 2 x - 3 y``, with its own values on the Dirichlet sides: varying along them, and numbers across."""
    bare = Grid((5, 9), (1.0, 2.0), sides, origin=(0.5, -1.0))

    def field(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 1 + 2 * x - 3 * y

    given: dict[str, Any] = {}
    for axis, pair in zip("xy", bare.conditions, strict=True):
        named = zip(pair, ("lower", "upper"), strict=True)
        given[axis] = tuple(
            dataclasses.replace(c, value=field(*bare.side_points(f"{axis}_{w}"))) if isinstance(c, Dirichlet) else c
            for c, w in named
        )
    grid = Grid((5, 9), (1.0, 2.0), given, origin=(0.5, -1.0))
    at = points(40, 1.0, 2.0) + torch.tensor([0.5, -1.0]).double()
    corners = torch.tensor([[0.5, -1.0], [1.5, 1.0], [0.5, 1.0], [1.5, -1.0], [1.0, 1.0]]).double()
    at = torch.cat((at, corners))
    sensors = PointValues(grid.space(), at)
    u = field(*grid.points())[None, None]
    torch.testing.assert_close(sensors.values(u)[0, 0], field(at[:, 0], at[:, 1]), rtol=0, atol=1e-12)
    assert not torch.allclose(sensors(u)[0, 0], field(at[:, 0], at[:, 1]))  # the known values count
    assert checks.adjoint(sensors)


def test_periodic_axes_and_pixels() -> None:
    grid = Grid((16,), (1.0,), Periodic())
    (x,) = grid.points()
    sensors = PointValues(grid.space(), torch.tensor([1 - 1 / 32, 0.0, 1.0]).double())
    u = torch.sin(6.283185307179586 * x)[None, None]
    torch.testing.assert_close(sensors(u)[0, 0], torch.stack((u[0, 0, -1] / 2, u[0, 0, 0], u[0, 0, 0])))
    assert checks.adjoint(sensors)
    pixels = Pixels((4, 6), (1.0, 2.0))
    px, py = pixels.points()
    inside = points(9, 0.7, 1.6) - torch.tensor([0.35, 0.8])
    seen = PointValues(pixels.space(), inside)
    torch.testing.assert_close(seen((px - 2 * py)[None, None])[0, 0], inside[:, 0] - 2 * inside[:, 1])
    assert checks.adjoint(seen)


def test_second_order_for_smooth_fields() -> None:
    errors = []
    for n in (15, 31):
        grid = Grid((n, n))
        x, y = grid.points()
        at = points(200, 1.0, 1.0)
        found = PointValues(grid.space(), at)((torch.sin(3.141592653589793 * x) * y * (1 - y))[None, None])[0, 0]
        wanted = torch.sin(3.141592653589793 * at[:, 0]) * at[:, 1] * (1 - at[:, 1])
        errors.append(float((found - wanted).square().mean().sqrt()))
    assert 3.4 < errors[0] / errors[1] < 4.6


def test_points_outside_are_named() -> None:
    grid = Grid((5, 9), (1.0, 2.0))
    with pytest.raises(InputError, match="1 of 3 points lie outside .* point 1 at x=0.2, y=2.1"):
        PointValues(grid.space(), torch.tensor([[0.1, 0.1], [0.2, 2.1], [0.3, 0.3]]).double())
    with pytest.raises(InputError, match=r"give \(m, 2\)"):
        PointValues(grid.space(), torch.zeros(3, 3, dtype=torch.float64))


# Parameters of equations


def flow(solver: Any = None, log: bool = True, **sides: Any) -> ParameterToState:
    grid = Grid((6, 5), (1.0, 2.0), sides or Dirichlet(0.0))
    ones = torch.ones(1, 1, 6, 5, dtype=torch.float64)
    problem = Linear("flow", Diffusion(grid, ones), ones)
    return ParameterToState(problem, "coefficient", solver=solver or Direct(), observe=points(4, 1.0, 2.0), log=log)


def test_the_map_is_the_solve() -> None:
    forward, x = flow(), 0.5 * draw(2, 1, 6, 5)
    direct = sciml.solve(forward.problem.replace(coefficient=x.exp()), Direct()).value
    sensors = PointValues(forward.problem.space, points(4, 1.0, 2.0))
    torch.testing.assert_close(forward(x), sensors.values(direct), rtol=0, atol=1e-14)
    assert not torch.allclose(forward(x), sensors.values(sciml.solve(forward.problem, Direct()).value))


@pytest.mark.parametrize(
    "sides",
    [
        {},
        {"x": Dirichlet(2.0), "y": Neumann(0.5)},
        {"x": (Neumann(0.0), Dirichlet(1.0)), "y": Periodic()},
    ],
)
def test_sensitivities(sides: dict[str, Any]) -> None:
    forward = flow(**sides)
    x = 0.3 * draw(2, 1, 6, 5)
    tangent = forward.linearise(x)
    assert checks.adjoint(tangent)
    assert checks.derivative(forward, x[:1])
    # Jacobian by automatic differentiation of the map itself, member by member.
    rows: Any = torch.autograd.functional.jacobian(forward, x)
    v, w = draw(2, 1, 6, 5, seed=1), draw(2, 1, 4, seed=2)
    torch.testing.assert_close(torch.einsum("bcmxyzk,xyzk->bcm", rows, v), tangent(v), rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.einsum("bcmxyzk,bcm->xyzk", rows, w), tangent.adjoint(w), rtol=0, atol=1e-9)
    samples = draw(3, 2, 1, 6, 5, seed=3)
    torch.testing.assert_close(tangent(samples)[2], tangent(samples[2]), rtol=0, atol=1e-12)


def test_a_wrong_derivative_is_seen() -> None:
    class Hasty(ParameterToState):
        """Forgets that the parameter is a logarithm."""

        def linearise(self, x: torch.Tensor) -> Any:
            plain = ParameterToState(self.problem, self.name, solver=self.solver, observe=self.observe)
            return plain.linearise(x.exp())

    right = flow()
    hasty = Hasty(right.problem, "coefficient", solver=Direct(), observe=right.observe, log=True)
    x = 0.3 * draw(1, 1, 6, 5)
    assert checks.derivative(right, x)
    assert not checks.derivative(hasty, x)


def test_gradients_of_any_order() -> None:
    forward = flow()
    x = (0.3 * draw(1, 1, 6, 5)).requires_grad_()
    settings: dict[str, Any] = {"atol": 1e-6, "rtol": 1e-4}  # central differences of solves to 1e-15 with steps of 1e-6
    assert torch.autograd.gradcheck(forward, (x,), **settings)
    assert torch.autograd.gradgradcheck(forward, (x,), **settings)
    tangent = forward.linearise(x.detach())
    v = draw(1, 1, 6, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(tangent, (v,), **settings)


@pytest.mark.parametrize("name", ["rate", "wind"])
def test_an_equation_without_symmetry(name: str) -> None:
    grid = Grid((5, 4), (1.0, 2.0))
    field = torch.full((1, 1, 5, 4), 2.0, dtype=torch.float64)
    problem = Equation("logistic", Law(logistic, rate=field, wind=torch.tensor(3.0)), grid.space())
    problem = problem.with_target(discrete=1e-14)
    forward = ParameterToState(problem, name, solver=Newton(), observe=points(4, 1.0, 2.0), log=True)
    assert forward.space.shape == ((1, 5, 4) if name == "rate" else (1, 1, 1))
    x = 0.3 * draw(2, *forward.space.shape)
    assert checks.derivative(forward, x[:1])
    found = checks.adjoint(forward.linearise(x), tolerance=1e-11)  # GMRES to 1e-14 times the condition of the tangent
    assert found, found


def test_a_value_on_a_side() -> None:
    """The pressure given on one side is inverted for: it enters the equation and the interpolation."""
    grid = Grid((6, 5), (1.0, 2.0), {"x": (Dirichlet(torch.ones(5, dtype=torch.float64)), Neumann(0.0))})
    problem = Linear("flow", Diffusion(grid, 2.0), torch.ones(1, 1, 6, 5, dtype=torch.float64))
    at = torch.tensor([[0.05, 0.5], [0.0, 1.0], [0.7, 1.9]]).double()
    forward = ParameterToState(problem, "x_lower", solver=Direct(), observe=at)
    x = draw(2, *forward.space.shape)
    tangent = forward.linearise(x)
    assert checks.adjoint(tangent)
    v = draw(2, *forward.space.shape, seed=1)
    torch.testing.assert_close(forward(x + v) - forward(x), tangent(v), rtol=0, atol=1e-12)
    assert float(tangent(v)[:, :, 1].abs().min()) > 0  # a point on the side itself


@pytest.mark.parametrize(("name", "parameter"), [("heat", "diffusivity"), ("heat", "start"), ("burgers", "viscosity")])
def test_evolutions(name: str, parameter: str) -> None:
    settings = {"n": 16, "times": [0.0, 0.1, 0.2]}
    problem = sciml.problem(name, **settings, **({"viscosity": 0.05} if name == "burgers" else {}))
    forward = ParameterToState(problem, parameter, solver=problem.recommend(problem), observe=points(3, 1.0))
    x = problem.parameters()[parameter].reshape(1, *forward.space.shape)
    assert forward(x).shape == (1, 3, 1, 3)
    assert checks.derivative(forward, x)
    assert checks.adjoint(forward.linearise(x))
    two = torch.cat((x, 1.1 * x))
    torch.testing.assert_close(forward(two)[1:], forward(1.1 * x), rtol=0, atol=1e-8)


def test_iterative_solvers_are_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many products at one point set the preconditioner up once; the answers are those of the factorisation."""
    counts = []
    original = Multigrid.preconditioner
    monkeypatch.setattr(Multigrid, "preconditioner", lambda self, p: counts.append(1) or original(self, p))
    iterative, exact = flow(ConjugateGradient(preconditioner=Multigrid())), flow()
    x = 0.3 * draw(1, 1, 6, 5)
    one, two = iterative.linearise(x), exact.linearise(x)
    before = len(counts)
    for seed in range(3):
        v, w = draw(1, 1, 6, 5, seed=seed), draw(1, 1, 4, seed=seed)
        torch.testing.assert_close(one(v), two(v), rtol=0, atol=1e-8)
        torch.testing.assert_close(one.adjoint(w), two.adjoint(w), rtol=0, atol=1e-8)
    assert len(counts) == before + 1


def test_the_kept_state_follows_the_problem() -> None:
    forward, x = flow(), 0.3 * draw(1, 1, 6, 5)
    before, tangent = forward(x), forward.linearise(x)
    slope = tangent(x)
    forward.problem.source.mul_(2.0)  # type: ignore[attr-defined]
    torch.testing.assert_close(forward(x), 2 * before)
    torch.testing.assert_close(forward.linearise(x)(x), 2 * slope)


def test_the_space_is_the_parameters_own() -> None:
    """Its nodes are those of the state; its sides are free, for the coefficient is not zero where the pressure is."""
    forward = flow(x=Dirichlet(2.0), y=(Neumann(0.5), Dirichlet(0.0)))
    own, states = forward.space.grid, forward.problem.space.grid
    for one, other in zip(own.coordinates(), states.coordinates(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14)
    assert own.kinds() == (("neumann", "neumann"),) * 2


def test_catalogue_problems_pickle_in_either_precision() -> None:
    darcy = sciml.problem("darcy", n=7, seed=3)
    forward = ParameterToState(darcy, "coefficient", solver=Direct(), log=True)
    low = rebuild(forward, lambda leaf: leaf.tensor.float(), lambda _, v: torch.float32 if v == torch.float64 else v)
    for one in (forward, low):
        x = (0.3 * draw(1, 1, 7, 7)).to(one.space.dtype)
        wanted = one(x)
        twin = pickle.loads(pickle.dumps(one))
        assert twin(x).dtype == one.space.dtype
        assert torch.equal(twin(x), wanted)


def test_refusals_in_a_sentence() -> None:
    darcy = sciml.problem("darcy", n=7)
    with pytest.raises(InputError, match="has no tensor 'permeability'; it has coefficient, source"):
        ParameterToState(darcy, "permeability", solver=Direct())
    with pytest.raises(InputError, match=r"write Direct\(\)"):
        ParameterToState(darcy, "coefficient", solver=Direct)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be asked"):
        ParameterToState(sciml.problem("heat"), "start", solver=Direct())
    with pytest.raises(InputError, match="observe acts on fields of shape"):
        ParameterToState(darcy, "source", solver=Direct(), observe=PointValues(Grid((3, 3)).space(), points(2, 1, 1)))
    with pytest.raises(InputError, match="diffusion needs it positive"):
        ParameterToState(darcy, "coefficient", solver=Direct())(-torch.ones(1, 1, 7, 7, dtype=torch.float64))
    hurried = ParameterToState(darcy, "coefficient", solver=ConjugateGradient(max_steps=2), log=True)
    with pytest.raises(InputError, match="coefficient between 1 and 1.*budget ran out"):
        hurried(torch.zeros(1, 1, 7, 7, dtype=torch.float64))
    with pytest.raises(InputError, match=r"has shape \(batch, 1, 7, 7\)"):
        hurried(torch.zeros(1, 1, 7, 8, dtype=torch.float64))
