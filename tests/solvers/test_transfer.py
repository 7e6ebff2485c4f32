"""Passing between the grids of the V-cycle: restriction, interpolation, coarse coefficients."""

from __future__ import annotations

import pytest
import torch
from boxes import diffusion

from sciml.solvers._levels import apply
from sciml.solvers._transfer import Transfer, coarser


@pytest.mark.parametrize("sides", ["dd", "nn", "dn", "nd", "p"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 13, 30, 31])
def test_passing_between_grids(n, sides):
    """Restriction is the transpose of interpolation, which is exact for linear functions inside the interval."""
    if n == 1 and sides == "nn":
        return  # a single node has no spacing
    axis = diffusion((n,), (1.0,), (sides,))[0][0]
    below = coarser(axis)
    if below is None:
        assert n == 1
        return
    transfer = Transfer(axis, below, -1, torch.device("cpu"), torch.float64)
    matrices = {}
    for name in ("restrict", "interpolate", "add", "per_cell"):
        tall = name in ("interpolate", "add")
        source = torch.eye(below.n if tall else axis.n, dtype=torch.float64)
        out = torch.zeros(len(source), axis.n if tall else below.n, dtype=torch.float64)
        tape: list = []
        if name == "add":
            transfer.add(tape, source, out, None)
        elif tall:
            out.fill_(7.0)
            transfer.interpolate(tape, source, out)
        else:
            transfer.restrict(tape, source, out, per_cell=name == "per_cell")
        for step in tape:
            step()
        matrices[name] = out
    torch.testing.assert_close(matrices["interpolate"], matrices["add"], rtol=0, atol=1e-15)
    torch.testing.assert_close(matrices["restrict"].T, matrices["add"], rtol=0, atol=1e-14)
    fine = torch.ones(axis.n, dtype=torch.float64)
    fine[0] *= axis.weight(0)
    fine[-1] *= axis.weight(1)
    coarse = torch.ones(below.n, dtype=torch.float64)
    coarse[0] *= below.weight(0)
    coarse[-1] *= below.weight(1)
    torch.testing.assert_close(matrices["per_cell"], fine[:, None] * matrices["restrict"] / coarse, rtol=0, atol=1e-14)
    if sides in ("nn", "p"):
        torch.testing.assert_close(matrices["add"].sum(0), torch.ones(axis.n, dtype=torch.float64))
    if sides == "nn" and below.n > 1:
        points = [torch.arange(a.n, dtype=torch.float64) * a.spacing for a in (axis, below)]
        torch.testing.assert_close(points[1] @ matrices["add"], points[0])


@pytest.mark.parametrize("sides", ["dd", "nn", "dn", "p"])
@pytest.mark.parametrize("n", [7, 8, 9, 14, 20])
def test_coarse_coefficients_of_constants(n, sides):
    """Resistances and volumes are conserved: constants become the constants of the coarser grid, exactly."""
    axes, faces, mass = diffusion((n,), (1.0,), (sides,), reaction=2.0)
    below = coarser(axes[0])
    assert below is not None
    transfer = Transfer(axes[0], below, -1, torch.device("cpu"), torch.float64)
    _, expected, weight = diffusion((below.n,), (1.0,), (sides,), reaction=2.0)
    torch.testing.assert_close(transfer.series(faces[0]), expected[0])
    torch.testing.assert_close(transfer.overlap(mass), weight)


@pytest.mark.parametrize("sides", ["dd", "nn", "dn", "p"])
@pytest.mark.parametrize("n", [2, 7, 8, 13, 20])
def test_interpolation_by_constant_flux(n, sides):
    """Its transpose restricts; the energy of what it interpolates is that of the coarse conductances, exactly."""
    k = torch.rand((2, n), dtype=torch.float64, generator=torch.Generator().manual_seed(n)) + 0.01
    axes, faces, _ = diffusion((n,), (1.0,), (sides,), k)
    below = coarser(axes[0])
    assert below is not None
    transfer = Transfer(axes[0], below, -1, torch.device("cpu"), torch.float64)
    coarse = transfer.series(faces[0])
    transfer.adapt(faces[0])
    up, down = torch.zeros(2, below.n, n, dtype=torch.float64), torch.zeros(2, n, below.n, dtype=torch.float64)
    tape: list = []
    for b in range(2):
        one = Transfer(axes[0], below, -1, torch.device("cpu"), torch.float64)
        one.adapt(faces[0][b : b + 1])
        one.add(tape, torch.eye(below.n, dtype=torch.float64), up[b], None)
        one.restrict(tape, torch.eye(n, dtype=torch.float64), down[b], per_cell=False)
    for step in tape:
        step()
    torch.testing.assert_close(up.mT, down, rtol=0, atol=1e-14)
    if transfer.nested:
        fine = apply(axes, faces, None, up.transpose(0, 1)).transpose(0, 1)
        unit = torch.eye(below.n, dtype=torch.float64).unsqueeze(1).expand(-1, 2, -1)
        torch.testing.assert_close(fine @ up.mT, apply([below], [coarse], None, unit).transpose(0, 1))
