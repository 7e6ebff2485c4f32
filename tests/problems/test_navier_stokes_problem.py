"""The catalogue's Navier-Stokes problem: exact flows, balances, members, and the way to a rollout."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sciml
from sciml.core import Evolution
from sciml.domains import InputError
from sciml.learned import Rollout
from sciml.networks import FNO
from sciml.training import Reflection


def waves(n: int, m: int, width: float = 1.0, height: float = 1.0) -> tuple[Tensor, Tensor]:
    """``2 pi x / width`` and ``2 pi y / height`` on the grid."""
    x = torch.arange(n, dtype=torch.float64)[:, None] / n
    y = torch.arange(m, dtype=torch.float64)[None, :] / m
    return 2 * math.pi * x + 0 * y, 2 * math.pi * y + 0 * x


def energy(problem: Evolution, w: Tensor) -> Tensor:
    """Mean kinetic energy and mean enstrophy, by Parseval on the full spectrum: another way than the problem's."""
    grid = problem.space.domain
    hat = torch.fft.fft2(w) / w.shape[-1] / w.shape[-2]
    kx = torch.fft.fftfreq(w.shape[-2], grid.extent[0] / w.shape[-2], dtype=torch.float64) * 2 * math.pi
    ky = torch.fft.fftfreq(w.shape[-1], grid.extent[1] / w.shape[-1], dtype=torch.float64) * 2 * math.pi
    square = kx[:, None] ** 2 + ky**2
    power = hat.abs().square()
    kinetic = torch.where(square > 0, power / square.clamp_min(1e-30), torch.zeros_like(power))
    return torch.stack([kinetic.sum((-2, -1)), power.sum((-2, -1))]) / 2


def test_taylor_and_green_s_vortices_decay() -> None:
    """w = sin(a x) sin(b y) e^(-viscosity (a^2 + b^2) t): transport vanishes; tolerance: rounding of 50 transforms."""
    x, y = waves(24, 18, 1.0, 1.5)
    start = torch.sin(x) * torch.sin(2 * y)
    rate = 4 * math.pi**2 * (1 + 4 / 2.25)
    problem = sciml.problem(
        "navier_stokes", n=(24, 18), extent=(1.0, 1.5), viscosity=0.01, start=start, force=0, times=(0.5, 1.0)
    )
    solution = sciml.solve(problem)
    assert solution.ok
    for i, t in enumerate((0.5, 1.0)):
        torch.testing.assert_close(solution.value[0, i, 0], start * math.exp(-0.01 * rate * t), rtol=0, atol=1e-12)
    wrong = start * math.exp(-0.0101 * rate)
    assert float((solution.value[0, 1, 0] - wrong).abs().max()) > 1e-3


def test_a_force_holds_a_flow_that_transports() -> None:
    """psi = sin x + cos 2y / 2 (in units of the box) stands still under force = v . grad w - viscosity laplacian(w)."""
    nu, k = 0.02, 2 * math.pi
    x, y = waves(20, 27)
    # psi = sin(X) + cos(2Y) / 2; w = k^2 (sin X + 2 cos 2Y); v = (psi_y, -psi_x) = k (-sin 2Y, -cos X)
    w = k**2 * (torch.sin(x) + 2 * torch.cos(2 * y))
    moved = k**4 * (-torch.sin(2 * y) * torch.cos(x) + torch.cos(x) * 4 * torch.sin(2 * y))
    decay = k**4 * nu * (torch.sin(x) + 8 * torch.cos(2 * y))
    settings = {"n": (20, 27), "viscosity": nu, "start": w, "times": (0.05,)}
    steady = sciml.problem("navier_stokes", force=moved + decay, **settings)
    assert float(steady.rate(0.0, steady.start).abs().max()) < 1e-12 * k**4 * 10
    wrong = sciml.problem("navier_stokes", force=decay - moved, **settings)  # spins the other way
    assert float(wrong.rate(0.0, wrong.start).abs().max()) > k**4
    value = sciml.solve(steady).value[0, 0, 0]
    assert float((value - w).norm() / w.norm()) < 1e-6  # the target of the steps


def test_both_statements_of_the_rest_agree_where_waves_are_kept() -> None:
    problem = sciml.problem("navier_stokes", n=(18, 25), extent=(1.0, 2.0), viscosity=1e-3, seed=3)
    hat = problem.stiff.dealias(torch.fft.rfft2(problem.start))
    w = torch.fft.irfft2(hat, s=(18, 25))
    grid = problem.stiff.dealias(torch.fft.rfft2(problem.rest(0.0, w, space=problem.space)))
    spectral = problem.stiff.dealias(problem.rest_modes(0.0, hat, space=problem.space))
    assert float((grid - spectral).norm() / grid.norm()) < 1e-13
    whole = torch.fft.rfft2(problem.start)  # with the waves beyond two thirds the two forms are aliased differently
    grid = torch.fft.rfft2(problem.rest(0.0, problem.start, space=problem.space))
    assert float((grid - problem.rest_modes(0.0, whole, space=problem.space)).norm() / grid.norm()) > 1e-9


def test_energy_and_enstrophy_balance() -> None:
    """Their rates are what force puts in less what viscosity takes: by differences of a short, finely kept solution."""
    nu, h = 2e-3, 0.0025
    times = (0.2 - h, 0.2, 0.2 + h)
    problem = sciml.problem("navier_stokes", n=32, viscosity=nu, times=times, seed=1).with_target(steps=1e-9)
    solution = sciml.solve(problem)
    levels = energy(problem, solution.value[0, :, 0])
    found = (levels[:, 2] - levels[:, 0]) / (2 * h)
    w, f = solution.value[0, 1, 0], problem.parameters()["force"][0, 0]
    grid = problem.space.domain
    k = 4 * math.pi**2 / grid.extent[0] ** 2
    # The force is an eigenfunction of the Laplacian with eigenvalue -2 k: its stream function is f / (2 k).
    gain = torch.stack([(w * f).mean() / (2 * k), (w * f).mean()])
    slope = energy(problem, torch.stack(_gradient(w)))[1].sum()
    loss = 2 * nu * torch.stack([levels[1, 1], slope])
    torch.testing.assert_close(found, gain - loss, rtol=2e-4, atol=0)  # h^2 of the differences
    assert float(((gain - 0.99 * loss) / found - 1).abs().max()) > 5e-4
    for name in ("mean", "energy balance", "enstrophy balance"):
        assert float(solution.check(f"{name} drift").value.max()) < 1e-13
    assert all("rise" not in check.name for check in solution.checks)


def _gradient(w: Tensor) -> tuple[Tensor, Tensor]:
    k = torch.fft.fftfreq(w.shape[0], 1 / w.shape[0], dtype=torch.float64) * 2 * math.pi
    hat = torch.fft.fft2(w)
    return torch.fft.ifft2(1j * k[:, None] * hat).real, torch.fft.ifft2(1j * k * hat).real


def test_transport_without_the_rule_of_two_thirds_makes_energy() -> None:
    """The twin of the balances above: on a grid that carries all waves the same sum is not zero."""
    problem = sciml.problem("navier_stokes", n=16, seed=2, scale=7.0**1.5)
    rough = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rough = rough - rough.mean()
    balance = problem.invariants["enstrophy balance"]
    assert abs(float(balance(rough)) - 1) < 1e-13
    aliased = rough * (0.0 - problem.rest(0.0, rough, space=problem.space) + problem.parameters()["force"])
    assert abs(float(aliased.mean() / aliased.abs().mean())) > 1e-4


def test_without_a_force_energy_and_enstrophy_fall() -> None:
    solution = sciml.solve(sciml.problem("navier_stokes", n=16, force=0, batch=2, times=(0.5, 1.0)))
    assert solution.ok
    for name in ("energy", "enstrophy"):
        assert float(solution.check(f"{name} rise").value.max()) == 0.0
    backwards = solution.problem.certify(solution.value.flip(1))
    rises = {check.name: check.value for check in backwards if check.name.endswith("rise")}
    assert all(float(value.min()) > 1e-3 for value in rises.values())


def test_members_depend_on_seed_and_index_alone() -> None:
    few, many = (sciml.problem("navier_stokes", n=16, batch=count, seed=4) for count in (2, 5))
    assert torch.equal(few.start, many.start[:2])
    assert not torch.equal(few.start, sciml.problem("navier_stokes", n=16, batch=2, seed=5).start)
    fine, coarse = (sciml.problem("navier_stokes", n=n, seed=4).start for n in (256, 128))
    torch.testing.assert_close(fine[..., ::2, ::2], coarse, rtol=0, atol=1e-12)
    small = sciml.problem("navier_stokes", n=(32, 21), seed=4).start
    assert float(small.mean().abs()) < 1e-14
    hat, known = torch.fft.fft2(small)[0, 0] / (32 * 21), torch.fft.fft2(coarse)[0, 0] / 128**2
    torch.testing.assert_close(hat[:10, :10], known[:10, :10], rtol=0, atol=1e-12)  # the waves that both grids carry


def test_the_start_has_the_stated_covariance() -> None:
    """Variance of the wave (1, 0), 4 * 7^3 (4 pi^2 + 49)^-2.5 / 2: from 800 amplitudes 5 standard errors are 25 %."""
    start = sciml.problem("navier_stokes", n=8, batch=400, seed=0).start[:, 0]
    square = (torch.fft.fft2(start)[:, 1, 0].abs() / 64).square().mean()
    assert float(2 * square) == pytest.approx(2 * 7**3 * (4 * math.pi**2 + 49) ** -2.5, rel=0.25)


def test_name_fields_and_symmetry() -> None:
    problem = sciml.problem("navier_stokes", n=16, viscosity=1e-4)
    for word in ("viscosity 0.0001", "force of Li et al.", "343 (-laplacian + 49)^-2.5", "extent 1 x 1"):
        assert word in problem.name
    assert set(problem.parameters()) == {"start", "force", "viscosity"} and set(problem.fields) == {"start", "force"}
    assert problem.symmetries == ()
    free = sciml.problem("navier_stokes", n=16, force=0)
    assert all(sciml.checks.symmetry(free, one) for one in free.symmetries) and free.symmetries
    assert not sciml.checks.symmetry(free, Reflection())  # mirrored, a vortex would have to turn the other way


def test_a_gradient_reaches_the_viscosity_and_the_force() -> None:
    problem = sciml.problem("navier_stokes", n=12, times=(0.3,), viscosity=torch.tensor(0.01, dtype=torch.float64))
    for name in ("viscosity", "force"):
        at = problem.parameters()[name].clone().requires_grad_()
        direction = torch.ones_like(at) if name == "viscosity" else torch.cos(waves(12, 12)[0]).expand_as(at)

        def loss(tensor: Tensor, name: str = name) -> Tensor:
            solver = sciml.solvers.ExponentialRungeKutta(step=0.05)
            return sciml.solve(problem.replace(**{name: tensor}), solver).value.square().mean()

        (gradient,) = torch.autograd.grad(loss(at), at)
        with torch.no_grad():
            ends = [loss(at + h * direction) for h in (1e-5, -1e-5)]
        assert float((gradient * direction).sum()) == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-5)


def test_generate_open_fit_roll_out(tmp_path: Path) -> None:
    """The way from the catalogue to a rollout; the numbers only show that something was learned."""
    path = sciml.generate(
        "navier_stokes", count=8, out=tmp_path / "flow.h5", n=16, viscosity=0.01, times=[0.0, 0.5, 1.0], progress=False
    )
    movies = sciml.open_dataset(path)
    assert movies.u.dims == ("sample", "time", "x", "y") and movies.u.shape == (8, 3, 16, 16)
    assert movies.force.dims == ("x", "y")
    step = sciml.fit(
        FNO(dim=2, modes=4, width=8, layers=2), sciml.windows(movies.u, history=1, horizon=1), epochs=20, progress=False
    )
    posed = sciml.problem("navier_stokes", n=16, viscosity=0.01, times=[0.5, 1.0], seed=99)
    with pytest.warns(UserWarning):
        rolled = sciml.solve(posed, Rollout(step))
    truth = sciml.solve(posed).value
    still = posed.start[:, None].expand_as(truth)
    assert rolled.code.name == "UNCERTIFIED"
    assert float((rolled.value - truth).norm()) < 0.8 * float((still - truth).norm())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"viscosity": 0.0}, "viscosity"),
        ({"viscosity": float("nan")}, "viscosity"),
        ({"n": (8, 8, 8)}, "planar"),
        ({"force": 0.3}, "does not exist on a torus"),
        ({"force": torch.ones(16, 16)}, "force has the mean 1"),
        ({"start": torch.ones(16, 16)}, "start has the mean 1"),
    ],
)
def test_refusals(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        sciml.problem("navier_stokes", **{"n": 16, **settings})


def test_single_precision_keeps_its_certificate() -> None:
    solution = sciml.solve(sciml.problem("navier_stokes", n=24, dtype="float32", batch=2, times=(0.5, 1.0)))
    assert solution.ok and solution.value.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_water_at_rest_has_balances(dtype: torch.dtype) -> None:
    """Nothing is moved, so no share of it is made: one, not a quotient of zeros."""
    problem = sciml.problem("navier_stokes", n=16, force=0, start=torch.zeros(16, 16), dtype=dtype)
    for told in problem.invariants.values():
        assert float(told(problem.start)) == 1


def test_starts_come_as_arrays_and_lists() -> None:
    x = torch.arange(12, dtype=torch.float64) * (2 * math.pi / 12)
    w = x.sin()[:, None] * x.cos()
    wanted = sciml.problem("navier_stokes", n=12, start=w, force=2 * w)
    for given in (w.numpy(), w.tolist()):
        made = sciml.problem("navier_stokes", n=12, start=given, force=(2 * w).numpy())
        assert torch.equal(made.start, wanted.start) and torch.equal(made.fields["force"], wanted.fields["force"])
    with pytest.raises(InputError, match="start is a str that makes no tensor"):
        sciml.problem("navier_stokes", n=12, start="still")
