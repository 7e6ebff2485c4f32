"""MgNO: with the stencils of an equation it is one V-cycle of the solver; its sides, its schedules."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.networks.multigrid import MgNO, VCycle
from sciml.solvers import _smoothing
from sciml.solvers._levels import Axis, Hierarchy, build
from sciml.solvers._stencil import explicit

WORDS = {"d": "zeros", "p": "circular", "n": "reflect"}
BOXES = [
    ((31,), "d"), ((32,), "p"), ((33,), "n"), ((15, 15), "dd"), ((15, 16), "dp"), ((16, 16), "pp"), ((17, 17), "nn"),
    ((7, 7, 8), "ddp"), ((9, 9, 9), "nnn"),
]  # fmt: skip


def hierarchy(shape: tuple[int, ...], sides: str, sweeps: int) -> tuple[Hierarchy, Tensor, list[float], float]:
    """Our multigrid for u_xx with different strengths per axis plus a reaction, and the sizes of the dual cells."""
    conductances, mass = [1.0, 1.25, 0.8][: len(shape)], 0.03
    axes = []
    for n, side in zip(shape, sides, strict=True):
        intervals = {"d": n + 1, "p": n, "n": n - 1}[side]
        axes.append(Axis(n, 1 / intervals, side == "p", side == "n", side == "n"))
    faces, weight, cells = explicit(axes, conductances, mass)
    return build(axes, faces, weight, sweeps=sweeps), cells, conductances, mass


def stencil(conductances: list[float], mass: float) -> Tensor:
    """2 sum K + m in the middle, -K beside it."""
    dim = len(conductances)
    found = torch.zeros([3] * dim, dtype=torch.float64)
    found[(1,) * dim] = 2 * sum(conductances) + mass
    for axis, value in enumerate(conductances):
        for side in (0, 2):
            found[tuple(side if k == axis else 1 for k in range(dim))] = -value
    return found


def linear(dim: int) -> Tensor:
    """1/2, 1, 1/2 along every axis: linear interpolation, and its transpose."""
    found = torch.ones([1] * dim, dtype=torch.float64)
    for axis in range(dim):
        found = found * torch.tensor([0.5, 1, 0.5], dtype=torch.float64).reshape(
            [-1 if k == axis else 1 for k in range(dim)]
        )
    return found


def inverse(cycle: VCycle, level: int, shape: tuple[int, ...]) -> Tensor:
    """The inverse of A on a grid of at most two points per axis, as a stencil (both neighbours are the same point)."""
    size = torch.Size(shape).numel()
    unit = torch.eye(size, dtype=torch.float64).reshape(size, 1, *shape)
    unit = unit.unsqueeze(2) if len(shape) == 1 else unit
    columns = cycle.image(unit, level).reshape(size, size)
    row = torch.linalg.inv(columns)[0].reshape(shape)
    found = torch.zeros([3] * len(shape), dtype=torch.float64)
    for offset in itertools.product((-1, 0, 1), repeat=len(shape)):
        if all(abs(o) < n for o, n in zip(offset, shape, strict=True)):
            value = row[tuple(abs(o) for o in offset)] / 2 ** sum(map(abs, offset))
            found[tuple(o + 1 for o in offset)] = value
    return found


def same_cycle(grids: Hierarchy, conductances: list[float], mass: float, paddings: list[str]) -> VCycle:
    """The network's V-cycle with one channel and the weights of the solver's."""
    depth, sweeps, dim = len(grids.levels), len(grids.dampings[0]), len(paddings)
    schedule = [(sweeps, sweeps)] * (depth - 1) + [(2, 0)]
    cycle = VCycle(1, 1, schedule, paddings, True, torch.Generator()).double()
    with torch.no_grad():
        for level in range(depth):
            a = stencil([k * 2 ** (level * (dim - 2)) for k in conductances], mass * 2 ** (level * dim))
            cycle.operator[str(level)].copy_(a[None, None])
            if level == depth - 1:
                cycle.smooth[level][0].copy_(inverse(cycle, level, grids.shapes[-1])[None, None])
                cycle.smooth[level][1].zero_()
                continue
            factors = [*grids.dampings[level], *reversed(grids.dampings[level])]
            for weight, factor in zip(cycle.smooth[level], factors, strict=True):
                weight.zero_()
                weight[(0, 0, *(1,) * dim)] = factor / a.max()
            cycle.restrict[str(level)].copy_(linear(dim)[None, None])
            cycle.prolong[str(level)].copy_(linear(dim)[None, None])
    return cycle


@pytest.mark.parametrize("sweeps", [1, 2, 3])
@pytest.mark.parametrize(("shape", "sides"), BOXES, ids=lambda v: v if isinstance(v, str) else "x".join(map(str, v)))
def test_is_one_cycle_of_our_multigrid(
    shape: tuple[int, ...], sides: str, sweeps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        _smoothing, "_DENSE", 2 ** sum(side != "d" for side in sides)
    )  # down to one or two points per axis
    grids, cells, conductances, mass = hierarchy(shape, sides, sweeps)
    paddings = [WORDS[side] for side in sides]
    r = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = grids.cycle(r)
    with torch.no_grad():
        found = same_cycle(grids, conductances, mass, paddings)((r / cells)[:, None])[:, 0]
        # float64 rounding of some hundred operations per value
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))
        twin = same_cycle(grids, conductances, mass, ["zeros" if word != "zeros" else "reflect" for word in paddings])
        assert (twin((r / cells)[:, None])[:, 0] - wanted).norm() > 1e-2 * wanted.norm()  # the wrong sides are seen


def test_what_is_restricted_is_an_option() -> None:
    """Without `residual` the right-hand side goes down, and more weights are there to carry u along."""
    generator = torch.Generator().manual_seed(0)
    one = VCycle(2, 3, [(1, 1), (1, 0)], ["zeros"], True, generator)
    two = VCycle(2, 3, [(1, 1), (1, 0)], ["zeros"], False, generator)
    assert not len(one.carry) and len(two.carry) == 1
    with torch.no_grad():
        for weight in two.carry.values():
            weight.zero_()
        for name in ("smooth", "operator", "restrict", "prolong"):
            wanted = dict(getattr(one, name).named_parameters())
            for key, weight in getattr(two, name).named_parameters():
                weight.copy_(wanted.get(key, torch.zeros_like(weight)))
        f = torch.randn(1, 2, 9, generator=generator)
        # the same map once the residual is the right-hand side: A = 0 on the finest level
        one.operator["0"].zero_(), two.operator["0"].zero_()
        torch.testing.assert_close(one(f), two(f))
        one.operator["0"].fill_(0.1), two.operator["0"].fill_(0.1)
        assert (one(f) - two(f)).abs().max() > 1e-3


def test_pre_and_post_smoothing_steps_are_all_used() -> None:
    f = torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(0))
    for schedule in ([(1, 0), (2, 0)], [(1, 1), (1, 0)], [(2, 3), (1, 2)]):
        cycle = VCycle(1, 2, schedule, ["circular"], False, torch.Generator().manual_seed(0))
        assert [len(steps) for steps in cycle.smooth] == [pre + post for pre, post in schedule]
        cycle(f).square().sum().backward()
        assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in cycle.parameters())


def test_commutes_with_translations_of_a_periodic_grid() -> None:
    network = MgNO(2, width=4, layers=2, schedule=((1, 1), (1, 0)), padding="circular").double()
    x = torch.randn(1, 1, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shift = {"shifts": (2, 4), "dims": (-2, -1)}  # by whole coarse cells
    torch.testing.assert_close(network(x.roll(**shift)), network(x).roll(**shift), rtol=0, atol=1e-13)
    fixed = MgNO(2, width=4, layers=2, schedule=((1, 1), (1, 0)), padding="zeros").double()
    assert (fixed(x.roll(**shift)) - fixed(x).roll(**shift)).abs().max() > 1e-3


def test_mirrors_with_reflected_sides() -> None:
    """A map between fields that are even about their end points; mirrored stencils give mirrored answers."""
    network = MgNO(1, width=3, layers=1, schedule=((1, 1), (1, 0)), padding="reflect").double()
    x = torch.randn(1, 1, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = torch.cat((x, x.flip(-1)[..., 1:-1]), -1)  # its even periodic extension
    periodic = MgNO(**{**network.settings, "padding": "circular"}).double()
    with torch.no_grad():
        for one, two in zip(network.parameters(), periodic.parameters(), strict=True):
            if one.ndim == 3 and one.shape[-1] == 3:
                one.copy_((one + one.flip(-1)) / 2)
            two.copy_(one)
    torch.testing.assert_close(periodic(whole)[..., :9], network(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "settings",
    [{"dim": 4}, {"padding": "valid"}, {"padding": ("zeros",)}, {"schedule": ((0, 1),)}, {"schedule": ()},
     {"schedule": ((1, 1, 1),)}, {"width": 0}],
)  # fmt: skip
def test_refuses_impossible_settings(settings: dict[str, object]) -> None:
    with pytest.raises(InputError, match="MgNO"):
        MgNO(**{"dim": 2, **settings})  # type: ignore[arg-type]


def test_the_sources_size() -> None:
    """24 channels: fewer than 0.6 million weights, as in the paper's table."""
    count = sum(weight.numel() for weight in MgNO(2).parameters())
    assert 400_000 < count < 600_000
