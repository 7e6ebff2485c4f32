"""Transforms that diagonalise second differences, spectra, and the direct solver made of them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core import Code, Linear, SolveError
from sciml.discretise import Diffusion, Spectrum, Transform, derivative, eigenvalues
from sciml.domains import Dirichlet, Grid, InputError, Neumann, Periodic, Robin
from sciml.solvers import Direct, DirectTransform

D, N, P = Dirichlet(), Neumann(), Periodic()
PAIRS = [(D, D), (N, N), (N, D), (D, N), (P, P)]
MIXES = [mix for dim in (1, 2, 3) for mix in itertools.product(PAIRS, repeat=dim)]
SIZES, EXTENT = (9, 14, 11), (1.0, 2.0, 0.7)


def grid_of(mix: Any) -> Grid:
    dim = len(mix)
    return Grid(SIZES[:dim], EXTENT[:dim], dict(zip("xyz", mix, strict=False)))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def name(mix: Any) -> str:
    return "-".join("".join(type(c).__name__[0] for c in pair) for pair in mix)


@pytest.mark.parametrize("mix", MIXES, ids=name)
def test_the_transform_is_the_eigenbasis(mix: Any) -> None:
    """Round trip and `V^-1 A = T^-1 lambda T`, through scipy and through torch, to the rounding of a few hundred terms."""
    grid = grid_of(mix)
    transform, u = Transform(grid), noise(2, 1, *grid.shape)
    v = transform.forward(u)
    assert v.shape == (2, 1, *transform.shape)
    with torch.enable_grad():
        tracked = transform.forward(u.clone().requires_grad_())
        back = transform.inverse(tracked)
    size = float(v.abs().max())
    assert float((tracked.detach() - v).abs().max()) < 1e-13 * size
    torch.testing.assert_close(transform.inverse(v), u, rtol=0, atol=1e-13)
    torch.testing.assert_close(back.detach(), u, rtol=0, atol=1e-13)
    image = Diffusion(grid)(u) / grid.volumes()
    again = transform.inverse(eigenvalues(grid) * v)
    assert float((image - again).abs().max()) < 1e-13 * float(image.abs().max())
    shifted = transform.inverse(eigenvalues(grid).roll(1, 0) * v)
    assert float((image - shifted).abs().max()) > 1e-3 * float(image.abs().max())


@pytest.mark.parametrize("mix", [(pair,) for pair in PAIRS], ids=name)
def test_the_transform_differentiates_twice(mix: Any) -> None:
    transform = Transform(grid_of(mix))
    u = noise(1, 1, 9).requires_grad_()

    def energy(u: Tensor) -> Tensor:
        return transform.inverse(transform.forward(u).abs().square().to(transform.forward(u).dtype)).sum()

    assert torch.autograd.gradcheck(energy, (u,))
    assert torch.autograd.gradgradcheck(energy, (u,))
    slope = torch.func.jvp(transform.forward, (u.detach(),), (torch.ones_like(u),))[1]
    torch.testing.assert_close(slope, transform.forward(torch.ones(1, 1, 9, dtype=torch.float64)))


def test_a_robin_side_is_refused() -> None:
    with pytest.raises(InputError, match="Robin"):
        Transform(Grid((9,), sides=Robin(1.0)))


@pytest.mark.parametrize("n", [16, 15])
def test_spectral_derivatives(n: int) -> None:
    """Exact for resolved waves; the unpaired highest mode has no odd derivative."""
    grid = Grid((7, n), (2.0, 0.7), Periodic())
    x, y = grid.points()
    k, q = 2 * math.pi / 2.0, 3 * 2 * math.pi / 0.7
    u = torch.sin(k * x) * torch.cos(q * y)
    space = grid.space()
    one = derivative(u[None, None], 1, space)
    torch.testing.assert_close(one[0, 0], -q * torch.sin(k * x) * torch.sin(q * y), rtol=0, atol=1e-11)
    two = derivative(u[None, None], 0, space, order=2)
    torch.testing.assert_close(two[0, 0], -k * k * u, rtol=0, atol=1e-11)
    both = derivative(torch.complex(u, 2 * u)[None, None], 1, space)
    torch.testing.assert_close(both, torch.complex(one, 2 * one), rtol=0, atol=1e-11)
    if n % 2 == 0:
        saw = torch.cos(math.pi * torch.arange(n, dtype=torch.float64)).expand(7, n)[None, None]
        torch.testing.assert_close(derivative(saw, 1, space), torch.zeros_like(saw), rtol=0, atol=1e-11)
    with pytest.raises(InputError, match="not a periodic axis"):
        derivative(u[None, None], 0, Grid((7, n)).space())


def test_spectra() -> None:
    """On periodic grids the exact Laplacian; elsewhere that of second differences; one diffusivity per member."""
    grid = Grid((12, 15), (2.0, 0.7), Periodic())
    x, y = grid.points()
    u = (torch.sin(math.pi * x) + torch.cos(2 * math.pi * y / 0.7))[None, None]
    nu = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    spectrum = Spectrum(grid, diffusivity=nu)
    assert spectrum.symbol.shape == (2, 1, 12, 8)
    found = spectrum.inverse(spectrum.symbol * spectrum.forward(u))
    truth = -(math.pi**2 * torch.sin(math.pi * x) + (2 * math.pi / 0.7) ** 2 * torch.cos(2 * math.pi * y / 0.7))
    torch.testing.assert_close(found.detach(), nu.detach().reshape(2, 1, 1, 1) * truth, rtol=0, atol=1e-10)
    (gradient,) = torch.autograd.grad(found[1].square().sum(), nu)
    assert gradient[0] == 0
    torch.testing.assert_close(gradient[1], 2 * 2.0 * truth.square().sum())
    box = Grid((12, 15), (2.0, 0.7), {"y": Neumann()})
    heat = Spectrum(box, diffusivity=torch.tensor(2.0, dtype=torch.float64))
    v = noise(1, 1, 12, 15)
    law = -2.0 * Diffusion(box)(v) / box.volumes()
    torch.testing.assert_close(heat.inverse(heat.symbol * heat.forward(v)), law, rtol=0, atol=1e-9)
    fourth = Spectrum(grid, lambda m, *, strength: -strength * m.square.square(), strength=torch.tensor(1.0))
    assert fourth.symbol.shape == (1, 1, 12, 8)
    with pytest.raises(InputError, match="takes the tensors"):
        Spectrum(grid, viscosity=torch.tensor(1.0))
    with pytest.raises(InputError, match="torch.tensor"):
        Spectrum(grid, diffusivity=1.0)  # type: ignore[arg-type]


def test_two_thirds_rule() -> None:
    """Of waves `a` and `b` that are kept, the product is either resolved or dropped, never mistaken for another."""
    n = 18
    grid = Grid((n,), sides=Periodic())
    spectrum = Spectrum(grid, diffusivity=torch.tensor(1.0, dtype=torch.float64))
    kept = spectrum.dealias(torch.ones(1, 1, n // 2 + 1, dtype=torch.complex128)).real[0, 0]
    assert kept.tolist() == [1.0] * 6 + [0.0] * 4
    (x,) = grid.points()
    product = torch.cos(2 * math.pi * 5 * x) ** 2  # waves 0 and 10, and 10 looks like 8 on this grid
    back = spectrum.inverse(spectrum.dealias(spectrum.forward(product[None, None])))
    torch.testing.assert_close(back, torch.full_like(back, 0.5), rtol=0, atol=1e-13)


@pytest.mark.parametrize("mix", MIXES, ids=name)
def test_direct_solution_is_exact(mix: Any) -> None:
    grid = grid_of(mix)
    operator = Diffusion(grid, 2.0, reaction=0.3)
    solution = sciml.solve(Linear("box", operator, noise(1, 1, *grid.shape)), DirectTransform())
    assert solution.ok
    assert float(solution.checks[0].value) < 1e-14  # a few hundred rounding errors of 1e-16, in the mean square


def test_every_member_its_own_coefficient_and_side_values() -> None:
    """Against the factorisation."""
    sides = {"x": (Dirichlet(noise(3, 1, 7)), Neumann(0.7)), "y": (Neumann(noise(9)), Dirichlet(-1.0))}
    grid = Grid((9, 7), (1.0, 2.0), sides)
    k, c = torch.tensor([1.0, 2.0, 5.0]).double(), torch.tensor([0.0, 1.0, -2.0]).double()
    problem = Linear("members", Diffusion(grid, k, reaction=c), noise(1, 1, 9, 7))
    torch.testing.assert_close(
        sciml.solve(problem, DirectTransform()).value, sciml.solve(problem, Direct()).value, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("sides", [Neumann(), Periodic(), {"x": Periodic(), "y": Neumann()}])
def test_singular_problems(sides: Any) -> None:
    """Solved in the complement of the constants; an incompatible source is refused."""
    grid = Grid((9, 14), (1.0, 2.0), sides)
    operator, source = Diffusion(grid, 3.0), noise(1, 1, 9, 14)
    balanced = source - operator.load(source).sum() / grid.volumes().sum()
    solution = sciml.solve(Linear("free", operator, balanced), DirectTransform())
    assert solution.ok
    assert abs(float(solution.value.sum())) < 1e-10
    with pytest.raises(InputError, match="incompatible"):
        sciml.solve(Linear("free", operator, source), DirectTransform())


def test_a_reaction_that_meets_an_eigenvalue_breaks_down() -> None:
    grid = Grid((9,))
    first = float(eigenvalues(grid)[0])
    with pytest.raises(SolveError, match="meets an eigenvalue") as caught:
        sciml.solve(Linear("resonant", Diffusion(grid, 1.0, reaction=-first), noise(1, 1, 9)), DirectTransform())
    assert caught.value.solution.code is Code.BREAKDOWN
    near = Linear("near", Diffusion(grid, 1.0, reaction=-first - 1.0), noise(1, 1, 9))
    assert sciml.solve(near, DirectTransform()).ok


def test_what_it_refuses() -> None:
    grid = Grid((9,))
    varying = Linear("varying", Diffusion(grid, 1 + grid.points()[0]), noise(1, 1, 9))
    assert "field" in str(DirectTransform().accepts(varying))
    robin = Linear("robin", Diffusion(Grid((9,), sides={"x": (Robin(1.0), D)})), noise(1, 1, 9))
    assert "Robin" in str(DirectTransform().accepts(robin))
