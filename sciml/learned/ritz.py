r"""Ritz's method with a network: the weights lower the energy of a variational problem, by quadrature.

The candidate ``u = base + factor N(features; w)`` meets the sides whatever the weights are, and

.. math:: E(w) = \sum_q \omega_q \, e(q, u(q; w), \nabla u(q; w)),

with the problem's ``continuous.energy`` ``e`` and a Gauss-Legendre rule on equal cells of the box. The points are fixed: energies by
random points can be lowered below the least one by fitting the gaps. Only first derivatives are asked of the network. The weights
move by Newton's method in the function instead of the weights (`EnergyGaussNewton`).

*Fails when* the rule is coarser than what the network can bend (more weights than points times derivatives), the
solution has kinks or layers, or the energy is not convex in the gradient; and a grid is faster wherever one is at hand. Accuracy ends near the
root of rounding, since energies that differ by less cannot be told apart. References: Ritz, J. reine angew. Math. 135, 1909, doi
10.1515/crll.1909.135.1; E and Yu, Commun. Math. Stat. 6, 2018, doi 10.1007/s40304-018-0127-z; Mueller and Zeinhofer, ICML 2023
(arXiv 2302.13163).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sciml.core.continuous import At
from sciml.core.evolution import Evolution
from sciml.core.gradients import Detach, Gradient
from sciml.core.inverse import Inverse
from sciml.core.loop import run as loop
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Context, Iterative, running
from sciml.domains.boundary import Dirichlet, Neumann, Periodic
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.learned._ansatz import Box, Exact, Patch, box_of
from sciml.learned._fields import known_tensors
from sciml.learned._jets import Layers, smoothness
from sciml.learned._optimisers import Damping, definite
from sciml.learned._posing import Field, Posed, Statement, together
from sciml.learned._residuals import Term, orders
from sciml.networks import MLP

__all__ = ["EnergyGaussNewton", "GaussLegendre", "Ritz", "example"]


@dataclass(frozen=True)
class GaussLegendre:
    """A Gauss rule of ``order`` points per axis on equal cells of the box, at least ``points`` in all; exact for degree ``2 order - 1``."""

    points: int = 600
    order: int = 4

    def __post_init__(self) -> None:
        if self.points < 1 or self.order < 1:
            raise InputError(f"GaussLegendre: points {self.points}, order {self.order}; give at least one of each")

    def rule(self, box: Box) -> tuple[Tensor, Tensor]:
        """Points ``(m, dim)`` and weights ``(m,)``, which add up to the volume of the box."""
        cells = max(1, math.ceil(self.points ** (1 / box.dim) / self.order - 1e-9))
        # The nodes are the eigenvalues of the Jacobi matrix, the weights twice the squares of the first components.
        beta = torch.arange(1, self.order, dtype=torch.float64)
        beta = beta / (4 * beta.square() - 1).sqrt()
        nodes, vectors = torch.linalg.eigh(torch.diag(beta, 1) + torch.diag(beta, -1))
        line = ((torch.arange(cells, dtype=torch.float64)[:, None] + (nodes + 1) / 2) / cells).reshape(-1)
        share = (vectors[0].square() / cells).repeat(cells)
        axes = range(box.dim)
        lengths = [box.upper[a] - box.lower[a] for a in axes]
        lines = [box.lower[a] + lengths[a] * line for a in axes]
        shares = [lengths[a] * share for a in axes]
        points = torch.stack([p.reshape(-1) for p in torch.meshgrid(*lines, indexing="ij")], 1)
        weights = torch.stack([p.reshape(-1) for p in torch.meshgrid(*shares, indexing="ij")], 1).prod(1)
        return points, weights


@dataclass(frozen=True, eq=False)
class Integral:
    """``sum of weights times energy`` at the points of a patch, as a function of the network's weights."""

    layers: Layers
    term: Term
    weights: Tensor

    @property
    def _patch(self) -> Patch:
        return self.term.patch

    def _density(self, u: Tensor) -> Tensor:
        return self.term.law(self.term.at(u, {})).expand(len(self.weights))

    def value(self, theta: Tensor) -> float:
        """The energy."""
        with torch.no_grad():
            out = self.layers.forward(theta, self._patch.inputs, self._patch.streams)[0]
            return float((self.weights * self._density(self._patch.candidate(out))).sum())

    def expansion(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient ``(p,)`` and ``J^T H J`` ``(p, p)``: ``H`` the second derivatives of the energy in ``u`` and its slopes at every
        point, ``J`` their Jacobian in the weights."""
        patch, many = self._patch, len(self._patch.streams.indices)
        with torch.enable_grad():
            out, entered, seen = self.layers.forward(theta.detach(), patch.inputs, patch.streams, cut=True)
            u = patch.candidate(out)
            values = u.detach().requires_grad_()
            slopes = torch.autograd.grad(self._density(values).sum(), values, create_graph=True)[0]
            rows = [_grad(slopes[k].sum(), values) for k in range(many)]
            bars = [[_grad(u[k].sum(), one) for one in entered] for k in range(many)]
        jacobian = torch.zeros(many, len(self.weights), len(theta), dtype=theta.dtype)
        for k in range(many):
            self.layers.rows(bars[k], [a.detach() for a in seen], len(patch.signs), jacobian[k])
        gradient = torch.einsum("kn,knp->p", slopes.detach() * self.weights, jacobian)
        curved = torch.einsum("kln,lnp->knp", torch.stack(rows).detach() * self.weights, jacobian)
        flat = jacobian.reshape(-1, len(theta))
        return gradient, flat.T @ curved.reshape(-1, len(theta))


def _grad(value: Tensor, along: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(along)
    (result,) = torch.autograd.grad(value, along, retain_graph=True, allow_unused=True)
    return torch.zeros_like(along) if result is None else result


@dataclass(frozen=True)
class EnergyGaussNewton:
    r"""``delta = -(J^T H J + lambda)^{-1} grad E``: Newton's step for the energy as a functional, projected on what the weights can do.

    A line search halves it up to ``halvings`` times until the energy falls; if it does not, the damping ``lambda`` grows and the same
    matrix serves again. It follows the ratio of actual to promised decrease (Nielsen's rule). References: Mueller and
    Zeinhofer, ICML 2023 (arXiv 2302.13163); Nocedal and Wright, Numerical Optimization, 2006, chapter 10.
    """

    damping: float = 1e-3
    halvings: int = 2
    tries: int = 12
    least: float = 1e-14

    def __post_init__(self) -> None:
        if not self.damping > 0 or self.halvings < 0 or self.tries < 1:
            raise InputError(
                f"EnergyGaussNewton: damping {self.damping}, halvings {self.halvings}, tries {self.tries}; give a positive damping and at least one try"
            )

    def step(self, integral: Integral, theta: Tensor, memory: Damping) -> tuple[Tensor, Damping]:
        """One step: one matrix, as many energies as it takes."""
        energy = integral.value(theta)
        gradient, matrix = integral.expansion(theta)
        for _ in range(self.tries):
            factor, jitter = definite(matrix, memory.value)
            delta = -torch.cholesky_solve(gradient.unsqueeze(1), factor).squeeze(1)
            promised = 0.5 * float(memory.value * (delta @ delta) - gradient @ delta)
            memory = replace(memory, jitter=max(memory.jitter, jitter))
            length = 1.0
            for _ in range(self.halvings + 1):
                trial = theta + length * delta
                now = integral.value(trial)
                memory = replace(memory, evaluations=memory.evaluations + 1)
                if now < energy:
                    ratio = (energy - now) / max(promised, 1e-300) if length == 1.0 else 0.25
                    value = max(memory.value * max(1 / 3, 1 - (2 * ratio - 1) ** 3), self.least)
                    return trial, replace(memory, value=value, growth=2.0, stuck=0)
                length /= 2
            memory = replace(memory, value=memory.value * memory.growth, growth=memory.growth * 2)
        return theta, replace(memory, growth=2.0, stuck=memory.stuck + 1)


@dataclass(frozen=True, eq=False)
class State:
    """Weights ``(1, p)``, the size of the last step ``(1,)``, the energy ``(1,)``, the optimiser's memory."""

    theta: Tensor
    moved: Tensor
    energy: Tensor
    memory: Damping


@dataclass(frozen=True, eq=False)
class Setup:
    """The candidate and the integral that training lowers."""

    posed: Posed
    integral: Integral


@dataclass(frozen=True, eq=False)
class Ritz(Iterative[Any]):
    """``Ritz()`` solves problems on a grid that state their ``continuous.energy``, member by member.

    ``network``: an MLP or SIREN of ``sciml.networks`` (None: tanh, two layers of 16), whose first weights are where training starts; ``form``:
    `Exact`, with declared symmetries; ``quadrature``; ``optimiser``; at most ``max_steps``. The answer is the network on the problem's grid,
    judged as a function by the strong form, the sides and their agreement; ``Solution.field``, the network, takes points ``(m, dim)`` and returns ``(batch, 1, m)``. Training runs on the CPU in
    double precision; gradients with respect to the problem's tensors do not pass (`Detach`). A ``start`` is not used.

    Raises InputError for a network of another number of inputs or without a continuous first derivative.
    """

    network: nn.Module | None = None
    form: Exact = Exact()
    quadrature: GaussLegendre = GaussLegendre()
    optimiser: EnergyGaussNewton = EnergyGaussNewton()
    max_steps: int = 60
    seed: int = 0
    gradient: ClassVar[Gradient] = Detach()
    citations: ClassVar[tuple[str, ...]] = ("@article{eyu2018, doi={10.1007/s40304-018-0127-z}}",)

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise InputError(f"Ritz: max_steps is {self.max_steps}; give at least 1")

    def accepts(self, problem: Problem) -> str | None:
        """Real stationary problems of one channel on a grid, with an energy and sides that a form can hold."""
        if isinstance(problem, Evolution | Inverse):
            return "Ritz's method lowers the energy of a stationary problem, and this is none"
        if problem.continuous is None or problem.continuous.energy is None:
            return "Ritz's method needs the energy of the problem, and its `continuous` states none"
        if not isinstance(problem.space.domain, Grid):
            return "Ritz's method integrates over a box, and the problem lives on no grid"
        if problem.space.shape[0] != 1 or problem.space.complex or problem.space.dtype.is_complex:
            return "the energy speaks of one real field, and the problem has complex values or several channels"
        for name, pair in zip("xyz", problem.space.domain.conditions, strict=False):
            for one in pair:
                natural = isinstance(one, Neumann) and not isinstance(one.value, Tensor) and one.value == 0
                held = isinstance(one, Dirichlet) and not isinstance(one.value, Tensor)
                if not (natural or held or isinstance(one, Periodic) or problem.continuous.lift is not None):
                    return f"the condition on axis {name} neither holds by itself nor is it built in; state continuous.lift"
        return None

    def setup(self, problem: Problem) -> Setup:
        """Form, network and quadrature of a problem with one member."""
        box, known = box_of(problem), known_tensors(problem)
        ansatz = self.form.ansatz(problem, box)
        network = MLP(ansatz.inputs, width=16, layers=2, seed=self.seed) if self.network is None else self.network
        layers = Layers.of(network)
        if layers.sizes[0] != ansatz.inputs or layers.sizes[-1] != 1:
            raise InputError(
                f"Ritz: the network maps {layers.sizes[0]} numbers to {layers.sizes[-1]}, and this problem and form need {ansatz.inputs} to 1; build it so"
            )
        assert problem.continuous is not None and problem.continuous.energy is not None
        if smoothness(network) < 1:
            raise InputError(
                "Ritz: the network's activation has no continuous derivative; take tanh, sin, gelu or silu"
            )
        energy: Callable[[At], Tensor] = problem.continuous.energy
        posed = Posed(ansatz, network, layers, (Statement("interior", problem.continuous.interior, ()),), known, False)
        posed = posed.settled(problem, self.form.symmetries) if self.form.symmetries else posed
        points, weights = self.quadrature.rule(ansatz.half)
        term = posed.term(Statement("energy", energy, ()), points, orders(energy, points, box.dim, False, known))
        return Setup(posed, Integral(layers, term, weights))

    def init(self, problem: Problem, setup: Setup, start: Tensor | None) -> State:
        """The network's first weights."""
        theta = setup.posed.first
        one = torch.ones(1, dtype=torch.float64)
        return State(theta.unsqueeze(0), one, one * setup.integral.value(theta), Damping(self.optimiser.damping))

    def step(self, problem: Problem, setup: Setup, state: State) -> State:
        """One step of the optimiser."""
        theta, memory = self.optimiser.step(setup.integral, state.theta[0], state.memory)
        energy = setup.integral.value(theta)
        drop = (float(state.energy) - energy) / max(abs(energy), 1e-300)
        moved = torch.full_like(state.moved, max(drop, 0.0))
        return State(theta.unsqueeze(0), moved, torch.full_like(state.energy, energy), memory)

    def measure(self, problem: Problem, setup: Setup, state: State) -> Tensor:
        """The relative decrease of the energy in the last step."""
        return state.moved

    def done(self, problem: Problem, setup: Setup, state: State) -> Tensor:
        """STAGNATED where the energy cannot be told to fall any more."""
        codes = running(1, state.theta.device)
        return torch.full_like(codes, Code.STAGNATED) if state.memory.stuck else codes

    def answer(self, problem: Problem, setup: Setup, state: State) -> Answer:
        """The network on the grid."""
        theta, posed, grid = state.theta[0], setup.posed, problem.space.grid
        nodes = torch.stack([p.reshape(-1) for p in grid.points(torch.float64)], 1)
        value = posed.ansatz.values(posed.layers, theta, nodes).reshape(1, 1, *grid.shape)
        counts = {
            "weights": float(len(theta)), "points": float(len(setup.integral.weights)),
            "energy": float(state.energy), "evaluations": float(state.memory.evaluations),
        }  # fmt: skip
        return Answer(
            value.to(problem.space.device, problem.space.dtype),
            running(1, problem.space.device),
            counts=counts,
            field=Field(posed, theta.detach()),
            sentence=f"the network's energy is {float(state.energy):.8g}, which is not what the certificate asks; give more weights and points, or loosen with_target",
        )

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """The shared loop for every member."""
        with torch.no_grad():
            answers = [loop(self, problem.member(i), None, context) for i in range(problem.batch)]
        if len(answers) == 1:
            return dataclasses.replace(answers[0], claim=answers[0].claim.to(problem.space.device))
        return together(answers, problem.space.device)


def example() -> tuple[Ritz, Any]:
    """A few steps on a film under pressure."""
    from sciml.core.continuous import Continuous
    from sciml.core.equation import Equation
    from sciml.core.law import Law
    from sciml.discretise import SideLaw

    grid = Grid((7, 8), (1.0, 1.5))
    law = Law(_law, pressure=torch.tensor(1.0, dtype=torch.float64))
    problem = Equation(
        "small film", law, grid.space(), symmetric=True, goals={"strong": 2e-1},
        continuous=Continuous(_interior, SideLaw.of(grid), _energy),
    )  # fmt: skip
    return Ritz(MLP(2, width=8, layers=2, seed=1), quadrature=GaussLegendre(100), max_steps=12), problem


def _law(u: Tensor, *, pressure: Tensor, space: Any) -> Tensor:
    from sciml.discretise import corner_divergence

    return corner_divergence(u, space, lambda s: (1 + s).rsqrt()) - pressure


def _interior(at: At) -> Tensor:
    x, y = at.d(0), at.d(1)
    top = (1 + y * y) * at.d(0, 0) + (1 + x * x) * at.d(1, 1) - 2 * x * y * at.d(0, 1)
    return -top * (1 + x * x + y * y) ** -1.5 - at["pressure"]


def _energy(at: At) -> Tensor:
    return (1 + at.d(0).square() + at.d(1).square()).sqrt() - at["pressure"] * at.u
