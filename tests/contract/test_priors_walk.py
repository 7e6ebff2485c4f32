"""What every prior promises, asked of every `example()` in the package, and of broken twins that must be rejected.

A promise is a function from (prior, space) to a list of sentences, empty where it is kept. `example()` of a prior file returns
a prior, not yet bound, and a space of images that it fits.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from walk import files, short

from sciml import checks
from sciml.core.prior import Composite, Denoising, Energy, Generative, Prior, Proximable, Smooth
from sciml.domains.space import Space
from sciml.priors import Gaussian, Smoothness, TotalVariation, Wavelet

PROTOCOLS = (Energy, Proximable, Composite, Smooth, Denoising, Generative)
FILES = files("priors")


def images(space: Space, count: int = 3, seed: int = 0) -> Tensor:
    """Rough images around one half, within what a learned prior has seen."""
    generator = torch.Generator().manual_seed(seed)
    kind = space.zeros().dtype
    return (0.5 + 0.25 * torch.randn((count, *space.shape), generator=generator, dtype=kind)).to(space.device)


def step_of(prior: Any) -> float:
    return 0.2 if prior.only_step is None else float(prior.only_step)


def calls(prior: Any, x: Tensor) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """All that a prior does to a batch, as functions of the batch."""
    if isinstance(prior, Energy):
        yield "energy", lambda u: prior.energy(prior.inside(u) if isinstance(prior, Composite) else u)
    if isinstance(prior, Proximable):
        yield "prox", lambda u: prior.prox(u, step_of(prior))
    if isinstance(prior, Smooth):
        yield "gradient", prior.gradient
    if isinstance(prior, Denoising):
        yield "denoise", lambda u: prior.denoise(u, 0.1)
    if isinstance(prior, Composite):
        yield "operator", prior.operator
        yield "outer", lambda u: prior.outer(prior.operator(u))
        ones = torch.ones(1, dtype=x.real.dtype, device=x.device)
        yield "dual_prox", lambda u: prior.dual_prox(prior.operator(u), ones.expand(len(u)), 0.3 * ones.expand(len(u)))


def close(a: Tensor, b: Tensor) -> bool:
    """Equal up to rounding in sums (1e-9 in double: iterations may stop on either side of their own tolerance)."""
    limit = 1e-9 if a.dtype in (torch.float64, torch.complex128) and a.dtype == b.dtype else 1e-4
    return a.shape == b.shape and bool((a - b).abs().max() <= limit * b.abs().max().clamp_min(1e-300))


def has_a_role(prior: Any, space: Space) -> list[str]:
    """It is a Prior, keeps a protocol (or has the stages of an unfolded method), fits its own example, and a bound prior is bound again to the same thing."""
    faults = [] if isinstance(prior, Prior) else ["is no Prior"]
    if prior.fits(space) is not None:
        faults.append(f"does not fit its own example: {prior.fits(space)}")
    bound = prior.on(space)
    if not any(isinstance(bound, protocol) for protocol in PROTOCOLS) and not hasattr(bound, "stage"):
        faults.append("keeps no protocol")
    x = images(space)
    for (name, once), (_, twice) in zip(calls(bound, x), calls(bound.on(space), x), strict=True):
        if not torch.equal(once(x), twice(x)):
            faults.append(f"{name} changes when the prior is bound twice")
    return faults


def repeats(prior: Any, space: Space) -> list[str]:
    """Twice gives the same bits, and changes nothing that was passed in."""
    bound, x = prior.on(space), images(space)
    faults = []
    for name, call in calls(bound, x):
        before = x.clone()
        if not torch.equal(call(x), call(x)):
            faults.append(f"{name} gives other bits the second time")
        if not torch.equal(x, before):
            faults.append(f"{name} changes its input")
            x = before
    return faults


def batches(prior: Any, space: Space) -> list[str]:
    """A batch is a stack of members."""
    bound, x = prior.on(space), images(space)
    return [
        f"{name} of a batch is not the stack of its members"
        for name, call in calls(bound, x)
        if not close(call(x), torch.cat([call(one[None]) for one in x]))
    ]


def shapes(prior: Any, space: Space) -> list[str]:
    """Energies are ``(batch,)``, images keep shape and dtype, steps and levels may differ by member."""
    bound, x = prior.on(space), images(space)
    faults = []
    for name, call in calls(bound, x):
        y = call(x)
        if name in ("energy", "outer"):
            if y.shape != x.shape[:1] or not bool(torch.isfinite(y).all()):
                faults.append(f"{name} is {tuple(y.shape)}, finite: {bool(torch.isfinite(y).all())}")
        elif name in ("operator", "dual_prox"):
            if y.shape[1:] != torch.Size(bound.operator.codomain.shape) or y.dtype != x.dtype:
                faults.append(f"{name} gives {tuple(y.shape)} {y.dtype}")
        elif y.shape != x.shape or y.dtype != x.dtype:
            faults.append(f"{name} turns {tuple(x.shape)} {x.dtype} into {tuple(y.shape)} {y.dtype}")
    if isinstance(bound, Proximable) and bound.only_step is None:
        steps = torch.tensor([0.01, 0.1, 1.0], dtype=x.real.dtype)
        rows = torch.cat([bound.prox(x[i : i + 1], float(steps[i])) for i in range(3)])
        if not close(bound.prox(x, steps), rows):
            faults.append("prox with one step per member is not the stack of its members")
    if isinstance(bound, Denoising):
        levels = torch.tensor([0.05, 0.1, 0.2], dtype=x.real.dtype)
        rows = torch.cat([bound.denoise(x[i : i + 1], levels[i : i + 1]) for i in range(3)])
        if not close(bound.denoise(x, levels), rows):
            faults.append("denoise with one level per member is not the stack of its members")
    return faults


def both_precisions(prior: Any, space: Space) -> list[str]:
    """An image in single precision is answered in single precision, with nearly the same values."""
    if space.dtype != torch.float64 or any(isinstance(v, torch.nn.Module) for v in vars(prior).values()):
        return []  # a network has the precision of its weights
    bound, x = prior.on(space), images(space)
    faults = []
    for name, call in calls(bound, x):
        low, high = call(x.to(torch.float32)), call(x)
        if name not in ("energy", "outer") and low.dtype != torch.float32:
            faults.append(f"{name} answers single precision in {low.dtype}")
        # sqrt(2 * 1e-5): what the duality gap in single precision allows the image of an iterative map.
        if not bool((low - high).abs().max() <= 5e-3 * high.abs().max()):
            faults.append(f"{name} differs in single precision")
    return faults


def pickles(prior: Any, space: Space) -> list[str]:
    """Pickled and deep copies give the same bits, bound or not."""
    x = images(space)
    faults = []
    with torch.no_grad():
        bound = prior.on(space)
    for twin in (pickle.loads(pickle.dumps(prior)), copy.deepcopy(prior), copy.deepcopy(bound)):
        for (name, call), (_, other) in zip(calls(prior.on(space), x), calls(twin.on(space), x), strict=True):
            if not torch.equal(call(x), other(x)):
                faults.append(f"{name} of a copy gives other bits")
    return faults


def derivative(prior: Any, space: Space) -> list[str]:
    """A smooth prior's gradient, by the Taylor remainder; its curvature is symmetric and not negative."""
    bound = prior.on(space)
    if not isinstance(bound, Smooth):
        return []
    x, d = images(space, 1, 1), images(space, 1, 2) - 0.5
    base, slope = bound.energy(x), (bound.gradient(x).conj() * d).real.sum()
    steps = [2.0**-k for k in range(1, 7)]
    errors = [float((bound.energy(x + h * d) - base - h * slope).abs()) for h in steps]
    faults = []
    if max(errors) > 1e-11 * float(base) and abs(checks.fitted_slope(steps, errors) - 2) > 0.1:
        faults.append(f"the Taylor remainder of the gradient falls with slope {checks.fitted_slope(steps, errors):.2f}")
    H = bound.curvature(x)
    if not checks.adjoint(H):
        faults.append(f"the curvature: {checks.adjoint(H)}")
    found, h = float((d.conj() * H(d)).real.sum()), 1e-3
    exact = float((bound.energy(x + h * d) - 2 * base + bound.energy(x - h * d)) / h**2)
    if found < 0 or found > exact * (1 + 1e-4) + 1e-6 * abs(exact):
        faults.append(f"the curvature along a direction is {found:.6g}, the energy bends by {exact:.6g}")
    return faults


def composition(prior: Any, space: Space) -> list[str]:
    """``R = g(K x)``, an adjoint of K, the conjugate by Fenchel and Young, bounds, and a dual that leads to ``prox``."""
    bound = prior.on(space)
    if not isinstance(bound, Composite):
        return []
    x = bound.inside(images(space, 2))
    K, faults = bound.operator, []
    if not checks.adjoint(K):
        faults.append(f"K: {checks.adjoint(K)}")
    z, weight = K(x), torch.tensor([0.5, 2.0], dtype=x.real.dtype)
    if isinstance(bound, Energy) and not close(bound.outer(z), bound.energy(x)):
        faults.append("the energy is not g(K x)")
    p = bound.dual_prox(10 * z, torch.ones_like(weight), weight)
    if not bool(torch.isfinite(bound.conjugate(p, weight)).all()):
        faults.append("dual_prox leaves the domain of the conjugate")
    excess = weight * bound.outer(z) + bound.conjugate(p, weight) - (p.conj() * z).real.flatten(1).sum(1)
    if float(excess.min()) < -1e-9 * float(excess.abs().max() + bound.outer(z).max()):
        faults.append(f"the conjugate breaks Fenchel's inequality by {float(-excess.min()):.1e}")
    if not torch.equal(bound.inside(x), x):
        faults.append("inside moves what is inside")
    slope = images(space, 2, 3) - 0.5
    ahead = x - 1e-6 * bound.descent(x, slope)
    if float((ahead - bound.inside(ahead)).abs().max()) > 1e-12 and float(x.abs().min()) == 0:
        faults.append("descent leads out of the bounds")
    if isinstance(bound, Proximable) and isinstance(bound, Energy) and bound.only_step is None:
        faults += _dual_meets_prox(bound, x, weight)
    return faults


def _dual_meets_prox(bound: Any, v: Tensor, weight: Tensor) -> list[str]:
    """Plain dual ascent with ``dual_prox`` closes the gap to the value at ``prox`` to a permille, from below."""
    K = bound.operator
    rate = 1 / (1.05 * float(K.size_bound().max()) ** 2)
    p = torch.zeros_like(K(v))
    for _ in range(600):
        p = bound.dual_prox(p + rate * K(bound.inside(v - K.adjoint(p))), torch.full_like(weight, rate), weight)
    x = bound.prox(v, weight)

    def half(u: Tensor) -> Tensor:
        return (u - v).abs().square().flatten(1).sum(1) / 2

    primal = half(x) + weight * bound.energy(x)
    y = bound.inside(v - K.adjoint(p))
    lower = half(y) + (p.conj() * K(y)).real.flatten(1).sum(1) - bound.conjugate(p, weight)
    gap = float(((primal - lower) / primal).max())
    return [] if -1e-9 <= gap <= 1e-3 else [f"dual_prox and prox disagree: their values differ by {gap:.1e}"]


def proximal(prior: Any, space: Space) -> list[str]:
    """Nothing is lower than the proximal point; the map of a classical prior is firmly non-expansive."""
    bound = prior.on(space)
    if not isinstance(bound, Proximable):
        return []
    if bound.only_step is None and space.dtype == torch.float64:
        result = checks.prox(prior, space)
    else:
        # An energy that is read out is itself iterative, and a learned one need not be convex.
        result = checks.prox(prior, space, tolerance=1e-5, rounds=2, convex=False)
    return [] if result else [str(result)]


def generative(prior: Any, space: Space) -> list[str]:
    """Draws of the right shape, the same from the same seed, others from another."""
    bound = prior.on(space)
    if not isinstance(bound, Generative):
        return []
    one, same, other = (bound.sample(2, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    faults = [] if one.shape == (2, *space.shape) and one.dtype == space.dtype else [f"draws {tuple(one.shape)}"]
    if not torch.equal(one, same) or torch.equal(one, other) or torch.equal(one[0], one[1]):
        faults.append("the draws do not follow the seed")
    return faults


PROMISES = (
    has_a_role,
    repeats,
    batches,
    shapes,
    both_precisions,
    pickles,
    derivative,
    composition,
    proximal,
    generative,
)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("file", FILES, ids=short)
def test_promises(file: ModuleType, promise: Callable[[Any, Space], list[str]]) -> None:
    assert promise(*file.example()) == []


def spoiled(prior: Any, **methods: Any) -> Any:
    """A copy of a prior whose class has other methods; each gets the class it replaces as ``super``."""
    twin = copy.copy(prior)
    object.__setattr__(twin, "__class__", type("Spoiled", (type(prior),), methods))
    return twin


TV, SMOOTH, GAUSS, WAVES = (
    next(file for file in FILES if short(file) == name).example()
    for name in ("total_variation", "smoothness", "gaussian", "wavelet")
)
COUNT = iter(range(10**6))
TWINS: dict[str, tuple[Callable[[Any, Space], list[str]], Any, Space]] = {
    "bound twice is bound to another scale": (has_a_role, spoiled(SMOOTH[0], on=lambda self, s: replace(Smoothness.on(self, s), order=self.order + (self.space is not None))), SMOOTH[1]),
    "no protocol": (has_a_role, Prior(), SMOOTH[1]),
    "random": (repeats, spoiled(SMOOTH[0], prox=lambda self, v, step: v + next(COUNT)), SMOOTH[1]),
    "in place": (repeats, spoiled(SMOOTH[0], gradient=lambda self, x: x.mul_(2).clone()), SMOOTH[1]),
    "members mixed": (batches, spoiled(SMOOTH[0], gradient=lambda self, x: x - x.mean(0)), SMOOTH[1]),
    "a sum over the batch": (shapes, spoiled(WAVES[0], energy=lambda self, x: Wavelet.energy(self, x).sum()), WAVES[1]),
    "the first step for all": (shapes, spoiled(WAVES[0], prox=lambda self, v, step: Wavelet.prox(self, v, step if isinstance(step, float) else step[0])), WAVES[1]),
    "double whatever comes": (both_precisions, spoiled(SMOOTH[0], gradient=lambda self, x: Smoothness.gradient(self, x.double())), SMOOTH[1]),
    "a gradient twice too large": (derivative, spoiled(SMOOTH[0], gradient=lambda self, x: 2 * Smoothness.gradient(self, x), energy=lambda self, x: Smoothness(1.0, self.space).energy(x)), SMOOTH[1]),
    "a curvature twice too large": (derivative, spoiled(GAUSS[0], curvature=lambda self, x: 2 * Gaussian.curvature(self, x)), GAUSS[1]),
    "a curvature with a sign": (derivative, spoiled(GAUSS[0], curvature=lambda self, x: -1.0 * Gaussian.curvature(self, x)), GAUSS[1]),
    "an adjoint without its sign": (composition, spoiled(TV[0], operator=property(lambda self: _Unsigned(self.space))), TV[1]),
    "a dual ball too large": (composition, spoiled(TV[0], dual_prox=lambda self, p, step, weight: TotalVariation.dual_prox(self, p, step, 1.1 * weight)), TV[1]),
    "a dual ball too small": (composition, spoiled(WAVES[0], dual_prox=lambda self, p, step, weight: Wavelet.dual_prox(self, p, step, 0.5 * weight)), WAVES[1]),
    "a conjugate that is never infinite nor zero": (composition, spoiled(WAVES[0], conjugate=lambda self, p, weight: torch.full((len(p),), -math.inf, dtype=torch.float64)), WAVES[1]),
    "an outer function off by a factor": (composition, spoiled(TV[0], outer=lambda self, z: 2 * TotalVariation.outer(self, z), energy=lambda self, x: TotalVariation(0.0, None, self.space).energy(x)), TV[1]),
    "a proximal map at twice the step": (proximal, spoiled(TV[0], prox=lambda self, v, step: TotalVariation.prox(self, v, 2 * step)), TV[1]),
    "draws without a seed": (generative, spoiled(GAUSS[0], sample=lambda self, count, *, generator: Gaussian.sample(self, count, generator=torch.Generator().manual_seed(next(COUNT)))), GAUSS[1]),
}  # fmt: skip


class _Unsigned(type(TV[0].on(TV[1]).operator)):  # type: ignore[misc]
    def adjoint(self, v: Tensor) -> Tensor:
        return -super().adjoint(v)


@pytest.mark.parametrize("name", TWINS)
def test_broken_twins_are_rejected(name: str) -> None:
    promise, prior, space = TWINS[name]
    assert promise(prior, space) != []


def test_a_copy_that_forgets_is_rejected() -> None:
    class Forgetful(Smoothness):
        def __reduce__(self) -> Any:
            return (Smoothness, (self.order + 1,))

    assert pickles(Forgetful(1.0), SMOOTH[1]) != []
