"""Public property checks: the ones this package tests itself with, for your own operators, laws and problems.

Each returns a result that is true when the property holds and prints what was measured; none raises for a failed
property, so that ``assert checks.adjoint(op)`` reads well in a test.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.core.continuous import At, Continuous
from sciml.core.evolution import Evolution
from sciml.core.linear import ForwardModel, LinearOperator
from sciml.core.prior import Energy
from sciml.core.problem import Linear, Problem
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.domains.space import Space

__all__ = ["Result", "adjoint", "consistent", "derivative", "order", "prox", "symmetry"]


@dataclass(frozen=True)
class Result:
    """Whether a property holds, the number that was measured, and a sentence."""

    ok: bool
    value: float
    sentence: str

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return f"{'holds' if self.ok else 'FAILS'}: {self.sentence}"

    __repr__ = __str__


def _random(space: Space, batch: int, generator: torch.Generator) -> Tensor:
    kind = space.dtype if not space.complex else (torch.complex64 if space.dtype == torch.float32 else torch.complex128)
    return torch.randn((batch, *space.shape), generator=generator, dtype=kind).to(space.device)


def adjoint(operator: LinearOperator, *, tolerance: float | None = None, trials: int = 3, seed: int = 0) -> Result:
    """``<A u, v> = <u, A^H v>`` on random fields, the shapes included, for every member of a batched operator.

    The ratio of the two inner products is fitted, because most wrong adjoints are right up to a factor (a cell volume, a
    forgotten conjugate). ``tolerance`` is relative to ``|A u| |v|``; by default 1e-12 in double and 1e-5 in single
    precision, rounding of sums over grids of up to a million nodes.
    """
    generator = torch.Generator().manual_seed(seed)
    batch = operator.batch
    worst, ratio = 0.0, 1.0
    with torch.no_grad():
        for _ in range(trials):
            u, v = _random(operator.space, batch, generator), _random(operator.codomain, batch, generator)
            image, back = operator(u), operator.adjoint(v)
            if image.shape != v.shape or back.shape != u.shape:
                return Result(
                    False,
                    math.inf,
                    f"shapes: A u is {tuple(image.shape)}, its space {tuple(v.shape)}; A^H v is {tuple(back.shape)}, its space {tuple(u.shape)}",
                )
            left = (image.conj() * v).flatten(1).sum(1)
            right = (u.conj() * back).flatten(1).sum(1)
            size = torch.linalg.vector_norm(image.flatten(1), dim=1) * torch.linalg.vector_norm(v.flatten(1), dim=1)
            error = float(((left - right).abs() / size.clamp_min(1e-300)).max())
            if not math.isfinite(error):
                return Result(False, error, "the products are not finite")
            if error >= worst:
                worst = error
                i = int((left - right).abs().argmax())
                ratio = float((right[i] / left[i]).real) if left[i] != 0 else math.nan
    limit = (
        tolerance
        if tolerance is not None
        else (1e-12 if operator.space.dtype in (torch.float64, torch.complex128) else 1e-5)
    )
    return Result(
        worst <= limit,
        worst,
        f"|<Au,v> - <u,A^H v>| is {worst:.1e} of |Au||v| (limit {limit:.0e}); the adjoint is scaled by {ratio:.6g}",
    )


def derivative(
    forward: ForwardModel | Callable[[Tensor], Tensor],
    at: Tensor | None = None,
    *,
    seed: int = 0,
    slope: float = 2.0,
    margin: float = 0.1,
) -> Result:
    """Taylor's test: ``|F(x + h d) - F(x) - h F'(x) d|`` must fall like ``h^2``.

    ``forward`` is a ForwardModel (its ``linearise`` is tested) or a differentiable function (automatic differentiation is
    tested). ``at`` is where; random for a ForwardModel with a space. A linear map has no remainder and passes.
    """
    generator = torch.Generator().manual_seed(seed)
    if at is None:
        space = getattr(forward, "space", None)
        if not isinstance(space, Space):
            raise InputError("pass at=, the point where the derivative is tested; the map does not name its space")
        at = _random(space, 1, generator)
    direction = torch.randn(at.shape, generator=generator, dtype=at.dtype).to(at.device)
    direction = direction * (at.abs().max().clamp_min(1e-3) / direction.abs().max())
    if isinstance(forward, ForwardModel):
        base = forward(at)
        slope_field = forward.linearise(at)(direction)
    else:
        base, slope_field = torch.func.jvp(forward, (at,), (direction,))[:2]
    steps = [2.0**-k for k in range(2, 9)]
    with torch.no_grad():
        remainders = [
            float(torch.linalg.vector_norm(forward(at + h * direction) - base - h * slope_field)) for h in steps
        ]
    size = float(torch.linalg.vector_norm(base)) + float(torch.linalg.vector_norm(slope_field))
    floor = 1e3 * torch.finfo(at.dtype).eps * max(size, 1e-300)
    useful = [(h, r) for h, r in zip(steps, remainders, strict=True) if r > floor]
    if len(useful) < 3:
        return Result(
            max(remainders) <= floor * 10,
            0.0,
            f"the remainder is at rounding level ({max(remainders):.1e}): linear here",
        )
    found = fitted_slope([h for h, _ in useful], [r for _, r in useful])
    return Result(
        abs(found - slope) <= margin,
        found,
        f"the Taylor remainder falls with slope {found:.3f} (expected {slope} +- {margin})",
    )


def fitted_slope(steps: Sequence[float], errors: Sequence[float]) -> float:
    """Least-squares slope of log(error) against log(step)."""
    x = torch.tensor(steps, dtype=torch.float64).log()
    y = torch.tensor(errors, dtype=torch.float64).log()
    x = x - x.mean()
    return float((x * (y - y.mean())).sum() / x.square().sum())


def order(
    problem: Problem,
    solver: Any = None,
    *,
    sizes: Sequence[Any] | None = None,
    expected: float = 2.0,
    margin: float = 0.1,
) -> Result:
    """Observed order of a problem from the catalogue or a file, against its exact solution on finer and finer grids.

    ``sizes`` are values of its setting ``n``, by default three doublings from about 16 intervals.
    """
    from sciml.solving import solve

    build = importlib.import_module("sciml.catalogue").problem
    recipe = problem.recipe
    if not all(isinstance(n, int) for n in sizes or ()):
        raise InputError(f"sizes are {sizes}; order takes integers for the setting n")
    if recipe is None or getattr(problem, "exact", None) is None:
        raise InputError(
            f"{problem.name!r} has no exact solution, or was built by hand; order needs a problem file that keeps one (exact=)"
        )
    settings = {key: recipe.argument(value) for key, value in recipe.settings.items()}
    sizes = sizes or (15, 31, 63)
    steps, errors = [], []
    for n in sizes:
        one = build(recipe.source, **{**settings, "n": n})
        value = solve(one.with_target(**dict.fromkeys(one.targets, 1e-13)), solver).value
        truth = one.gauge(one.exact)
        steps.append(_spacing(one))
        errors.append(float((one.space.norm(value - truth) / one.space.norm(truth)).max()))
    found = fitted_slope(steps, errors)
    listed = ", ".join(f"{e:.1e}" for e in errors)
    return Result(
        abs(found - expected) <= margin,
        found,
        f"relative L2 errors {listed} at n = {list(sizes)}: order {found:.3f} (expected {expected} +- {margin})",
    )


def _spacing(problem: Problem) -> float:
    domain = problem.space.domain
    if domain is None:
        raise InputError(f"{problem.name!r} has no grid to refine")
    return problem.space.box.spacing[0]


def consistent(problem: Problem, u: Callable[..., Tensor], *, expected: float = 2.0, margin: float = 0.25) -> Result:
    """The discrete law against the strong form (``problem.continuous``) on a smooth function, on two grids.

    ``u(x, y, ...)`` must meet the side conditions up to boundary layers, which are left out: nodes within two layers of a
    side that is not periodic. The defect must fall with the square of the spacing. For evolutions the rate of change is
    compared. The problem must come from the catalogue or a file, so that it can be built on the finer grid.
    """
    recipe = problem.recipe
    if problem.continuous is None:
        raise InputError(f"{problem.name!r} states no strong form (continuous); there is nothing to compare with")
    if recipe is None:
        raise InputError(f"{problem.name!r} was built by hand; consistency needs a problem file to build a finer grid")
    from sciml.solving.refine import _finer

    steps, defects = [], []
    for one in (problem, _finer(problem)):
        steps.append(_spacing(one))
        defects.append(_defect(one, u))
    found = math.log(defects[0] / defects[1]) / math.log(steps[0] / steps[1]) if min(defects) > 0 else math.inf
    good = all(map(math.isfinite, defects)) and (found >= expected - margin or defects[0] < 1e-10)
    return Result(
        good,
        found,
        f"discrete and strong form differ by {defects[0]:.1e} and {defects[1]:.1e}: order {found:.2f} (expected {expected})",
    )


def _defect(problem: Any, u: Callable[..., Tensor]) -> float:
    """Largest difference of the discrete law from the strong form, relative to the law, away from the sides."""
    domain: Grid = problem.space.domain
    continuous: Continuous = problem.continuous
    points = domain.points(problem.space.dtype, problem.space.device)
    inner = tuple(slice(None) if axis.periodic else slice(2, -2) for axis in domain.axes())
    parameters: dict[str, Any] = {}
    for name, value in problem.parameters().items():
        flat = value.detach()
        if flat.ndim == 0 or flat.numel() == flat.shape[0]:
            parameters[name] = flat.reshape(-1)[0]
        elif flat.shape[2:] == torch.Size(domain.shape):
            parameters[name] = _sampled(flat[0, 0], domain)
    if isinstance(problem, Evolution):
        at = At(points, lambda t, *x: u(*x) + 0 * t, parameters, torch.zeros_like(points[0]) + problem.begin)
        strong = -continuous.interior(at)  # du/dt = 0 for a fixed field, so this is the rate
        discrete = problem.rate(problem.begin, u(*points)[None, None])[0, 0]
    else:
        at = At(points, u, parameters)
        strong = continuous.interior(at)
        discrete = problem.residual(u(*points)[None, None])[0, 0].detach()
        if isinstance(problem, Linear):
            discrete = problem.operator.source_of(discrete)
    gap = (discrete - strong)[inner].abs().max()
    return float(gap / discrete[inner].abs().max().clamp_min(1e-300))


def _sampled(values: Tensor, domain: Grid) -> Callable[..., Tensor]:
    """A nodal field as a function that autograd can differentiate once at the nodes, by central differences."""

    class Sampled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *x: Tensor) -> Tensor:
            return values.clone()

        @staticmethod
        def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, ...]:
            slopes = torch.gradient(values, spacing=list(domain.spacing))
            return tuple(gradient[0] * slope for slope in slopes)

    def function(*x: Tensor) -> Tensor:
        result: Tensor = Sampled.apply(*x)  # type: ignore[no-untyped-call]
        return result

    return function


def symmetry(problem: Problem, one: Any, *, seed: int = 0, tolerance: float | None = None) -> Result:
    """A declared symmetry, by residual invariance: moving all fields together moves the residual (or rate) alike.

    ``one`` has ``apply(fields, generator)``, moving named fields ``(batch, channel, *space)`` by one group element.
    """
    generator = torch.Generator().manual_seed(seed)
    space = problem.space
    u = torch.randn((problem.batch, *space.shape), generator=generator, dtype=space.dtype).to(space.device)
    fields = {name: value.expand(problem.batch, *value.shape[1:]) for name, value in problem.fields.items()}

    def law(of: Any, state: Tensor) -> Tensor:
        result = of.rate(of.begin, state) if isinstance(of, Evolution) else of.residual(state)
        return result if isinstance(result, Tensor) else torch.as_tensor(result)

    worst = 0.0
    with torch.no_grad():
        before = law(problem, u)
        for _ in range(8):
            moved = one.apply({**fields, "the state": u, "the residual": before}, generator)
            state, expected = moved.pop("the state"), moved.pop("the residual")
            there = problem.replace(**moved) if moved else problem
            gap = torch.linalg.vector_norm(law(there, state) - expected) / torch.linalg.vector_norm(before).clamp_min(
                1e-300
            )
            if not math.isfinite(float(gap)):
                return Result(False, math.nan, "the residual is not finite")
            worst = max(worst, float(gap))
    limit = tolerance if tolerance is not None else 1e4 * torch.finfo(space.dtype).eps
    return Result(
        worst <= limit, worst, f"{one} moves the residual with the fields up to {worst:.1e} (limit {limit:.0e})"
    )


def prox(
    prior: Any,
    space: Space | None = None,
    *,
    steps: Sequence[float] = (0.03, 0.7),
    tolerance: float = 1e-9,
    convex: bool = True,
    rounds: int = 40,
    seed: int = 0,
) -> Result:
    """Whether ``prox(v, step)`` minimises ``|x - v|^2 / 2 + step R(x)``, by looking for anything lower.

    From the point given, a search in double precision along random and coordinate directions, towards ``v``, towards the
    proximal points of other steps, and down a subgradient where the energy is differentiable by autograd; nothing may be
    lower by more than ``tolerance`` of the value, in ``rounds`` of about 500 points that draw closer each time (1e-9: ten times the duality gap that iterative proximal maps stop at; an
    error of 1e-4 of the distance to ``v`` is seen). For a convex energy (``convex=False`` leaves it out) the map must also be
    firmly non-expansive: ``<p - q, v - w> >= |p - q|^2``. ``space`` is where images live; the prior's own or 5 x 4 pixels of
    unequal sides. A prior with one step is asked for that; one without an energy only for the second property.
    """
    from sciml.domains.pixels import Pixels

    own = getattr(prior, "space", None)
    place = space or (own if isinstance(own, Space) else Pixels((5, 4), extent=(1.0, 0.5)).space())
    bound = prior.on(place) if hasattr(prior, "on") else prior
    generator = torch.Generator().manual_seed(seed)
    v, w = (_random(place, 1, generator) + 0.5 for _ in range(2))
    worst, firm = 0.0, 0.0
    with torch.no_grad():
        for step in steps if bound.only_step is None else (bound.only_step,):
            p, q = bound.prox(v, step), bound.prox(w, step)
            moved = (p - q).abs().square().sum()
            firm = max(firm, float((moved - ((p - q).conj() * (v - w)).real.sum()) / (v - w).abs().square().sum()))
            if isinstance(bound, Energy):
                worst = max(worst, _lower(bound, v, p, step, rounds, generator))
    ok = worst <= tolerance and (firm <= math.sqrt(tolerance) or not convex)
    said = f"something lower by {worst:.1e} of the value was found" if worst > tolerance else "nothing lower was found"
    said = said if isinstance(bound, Energy) else "the prior has no energy to compare"
    told = f"; firm non-expansiveness is missed by {max(firm, 0.0):.1e}" if convex else ""
    return Result(ok, worst if worst > 0 else max(firm, 0.0), f"{said} (limit {tolerance:.0e}){told}")


def _lower(prior: Any, v: Tensor, start: Tensor, step: float, rounds: int, generator: torch.Generator) -> float:
    """The largest relative decrease of the proximal objective that a search from ``start`` finds."""

    def value(x: Tensor) -> Tensor:
        energy: Tensor = prior.energy(x)
        return (x - v).abs().square().flatten(1).sum(1) / 2 + step * energy

    first = best = float(value(start)[0])
    if not math.isfinite(first):
        return math.inf
    x, n = start, start.numel()
    size = float(torch.linalg.vector_norm(v - start)) + 1e-3 * float(torch.linalg.vector_norm(v))
    eye = torch.eye(n, dtype=v.dtype, device=v.device).reshape(n, *v.shape[1:])
    others = [prior.prox(v, factor * step) for factor in (0.25, 0.5, 2.0, 4.0)] if prior.only_step is None else []
    for round_ in range(rounds):
        rows = [torch.randn((60, *v.shape[1:]), generator=generator, dtype=v.dtype).to(v.device), eye, v - x, x]
        rows += [other - x for other in others]
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            total = value(at).sum()
            rows += list(torch.autograd.grad(total, at)) if total.requires_grad else []
        d = torch.cat(rows)
        length = torch.linalg.vector_norm(d.flatten(1), dim=1).clamp_min(1e-300)
        d = d * (size * 0.6**round_ / length).reshape(-1, *[1] * (v.ndim - 1))
        candidates = torch.cat((x + d, x - d, x + 0.1 * d, x - 0.1 * d))
        found = value(candidates).nan_to_num(math.inf)
        if float(found.min()) < best:
            best, x = float(found.min()), candidates[int(found.argmin())][None]
    return (first - best) / max(abs(first), float((start - v).abs().square().sum()) / 2, 1e-300)
