r"""Linear equations solved by conditioning a Gaussian process on them.

A centred Gaussian process ``u`` with covariance ``s^2 k`` is conditioned on ``L u = f`` at the nodes of the grid and on the side conditions:
linear functionals of ``u``, whose covariances are derivatives of the kernel. The posterior mean solves the equation at the
nodes and minimises the norm of the kernel's space among all that do; the posterior deviation says how far the truth may be if it was
drawn from the prior. With ``K_ij = l_i l_j' k``, data ``y`` and ``(k_x)_i = l_i' k(x, .)``

    mean = k_x^T K^-1 y,     variance = s^2 (k(x, x) - k_x^T K^-1 k_x),     s^2 = y^T K^-1 y / count

(the last unless ``deviation`` is given: the value of largest likelihood). Conditions with zero data that hold alike on a whole side are met
by the prior itself, exactly; others are observed at the points of the side. Where nothing else is observed and the equation has constant
coefficients without mixed derivatives, the matrix is a short sum of Kronecker products and is never formed.

References: Graepel, ICML 2003; Cockayne, Oates, Sullivan and Girolami, arXiv 1605.07811; Fasshauer, Meshfree Approximation
Methods with Matlab, 2007, chapter 38, doi 10.1142/6437.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.continuous import At
from sciml.core.evolution import Evolution
from sciml.core.gradients import Detach, Gradient
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Context, Solver
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.learned._fields import known_tensors
from sciml.learned._kernels import AxisCovariance, Kernel, Matern
from sciml.learned._kronecker import Kronecker
from sciml.learned._linear_form import LinearForm, linear_form
from sciml.learned._posterior import Dense, Posterior, Prior, Solved, factored, value_at

__all__ = ["GaussianProcess"]

MOST = 4000  # observations of a dense matrix: 128 MB, factored in seconds
NAMES = "xyz"


@dataclass(frozen=True)
class GaussianProcess(Solver):
    """``GaussianProcess(Matern(length=0.5, smoothness=3))``: the posterior mean at the nodes, with ``samples`` draws of the posterior.

    ``solution.field`` is the posterior: ``field(points)`` its mean and ``field.deviation(points)`` its standard deviation at any points
    ``(N, axes)``. ``deviation`` is the prior's standard deviation ``s`` (None: of largest likelihood, per member). Where the kernel matrix
    loses definiteness, the least power of ten of rounding that restores it is added to its scaled diagonal and told as ``stats["jitter"]``;
    the mean then meets its data only to about the root of that. ``dense`` and ``structured`` say which linear algebra may be used.

    The mean is judged as a function: by the strong form between the nodes too (``strong``), the sides, and the agreement of values and function. Computed in double precision on the CPU. *Fails when* the solution is rougher than the kernel's draws, the length is many or few spacings, or
    coefficients jump.
    """

    gradient: ClassVar[Gradient] = Detach()
    citations: ClassVar[tuple[str, ...]] = (
        "@article{cockayne2016, title={Probabilistic numerical methods for partial differential equations and Bayesian inverse problems}, eprint={1605.07811}}",
    )

    kernel: Kernel = field(default_factory=lambda: Matern(length=0.5, smoothness=3))
    deviation: float | None = None
    samples: int = 16
    seed: int = 0
    dense: bool = True
    structured: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, Kernel):
            raise InputError(
                f"GaussianProcess takes a kernel, such as Matern(length=0.5), not {type(self.kernel).__name__}"
            )
        if self.samples < 0 or (self.deviation is not None and not self.deviation > 0):
            raise InputError(
                f"GaussianProcess(samples={self.samples}, deviation={self.deviation}): no negative numbers"
            )

    def accepts(self, problem: Problem) -> str | None:
        """Steady problems on a grid that state a linear ``continuous`` form of one real field."""
        if isinstance(problem, Evolution):
            return "the process is conditioned on steady equations; take PINN or a time stepper"
        continuous = getattr(problem, "continuous", None)
        if continuous is None:
            return "it states no strong form (continuous), which is what a Gaussian process is conditioned on"
        grid = problem.space.domain
        if (
            not isinstance(grid, Grid)
            or problem.space.shape[0] != 1
            or problem.space.dtype.is_complex
            or problem.space.complex
        ):
            return "a Gaussian process takes one real field on the nodes of a Grid"
        if continuous.sides is None and not all(axis.periodic for axis in grid.axes()):
            return "its strong form says nothing of its sides (continuous.sides)"
        forms = _forms(problem.member(0) if problem.batch > 1 else problem, few=True)
        if isinstance(forms, str):
            return forms
        order = max(
            (index.count(axis) for form in forms.values() for index in form.factors for axis in range(grid.dim)),
            default=0,
        )
        if 2 * order > self.kernel.smooth:
            return f"{self.kernel} has {self.kernel.smooth:g} derivatives and the equation needs {2 * order}; take a smoother kernel"
        self.kernel.lengths(grid.dim)
        return None if self.dense or self.structured else "neither dense nor structured linear algebra is allowed"

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """Observe, factor once for members that share their operator, and evaluate at the nodes."""
        space, grid = problem.space, problem.space.grid
        nodes = torch.stack([p.reshape(-1) for p in grid.points(torch.float64)], 1)
        kept: list[tuple[dict[str, LinearForm], Solved, tuple[str, ...]]] = []
        solved, weights, variances, values, draws = [], [], [], [], []
        for i in range(problem.batch):
            member = problem.member(i).to(device="cpu") if problem.batch > 1 else problem.to(device="cpu")
            forms = _forms(member)
            if isinstance(forms, str):
                raise InputError(f"{problem.name!r}: {forms}")
            found = next((k for k in kept if _alike(k[0], forms, k[2])), None)
            if found is None:
                found = (forms, *self._conditioned(problem, grid, forms))
                kept.append(found)
            linear, observed = found[1], found[2]
            data = linear.turn(torch.cat([-forms[name].constant for name in observed]))
            weight = linear.solve(data)
            variance = float(data @ weight) / linear.count if self.deviation is None else self.deviation**2
            solved.append(linear)
            weights.append(weight)
            variances.append(max(variance, 0.0))
            if context.progress is not None:
                context.progress(i + 1, problem.batch, 0.0)
        posterior = Posterior(tuple(solved), tuple(weights), tuple(variances))
        at = value_at(nodes)
        for i in range(problem.batch):
            one = solved[i]
            mean = one.mean(weights[i]) if isinstance(one, Kronecker) else posterior.mean(i, at)
            values.append(mean.reshape(space.shape))
        if self.samples:
            draws = [self._draws(posterior, i, at, values[i]) for i in range(problem.batch)]
        value = torch.stack(values).to(space.device, space.dtype)
        finite = torch.isfinite(value).flatten(1).all(1)
        jitter = max(one.jitter for one in solved)
        told = f" (jitter {jitter:.0e} was added to its matrix)" if jitter else ""
        return Answer(
            value,
            torch.where(finite, int(Code.CONVERGED), int(Code.BREAKDOWN)),
            counts={"jitter": jitter, "observations": float(solved[0].count)},
            field=posterior,
            samples=torch.stack(draws, 1).to(space.device, space.dtype) if draws else None,
            sentence=f"the posterior mean{told} does not meet the equation between the nodes to the target; take more nodes or a smoother kernel, or loosen with_target(strong=...)",
        )

    def _conditioned(
        self, problem: Problem, grid: Grid, forms: Mapping[str, LinearForm]
    ) -> tuple[Solved, tuple[str, ...]]:
        """The prior with what its axes can meet exactly, conditioned on the rest; and the names of what was observed."""
        lengths, axes, met = self.kernel.lengths(grid.dim), [], set[str]()
        for axis, (line, length) in enumerate(zip(grid.axes(), lengths, strict=True)):
            low = grid.origin[axis]
            ends = []
            for point, word in ((low, "lower"), (low + grid.extent[axis], "upper")):
                form = forms.get(f"{NAMES[axis]}_{word}")
                if form is not None and _everywhere(form, axis):
                    ends.append((point, {index.count(axis): float(c[0]) for index, c in form.factors.items()}))
                    met.add(f"{NAMES[axis]}_{word}")
            axes.append(AxisCovariance(self.kernel, length, grid.extent[axis] if line.periodic else None, tuple(ends)))
        prior = Prior(tuple(axes))
        observed = tuple(name for name in forms if name not in met)
        if self.structured and observed == ("interior",):
            fast = Kronecker.of(prior, grid, forms["interior"])
            if fast is not None:
                return fast, observed
        count = sum(len(forms[name].points) for name in observed)
        if not self.dense or count > MOST:
            raise InputError(
                f"{problem.name!r} makes {count} observations, a dense matrix takes at most {MOST}, and it has no Kronecker structure (that needs constant "
                "coefficients, zero data on all sides, and a kernel that is not too smooth for the spacing): use a smaller n, or a shorter length"
            )
        made = Dense.of(prior, [forms[name] for name in observed])
        if made is None:
            raise InputError(
                f"{problem.name!r}: the kernel matrix is not definite, even with jitter; take a shorter length or a rougher kernel"
            )
        return made, observed

    def _draws(self, posterior: Posterior, member: int, at: LinearForm, mean: Tensor) -> Tensor:
        """``(samples, channel, *space)``."""
        generator = torch.Generator().manual_seed(self.seed)
        solved, size = posterior.solved[member], posterior.variances[member] ** 0.5
        if isinstance(solved, Kronecker):
            return torch.add(mean, solved.draws(self.samples, generator).reshape(-1, *mean.shape), alpha=size)
        if len(at.points) > MOST:
            raise InputError(f"draws at {len(at.points)} nodes need a matrix of that size; use samples=0")
        cross = solved.cross(at)
        whole = solved.prior.covariance(at, at) - cross @ solved.solve(cross.T)
        scale = solved.prior.variance(at).clamp_min(1e-300).sqrt()
        found = factored((whole + whole.T) / 2 / scale / scale.unsqueeze(1))
        if found is None:
            raise InputError("the posterior covariance is not definite, even with jitter; use samples=0")
        noise = torch.randn(self.samples, len(scale), generator=generator, dtype=torch.float64)
        return torch.add(mean, ((noise @ found[0].T) * scale).reshape(-1, *mean.shape), alpha=size)


def _forms(problem: Problem, few: bool = False) -> dict[str, LinearForm] | str:
    """What the strong form says at the nodes (``interior``) and on each side, or why it cannot be used; ``few`` asks at some nodes only."""
    continuous, grid = problem.continuous, problem.space.grid
    assert continuous is not None
    known = known_tensors(problem)
    lines: dict[str, tuple[tuple[Tensor, ...], Callable[[At], Tensor]]] = {
        "interior": (grid.points(torch.float64), continuous.interior)
    }
    for axis, line in enumerate(grid.axes()):
        if continuous.sides is not None and not line.periodic:
            for word in ("lower", "upper"):
                name = f"{NAMES[axis]}_{word}"
                lines[name] = grid.side_points(name, torch.float64), partial(_on_side, law=continuous.sides, name=name)
    found = {}
    for name, (points, law) in lines.items():
        x = tuple(p.reshape(-1) for p in points)
        x = tuple(p[:: max(1, len(p) // 7)] for p in x) if few else x
        form = linear_form(law, x, known)
        if form is None:
            return "its strong form is not linear in u; take Newton or PINN"
        if not form.factors:
            return f"its strong form says nothing of u ({name})"
        found[name] = form
    return found


def _on_side(at: At, *, law: Callable[[At, str], Tensor], name: str) -> Tensor:
    value: Tensor = law(at, name)
    return value


def _everywhere(form: LinearForm, axis: int) -> bool:
    """Whether a side's condition has zero data and the same factors of normal derivatives at all points."""
    along = all(set(index) <= {axis} for index in form.factors)
    return along and form.uniform and not bool((form.constant != 0).any())


def _alike(one: Mapping[str, LinearForm], two: Mapping[str, LinearForm], observed: tuple[str, ...]) -> bool:
    """Whether two members differ in what is observed only by their data."""
    if one.keys() != two.keys():
        return False
    zero = all(bool((two[name].constant == 0).all()) for name in two if name not in observed)
    return zero and all(one[name].same(two[name]) for name in one)


def example() -> tuple[GaussianProcess, Any]:
    """A heated plate with cold sides."""
    from sciml.core.continuous import Continuous
    from sciml.core.problem import Linear
    from sciml.discretise import Diffusion, SideLaw

    grid = Grid((7, 9), (1.0, 1.4))
    x, y = grid.points()
    problem = Linear(
        "a small plate", Diffusion(grid, 1.0), x * torch.cos(y), continuous=Continuous(_interior, SideLaw.of(grid))
    )
    return GaussianProcess(Matern(length=0.7, smoothness=3), samples=3), problem


def _interior(at: At) -> Tensor:
    return -at.d(0, 0) - at.d(1, 1) - at["source"]
