"""Answers that are functions: judged by the strong form at the problem's own points, and by nothing that the solver says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core.solution import Answer, Check, Code
from sciml.domains import Dirichlet, Neumann


def told(problem: object, field: Callable[[Tensor], Tensor], value: Tensor | None = None) -> dict[str, float]:
    """The checks of an answer made of a function."""
    grid, times = problem.space.domain, getattr(problem, "times", ())  # type: ignore[attr-defined]
    nodes = torch.stack([p.reshape(-1) for p in grid.points()], 1)
    if value is None:
        if times:
            rows = [field(torch.cat((nodes, nodes.new_full((len(nodes), 1), t)), 1)).detach() for t in times]
            value = torch.stack(rows, 1).reshape(-1, len(times), 1, *grid.shape)
        else:
            value = field(nodes).detach().reshape(-1, 1, *grid.shape)
    claim = torch.full((len(value),), int(Code.CONVERGED))
    checks = problem.certify(Answer(value, claim, field=field))  # type: ignore[attr-defined]
    gates = {check.name for check in checks if check.target is not None}
    assert gates == {"strong", "sides", "agreement"}
    return {check.name: float(check.value.max()) for check in checks}


def plate(**sides: object) -> object:
    """-laplacian u = 5 pi^2 sin(pi x) sin(2 pi y), whose solution is the sine."""
    problem = sciml.problem("poisson", n=(31, 40), source=1.0, **sides)
    x, y = problem.space.domain.points()
    return problem.replace(source=(5 * math.pi**2 * sine(x, y))[None, None])


def sine(x: Tensor, y: Tensor) -> Tensor:
    return torch.sin(math.pi * x) * torch.sin(2 * math.pi * y)


def exact(points: Tensor) -> Tensor:
    return sine(points[:, 0], points[:, 1])[None, None]


def test_the_solution_passes_and_the_grid_has_no_say() -> None:
    found = told(plate(), exact)
    assert found["strong"] < 1e-7  # the source is known at the nodes only: interpolated
    assert found["sides"] < 1e-14 and found["agreement"] == 0
    assert found["discrete backward error"] > 1e-6  # the grid's own error, told beside


def test_wrong_functions_are_found() -> None:
    def rough(points: Tensor) -> Tensor:
        return exact(points) + 1e-4 * torch.sin(40 * math.pi * points[:, 0]) * torch.sin(math.pi * points[:, 1])

    def lifted(points: Tensor) -> Tensor:
        return exact(points) + 1e-4  # harmonic: only the sides tell

    assert told(plate(), rough)["strong"] > 1e-2
    off = told(plate(), lifted)
    assert off["strong"] < 1e-7 and off["sides"] == pytest.approx(1e-4 / 0.5, rel=0.1)
    nodes = torch.stack([p.reshape(-1) for p in plate().space.domain.points()], 1)  # type: ignore[attr-defined]
    other = (1 + 1e-6) * exact(nodes).reshape(1, 1, 31, 40)
    assert told(plate(), exact, other)["agreement"] == pytest.approx(1e-6, rel=1e-3)


def test_jumps_and_kinks_between_the_points_are_found() -> None:
    zero = sciml.problem("poisson", n=(31, 40), source=1.0)
    zero = zero.replace(source=torch.zeros_like(zero.parameters()["source"]))  # type: ignore[attr-defined]

    def tent(
        points: Tensor,
    ) -> Tensor:  # linear on both sides of a fold, zero on the rim: the law holds at almost every point
        x, y = points[:, 0], points[:, 1]
        return torch.minimum(torch.minimum(x, 1 - x), torch.minimum(y, 1 - y))[None, None]

    assert told(zero, tent)["sides"] < 1e-14 and told(zero, tent)["strong"] > 0.1

    def torn(points: Tensor) -> Tensor:
        return exact(points) + 1e-3 * (points[:, 0] > 0.437)

    assert told(plate(), torn)["strong"] > 1e-3
    field = travelling(0.1)

    def restarted(points: Tensor) -> Tensor:  # another solution from t = 0.3 on
        later = torch.stack((points[:, 0], points[:, 1] + 0.1 * (points[:, 1] > 0.3)), 1)
        return field(later)

    assert told(burgers(0.1), restarted)["strong"] > 1e-2


def test_a_flux_that_is_wrong_is_found() -> None:
    problem = plate(sides={"x": (Neumann(0.0), Dirichlet(0.0)), "y": Dirichlet(0.0)})
    nodes = torch.stack([p.reshape(-1) for p in problem.space.domain.points()], 1)  # type: ignore[attr-defined]
    shape = problem.space.shape  # type: ignore[attr-defined]

    def cosine(points: Tensor) -> Tensor:
        return (torch.cos(math.pi * points[:, 0] / 2) * torch.sin(math.pi * points[:, 1]))[None, None]

    right = problem.replace(source=1.25 * math.pi**2 * cosine(nodes).reshape(1, *shape))  # type: ignore[attr-defined]
    assert max(told(right, cosine)[name] for name in ("strong", "sides")) < 1e-7

    def leaning(points: Tensor) -> Tensor:
        return cosine(points) + 1e-3 * ((1 - points[:, 0]) * torch.sin(math.pi * points[:, 1]))

    assert told(right, leaning)["sides"] > 1e-4


def travelling(nu: float) -> Callable[[Tensor], Tensor]:
    """An exact solution of Burgers' equation on [0, 2) by Cole and Hopf: u = -2 nu w_x / w, w = 2 + exp(-nu pi^2 t) cos(pi x)."""

    def field(points: Tensor) -> Tensor:
        x, t = points[:, 0], points[:, 1]
        e = torch.exp(-nu * math.pi**2 * t)
        return (2 * nu * math.pi * e * torch.sin(math.pi * x) / (2 + e * torch.cos(math.pi * x)))[None, None]

    return field


def burgers(nu: float) -> object:
    x = torch.arange(64, dtype=torch.float64) / 32
    start = travelling(nu)(torch.stack((x, 0 * x), 1))[0, 0]
    return sciml.problem("burgers", n=64, viscosity=nu, length=2.0, times=[0.2, 0.7], start=start)


def test_an_evolution_by_its_own_law_start_and_period() -> None:
    field = travelling(0.1)
    found = told(burgers(0.1), field)
    assert max(found[name] for name in ("strong", "sides", "agreement")) < 1e-8
    assert found["steps"] < 1e-8  # told beside, by the referee of the grid
    assert told(burgers(0.11), field)["strong"] > 1e-2  # another viscosity
    assert told(burgers(0.11), field)["sides"] > 1e-2  # whose start is another
    late = told(burgers(0.1), lambda p: field(p) + 1e-5 * p[:, 1])  # start and period hold
    apart = told(burgers(0.1), lambda p: field(p) + 1e-3 * p[:, 1] * p[:, 0])  # the right start; its ends drift apart
    assert late["sides"] < 1e-8 and apart["sides"] > 1e-4


def test_members_are_judged_each_by_its_own_data() -> None:
    one = plate()
    both = one.replace(source=torch.cat((one.parameters()["source"], 2 * one.parameters()["source"])))  # type: ignore[attr-defined]

    def field(points: Tensor) -> Tensor:
        return torch.cat((exact(points), 2 * exact(points)))

    assert told(both, field)["strong"] < 1e-7

    def swapped(points: Tensor) -> Tensor:
        return field(points).flip(0)

    assert told(both, swapped)["strong"] > 0.1


def test_y_to_cy_leaves_the_numbers() -> None:
    rows = []
    for c in (1.0, 1e6):
        problem = plate().replace(source=c * plate().parameters()["source"])  # type: ignore[attr-defined]
        rows.append(told(problem, lambda p, c=c: c * exact(p) * (1 + 1e-3 * p[:, 0])))
    for name in ("strong", "sides", "agreement"):
        assert rows[1][name] == pytest.approx(rows[0][name], rel=1e-9, abs=1e-15)


def test_values_without_a_function_are_judged_on_the_grid() -> None:
    problem = plate()
    checks: tuple[Check, ...] = problem.certify(torch.zeros(1, 1, 31, 40, dtype=torch.float64))  # type: ignore[attr-defined]
    assert [check.name for check in checks] == ["discrete backward error"] and checks[0].target is not None


def test_targets_are_named() -> None:
    problem = plate().with_target(strong=1e-2)  # type: ignore[attr-defined]
    assert problem.targets["strong"] == 1e-2
    grid_only = dataclasses.replace(plate(), continuous=None, recipe=None)  # type: ignore[type-var]
    assert "strong" not in grid_only.targets
