"""The catalogue's Allen-Cahn problem: fronts that are known, an integrator of another family, energy, sides."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core import Evolution
from sciml.domains import Dirichlet, InputError, Neumann, Periodic, Robin

ROOT2 = math.sqrt(2)


def nodes(problem: Evolution) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = problem.space.domain.points()
    return found


def invading(x: Tensor, t: float, width: float, speed: float = 3 / ROOT2) -> Tensor:
    """The front that phase 1 sends into the unstable state 0, from x = 0.3 at t = 0."""
    return (1 - torch.tanh((x - 0.3 - speed * width * t) / (2 * ROOT2 * width))) / 2


@pytest.mark.parametrize("dim", [1, 2])
def test_the_invading_front(dim: int) -> None:
    """Exact on the line; the sides are 15 widths away, but what they change of the unstable state grows as e^t.

    Tolerance: h^2 of 400 nodes, measured 5.0e-5 (and 2.0e-4 with half as many).
    """
    width, shape = 0.02, (400, 5)[:dim]
    made = sciml.problem("allen_cahn", dim=dim, n=shape, width=width, times=(2.0, 4.0))
    x = nodes(made)[0]
    problem = sciml.problem(
        "allen_cahn", dim=dim, n=shape, width=width, times=(2.0, 4.0), start=invading(x, 0.0, width)
    )
    solution = sciml.solve(problem)
    assert solution.ok
    for i, t in enumerate((2.0, 4.0)):
        assert float((solution.value[0, i, 0] - invading(x, t, width)).abs().max()) < 1e-4
    assert float((solution.value[0, 1, 0] - invading(x, 4.0, width, speed=2.0)).abs().max()) > 0.05


def test_the_layer_between_the_phases_stands_still() -> None:
    """tanh(x / (sqrt(2) width)) on a periodic grid, two layers far apart: spectral, so to the target of the steps."""
    made = sciml.problem("allen_cahn", dim=1, n=128, width=0.025, sides=Periodic(), times=(2.0,))
    (x,) = nodes(made)
    start = torch.tanh((x - 0.25) / (ROOT2 * 0.025)) - torch.tanh((x - 0.75) / (ROOT2 * 0.025)) - 1
    problem = made.replace(start=start[None, None])
    value = sciml.solve(problem).value[0, 0, 0]
    assert float((value - start).abs().max()) < 1e-5  # the layers feel one another as exp(-sqrt(2) 0.5 / 0.025)
    thin = torch.tanh((x - 0.25) / 0.025) - torch.tanh((x - 0.75) / 0.025) - 1
    moved = sciml.solve(problem.replace(start=thin[None, None])).value[0, 0, 0]
    assert float((moved - thin).abs().max()) > 0.05


def test_a_round_patch_shrinks_by_its_curvature() -> None:
    """The area of a disc falls by 2 pi width^2 a unit of time: rate within 6 % (layers are not infinitely thin)."""
    width = 0.025
    made = sciml.problem("allen_cahn", n=96, width=width, sides=Periodic(), times=(5.0, 15.0, 35.0))
    x, y = nodes(made)
    start = torch.tanh((0.3 - ((x - 0.5) ** 2 + (y - 0.5) ** 2).sqrt()) / (ROOT2 * width))
    solution = sciml.solve(made.replace(start=start[None, None]))
    area = (solution.value[0, :, 0] + 1).mean((-2, -1)) / 2
    for a, b, span in ((0, 1, 10.0), (1, 2, 20.0)):
        assert float(area[a] - area[b]) / span == pytest.approx(2 * math.pi * width**2, rel=0.06)
    assert float(solution.check("energy rise").value.max()) == 0.0


@pytest.mark.parametrize(
    ("sides", "dim"),
    [(Neumann(0.0), 1), (Dirichlet(0.0), 1), ({"x": Neumann(0.0), "y": (Neumann(0.0), Dirichlet(0.0))}, 2)],
    ids=["neumann", "dirichlet", "mixed"],
)
def test_against_an_integrator_of_another_family(sides: Any, dim: int) -> None:
    """scipy's Radau at 1e-10 on the differences written out by hand; tolerance: the target of the steps."""
    from scipy.integrate import solve_ivp

    shape = (24,) if dim == 1 else (8, 9)
    problem = sciml.problem("allen_cahn", dim=dim, n=shape, width=0.08, sides=sides, times=(2.0,), seed=5)
    grid = problem.space.domain

    def rate(t: float, flat: Any) -> Any:
        u = torch.as_tensor(flat).reshape(shape)
        bent = torch.zeros_like(u)
        for axis, (info, (low, up)) in enumerate(zip(grid.axes(), grid.conditions, strict=True)):
            line = u.movedim(axis, -1)
            ends = []
            for side, at in ((low, 0), (up, -1)):
                mirrored = line[..., 1] if at == 0 else line[..., -2]
                ends.append(mirrored if isinstance(side, Neumann) else torch.zeros_like(mirrored))
            wide = torch.cat((ends[0][..., None], line, ends[1][..., None]), -1)
            bent = bent + (wide.diff(n=2) / info.spacing**2).movedim(-1, axis)
        return (0.08**2 * bent + u - u**3).flatten().numpy()

    known = solve_ivp(rate, (0, 2.0), problem.start.flatten().numpy(), method="Radau", rtol=1e-10, atol=1e-12).y[:, -1]
    found = sciml.solve(problem).value[0, 0].flatten()
    assert float((found - torch.as_tensor(known)).norm() / found.norm()) < 1e-6
    other = sciml.solve(problem.replace(width=problem.parameters()["width"] * 1.01)).value[0, 0].flatten()
    assert float((other - torch.as_tensor(known)).norm() / found.norm()) > 1e-5


def test_the_energy_is_the_one_of_the_gradient_flow() -> None:
    """dE/dt = -integral u_t^2: the gradient of the told energy, over the cells, is minus the rate; tolerance: rounding."""
    for sides in (Neumann(0.0), {"x": Dirichlet(0.0), "y": (Neumann(0.0), Dirichlet(0.0)), "z": Periodic()}):
        problem = sciml.problem("allen_cahn", dim=3, n=(5, 6, 7), extent=(1.0, 2.0, 0.7), width=0.1, sides=sides)
        u = problem.start.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(problem.decreasing["energy"](problem, u).sum(), u)
        flow = -gradient / problem.space.weights()
        rate = problem.rate(0.0, problem.start)
        assert float((flow - rate).norm() / rate.norm()) < 1e-12
        wider = problem.replace(width=problem.parameters()["width"] * 2)  # the energy is that of the problem at hand
        assert float((flow - wider.rate(0.0, u).detach()).norm() / rate.norm()) > 1e-3
        assert float(problem.decreasing["energy"](wider, problem.start)) > float(
            problem.decreasing["energy"](problem, problem.start)
        )


def test_energy_only_falls_and_a_rise_is_told() -> None:
    problem = sciml.problem("allen_cahn", n=24, width=0.05, batch=2, times=(0.0, 1.0, 4.0))
    solution = sciml.solve(problem)
    assert solution.ok and float(solution.check("energy rise").value.max()) < 1e-14
    told = {check.name: check for check in problem.certify(solution.value.flip(1))}["energy rise"]
    assert float(told.value.min()) > 0.01 and told.target is None


def test_members() -> None:
    few, many = (sciml.problem("allen_cahn", n=12, batch=count, seed=4) for count in (2, 5))
    assert torch.equal(few.start, many.start[:2])
    assert not torch.equal(few.start, sciml.problem("allen_cahn", n=12, batch=2, seed=5).start)
    fine, coarse = (sciml.problem("allen_cahn", dim=1, n=n, sides=Periodic(), seed=4).start for n in (64, 32))
    torch.testing.assert_close(fine[..., ::2], coarse, rtol=0, atol=1e-12)
    stretched = sciml.problem("allen_cahn", dim=1, n=32, sides=Periodic(), extent=5.0, seed=4).start
    torch.testing.assert_close(stretched, coarse, rtol=0, atol=1e-12)
    widths = torch.tensor([0.05, 0.1], dtype=torch.float64)
    both = sciml.problem("allen_cahn", n=12, batch=2, width=widths, times=(0.5,), seed=4)
    value = sciml.solve(both).value
    for i in range(2):
        torch.testing.assert_close(value[i : i + 1], sciml.solve(both.member(i)).value, rtol=1e-7, atol=1e-7)


def test_strong_form_and_symmetries() -> None:
    assert sciml.checks.consistent(
        sciml.problem("allen_cahn", dim=1, n=17), lambda x: torch.cos(math.pi * x) + torch.cos(2 * math.pi * x)
    )
    for sides in (None, Periodic()):
        problem = sciml.problem("allen_cahn", n=(9, 14), sides=sides)
        assert problem.symmetries and all(sciml.checks.symmetry(problem, one) for one in problem.symmetries)
    mixed = sciml.problem("allen_cahn", n=9, sides={"x": (Neumann(0.0), Dirichlet(0.0))})
    assert mixed.symmetries == () and mixed.continuous is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"width": 0.0}, "width"),
        ({"width": -0.1}, "width"),
        ({"dim": 3, "n": (8, 8)}, "n="),
        ({"sides": Robin(1.0)}, r"allen_cahn has Neumann\(0\)"),
        ({"sides": Neumann(0.5)}, r"allen_cahn has Neumann\(0\)"),
        ({"sides": {"x": Dirichlet(torch.ones(8))}}, r"allen_cahn has Neumann\(0\)"),
        ({"deviation": float("nan")}, "deviation"),
    ],
)
def test_refusals(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        sciml.problem("allen_cahn", **{"n": 8, **settings})


def test_single_precision_keeps_its_certificate() -> None:
    solution = sciml.solve(sciml.problem("allen_cahn", n=16, width=0.1, dtype="float32", batch=2, times=(1.0,)))
    assert solution.ok and solution.value.dtype == torch.float32


def test_a_start_comes_as_an_array() -> None:
    start = torch.linspace(-1, 1, 9, dtype=torch.float64)
    wanted = sciml.problem("allen_cahn", dim=1, n=9, start=start)
    assert torch.equal(sciml.problem("allen_cahn", dim=1, n=9, start=start.numpy()).start, wanted.start)
    with pytest.raises(InputError, match="start is a str that makes no tensor"):
        sciml.problem("allen_cahn", dim=1, n=9, start="mixed")
