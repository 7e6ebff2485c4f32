r"""Physics-informed network: a function with few weights that meets the equation at points, found by least squares.

The candidate is ``u = base + factor N(features; weights)``: the start, constant side values, periods and declared symmetries
hold whatever the weights are (`Exact`), everything else enters

.. math:: L(w) = \tfrac12 \sum_k \frac{\omega_k}{m_k} \sum_{i \le m_k} r_k(u(q_{ki}; w))^2,

one term for the equation inside (the problem's ``continuous.interior``) and one for every side, and the start, that does not
hold already. Derivatives along the coordinates are carried forward through the layers (Taylor mode) in float64, and by
default the weights move by Gauss-Newton steps in the smaller of weight space and residual space (`WoodburyGaussNewton`).

*Fails when* coefficients jump (there is no strong form there), when features of the solution are much narrower than the points
are dense, and where a grid is at hand and one forward solution is all that is wanted: classical solvers are then both
faster and more accurate, as the table of ``python -m tests.benchmark.pinn`` shows. It has its place where data are sparse
or a parameter runs over a range. References: Raissi, Perdikaris and Karniadakis, J. Comput. Phys. 378, 2019,
doi 10.1016/j.jcp.2018.10.045; Mueller and Zeinhofer, ICML 2023 (arXiv 2302.13163).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
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
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.learned._ansatz import Even, Exact, Form, Odd, Penalised, box_of
from sciml.learned._fields import known_tensors
from sciml.learned._jets import Layers
from sciml.learned._marching import marched
from sciml.learned._optimisers import SOAP, Descent, LimitedMemory, Trainer, WoodburyGaussNewton
from sciml.learned._posing import Field, Posed, statements, together
from sciml.learned._residuals import LeastSquares
from sciml.learned._sampling import Given, ResidualAdaptive, Sampling, Sobol, Staged, Uniform
from sciml.learned._sensors import Sensors, refusal
from sciml.learned._weighting import Balanced, Discounted, Fixed, Tempered, Weighting
from sciml.networks import MLP

__all__ = [
    "PINN", "SOAP", "Balanced", "Descent", "Discounted", "Even", "Exact", "Fixed", "Given", "LimitedMemory", "Odd", "Penalised",
    "ResidualAdaptive", "Sobol", "Staged", "Tempered", "Uniform", "WoodburyGaussNewton", "example",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class State:
    """Weights ``(1, p)``, the loss as a root mean square ``(1,)``, the points in use, the optimiser's memory."""

    theta: Tensor
    size: Tensor
    objective: Any
    memory: Any
    count: int


@dataclass(frozen=True, eq=False)
class PINN(Iterative[Any]):
    """``PINN()`` solves any problem on a grid whose ``continuous`` is stated, member by member.

    - ``network``: an MLP or SIREN of ``sciml.networks`` (None: tanh, three layers of 20); its first weights are where training starts.
    - ``form``: `Exact` or `Penalised`, with declared ``symmetries``; ``sampling``: `Uniform`, `Sobol`, `ResidualAdaptive`, `Given`, `Staged`;
      ``weighting``: `Fixed`, `Balanced`, `Discounted` or `Tempered`; ``optimiser``: `WoodburyGaussNewton`, `LimitedMemory`, `Descent` (Adam, SOAP).
    - ``parametric``: names of numbers, one per member, that the network takes as further inputs; one network is then trained on the range
      that the members span and answers for all of them, and for every value between through ``Solution.field``.
    - ``max_steps`` of the optimiser; ``windows`` of time, each with a network of its own that starts (on the grid's nodes) where the last one
      ended, and with ``max_steps`` steps: for evolutions in which small early errors grow, or small scales appear late (Wight and Zhao,
      arXiv 2007.04542). ``seed`` of points and default network.

    The answer is the network on the problem's grid, with the network itself as ``Solution.field``, and is judged as a function: by the strong form at points
    that the problem draws (``strong``), the sides and the start (``sides``), and ``agreement`` of both. ``field`` takes points ``(m, coordinates)``, that is
    positions, then the time of an evolution, then the parameters, and returns ``(batch, 1, m)``. The same seed gives the same bits. Training runs on the
    CPU in double precision, wherever the problem lives.
    A ``start`` is not used. Gradients with respect to the problem's tensors do not pass (`Detach`).

    Raises InputError for an activation with too few derivatives, points outside of the domain, values that contradict each other in a corner, a
    symmetry that law or start do not have, and a network of another number of inputs.
    """

    network: nn.Module | None = None
    form: Form = Exact()
    sampling: Sampling = Staged()
    weighting: Weighting = Tempered()
    optimiser: Trainer = WoodburyGaussNewton()
    parametric: tuple[str, ...] = ()
    max_steps: int = 300
    windows: int = 1
    seed: int = 0
    gradient: ClassVar[Gradient] = Detach()
    patience: ClassVar[int] = 150
    citations: ClassVar[tuple[str, ...]] = ("@article{raissi2019, doi={10.1016/j.jcp.2018.10.045}}",)

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise InputError(f"PINN: max_steps is {self.max_steps}; give at least 1")
        if self.windows < 1:
            raise InputError(f"PINN: windows is {self.windows}; give at least 1")

    def accepts(self, problem: Problem) -> str | None:
        """Real problems of one channel on a grid that state their strong form, and inverse problems for a number in one."""
        if self.windows > 1 and (self.parametric or not isinstance(problem, Evolution)):
            return "windows of time are for evolutions, and with fixed parameters: the start of a window is one state"
        if isinstance(problem, Inverse):
            return refusal(problem) or ("a parametric network has nothing to invert" if self.parametric else None)
        if problem.continuous is None:
            return "a physics-informed network needs the strong form of the problem, and its `continuous` is not stated"
        if not isinstance(problem.space.domain, Grid):
            return "a physics-informed network takes points of a box, and the problem lives on no grid"
        if problem.space.shape[0] != 1 or problem.space.complex or problem.space.dtype.is_complex:
            return "the strong form speaks of one real field, and the problem has complex values or several channels"
        if isinstance(problem, Evolution) and not problem.times[-1] > problem.begin:
            return "the evolution is asked for at its start alone, where nothing is to be solved"
        known = problem.parameters()
        for name in self.parametric:
            if name not in known or known[name].numel() != known[name].shape[:1].numel():
                return (
                    f"a parametric network takes numbers, one per member, and {name!r} is none of the problem's numbers"
                )
        return None

    def setup(self, problem: Problem) -> Posed:
        """Form, network and laws of a member (of all members, if parametric)."""
        sensors = Sensors.of(problem) if isinstance(problem, Inverse) else None
        member = problem.member(0) if sensors is None else sensors.state
        box = box_of(member, self._ranges(problem))
        ansatz = self.form.ansatz(member, box)
        network = self.network
        if network is None:
            network = MLP(ansatz.inputs, width=20, layers=3, seed=self.seed)
        layers = Layers.of(network)
        if layers.sizes[0] != ansatz.inputs or layers.sizes[-1] != 1:
            raise InputError(
                f"PINN: the network maps {layers.sizes[0]} numbers to {layers.sizes[-1]}, and this problem and form need {ansatz.inputs} to 1; build it so"
            )
        timed, known = isinstance(member, Evolution), known_tensors(member)
        posed = Posed(ansatz, network, layers, statements(member, box), known, timed, self.parametric, sensors)
        return posed.settled(member, self.form.symmetries)

    def _ranges(self, problem: Problem) -> tuple[tuple[float, float], ...]:
        known, found = problem.parameters(), []
        for name in self.parametric:
            low, high = float(known[name].min()), float(known[name].max())
            if not low < high:
                raise InputError(
                    f"PINN: parametric in {name!r}, which is {low:g} for all members; give members that span a range"
                )
            found.append((low, high))
        if self.parametric:
            rest = {name: t for name, t in known.items() if name not in self.parametric and t.ndim and len(t) > 1}
            others = [name for name, t in rest.items() if bool((t != t[:1]).any())]
            if others:
                raise InputError(
                    f"PINN: parametric in {', '.join(self.parametric)}, but {others[0]!r} differs between members as well; name it too if it is a number, or solve member by member"
                )
        return tuple(found)

    def init(self, problem: Problem, setup: Posed, start: Tensor | None) -> State:
        """First weights and points; ``start`` is the first guess of an inverse problem's unknown."""
        theta = setup.first
        if setup.sensors is not None and start is not None:
            theta[-1] = setup.sensors.number(start)
        objective = self._weighed(setup.sampled(self._stage(0), self._seed(0), None), theta)
        return State(theta.unsqueeze(0), _size(objective, theta), objective, self.optimiser.begin(theta), 0)

    def step(self, problem: Problem, setup: Posed, state: State) -> State:
        """Points drawn anew where it is time, then one step of the optimiser."""
        objective, theta = state.objective, state.theta[0]
        rule, before = self._stage(state.count), self._stage(max(state.count - 1, 0))
        if rule is not before or (rule.every and state.count and state.count % rule.every == 0):
            objective = self._weighed(setup.sampled(rule, self._seed(state.count), theta), theta)
        theta, memory = self.optimiser.step(objective, theta, state.memory)
        return State(theta.unsqueeze(0), _size(objective, theta), objective, memory, state.count + 1)

    def _weighed(self, objective: LeastSquares, theta: Tensor) -> LeastSquares:
        return objective.weighted(self.weighting.weigh(objective, theta))

    def _stage(self, count: int) -> Sampling:
        return self.sampling.stage(count) if isinstance(self.sampling, Staged) else self.sampling

    def _seed(self, count: int) -> int:
        return self.seed * 1_000_003 + count

    def measure(self, problem: Problem, setup: Posed, state: State) -> Tensor:
        """The root of twice the loss."""
        return state.size

    def done(self, problem: Problem, setup: Posed, state: State) -> Tensor:
        """STAGNATED where no damping lowers the loss any more."""
        codes = running(1, state.theta.device)
        stuck = getattr(state.memory, "stuck", 0) >= 3
        return torch.full_like(codes, Code.STAGNATED) if stuck or float(state.size) == 0.0 else codes

    def answer(self, problem: Problem, setup: Posed, state: State) -> Answer:
        """The network on the grid, for every member that it answers for; or the number that was sought."""
        theta, sensors = state.theta[0], setup.sensors
        if sensors is not None:
            value = sensors.value(theta[-1]).reshape(1, *problem.space.shape)
        else:
            value = self._on_grid(problem, setup, theta)
        counts = {"weights": float(len(theta)), "points": float(sum(t.count for t in state.objective.terms))}
        if hasattr(state.memory, "evaluations"):
            counts |= {"evaluations": float(state.memory.evaluations), "jitter": state.memory.jitter}
        return Answer(
            value.to(problem.space.device, problem.space.dtype),
            running(1, problem.space.device),
            counts=counts,
            field=Field(setup, theta.detach(), self._numbers(problem)),
            sentence=f"the network meets the equation to a root mean square of {float(state.size):.1e}, which is not what the certificate asks; give more steps, points or weights, or loosen with_target",
        )

    def _numbers(self, problem: Problem) -> tuple[tuple[float, ...], ...]:
        """What the network is told of every member."""
        members = (problem.member(i).parameters() for i in range(problem.batch if self.parametric else 1))
        return tuple(tuple(float(known[name]) for name in self.parametric) for known in members)

    def _on_grid(self, problem: Problem, setup: Posed, theta: Tensor) -> Tensor:
        grid = problem.space.grid
        nodes = torch.stack([p.reshape(-1) for p in grid.points(torch.float64)], 1)
        times = problem.times if isinstance(problem, Evolution) else (0.0,)
        values = []
        for i in range(problem.batch if self.parametric else 1):
            rows = []
            for t in times:
                extra = torch.tensor([*([t] if setup.timed else []), *self._numbers(problem)[i]], dtype=torch.float64)
                points = torch.cat((nodes, extra.expand(len(nodes), -1)), 1)
                rows.append(setup.ansatz.values(setup.layers, theta, points).reshape(1, *grid.shape))
            values.append(torch.stack(rows) if setup.timed else rows[0])
        return torch.stack(values)

    def _one(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        if self.windows == 1 or not isinstance(problem, Evolution):
            return loop(self, problem, start, context)
        single = dataclasses.replace(self, windows=1)
        return marched(problem, self.windows, lambda window: loop(single, window, None, context))

    def run(self, problem: Problem, start: Tensor | None, context: Context) -> Answer:
        """The shared loop for every member, or once for all where the network takes their parameters."""
        start = start if isinstance(problem, Inverse) else None
        with torch.no_grad():
            if self.parametric or problem.batch == 1:
                answer = self._one(problem, start, context)
                return dataclasses.replace(answer, claim=answer.claim.to(problem.space.device).expand(problem.batch))
            firsts = [None if start is None else start[i : i + 1] for i in range(problem.batch)]
            answers = [self._one(problem.member(i), first, context) for i, first in enumerate(firsts)]
        return together(answers, problem.space.device)


def _size(objective: LeastSquares, theta: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(objective.rows(theta))
    return size.reshape(1)


def example() -> tuple[PINN, Any]:
    """A few Gauss-Newton steps on Poisson's equation with a smooth solution."""
    from sciml.core.continuous import Continuous
    from sciml.core.problem import Linear
    from sciml.discretise import Diffusion, SideLaw

    grid = Grid((9, 11), (1.0, 1.5))
    x, y = grid.points()
    source = torch.sin(math.pi * x) * torch.sin(math.pi * y / 1.5)
    problem = Linear(
        "small poisson", Diffusion(grid, 1.0), source[None, None], continuous=Continuous(_poisson, SideLaw.of(grid)),
        goals={"strong": 1e-1},
    )  # fmt: skip
    network = MLP(2, width=8, layers=2, seed=1)
    return PINN(network, sampling=Sobol(100), max_steps=15), problem


def _poisson(at: At) -> Tensor:
    return -at.d(0, 0) - at.d(1, 1) - at["source"]
