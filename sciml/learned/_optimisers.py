"""How the weights of a PINN move: Gauss-Newton in the smaller of the two spaces, quasi-Newton, and first-order rules of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from sciml.domains.errors import InputError
from sciml.learned._residuals import LeastSquares
from sciml.training.optimisers import AdamW, Optimiser

__all__ = ["Descent", "LimitedMemory", "SOAP", "Trainer", "WoodburyGaussNewton"]


class Trainer(Protocol):
    """``begin`` makes the memory, ``step`` returns new weights and memory; both leave what they are given as it is."""

    def begin(self, theta: Tensor) -> Any: ...

    def step(self, objective: LeastSquares, theta: Tensor, memory: Any) -> tuple[Tensor, Any]: ...


@dataclass(frozen=True)
class Damping:
    """What Gauss-Newton remembers: Levenberg's damping (how fast it grows, for rules that ask), and what it cost."""

    value: float
    growth: float = 2.0
    evaluations: int = 0
    jitter: float = 0.0
    stuck: int = 0


@dataclass(frozen=True)
class Momentum(Damping):
    """Levenberg's damping and the last step taken."""

    last: Tensor | None = None


class Trial(NamedTuple):
    """The step for a damping and a momentum, and half the sum of squares that it leads to."""

    value: float
    momentum: float
    step: Tensor
    loss: float


@dataclass(frozen=True)
class WoodburyGaussNewton:
    r"""Gauss-Newton with momentum and Levenberg's damping, which is searched anew at every step; the linear system in the smaller space.

    With residual ``r`` ``(m)``, Jacobian ``J`` ``(m, p)`` and the last step ``delta_0`` a step minimises
    ``|r + J delta|^2 + lambda |delta - mu delta_0|^2``,

    .. math:: \delta(\lambda) = \mu \delta_0 - (J^T J + \lambda)^{-1} J^T s = \mu \delta_0 - J^T (J J^T + \lambda)^{-1} s,
        \quad s = r + \mu J \delta_0,

    the left form where ``p <= m``, the right one (Woodbury's identity, the kernel of the network) where the weights outnumber
    the points. Directions that the points in use do not determine go on as before, so that what earlier points have taught is kept and long
    flat valleys are crossed faster. The search is along the curve ``lambda -> delta(lambda)``: from the last ``lambda``, and for one Jacobian, by
    ``factor`` down while the loss falls (and up where a smaller ``lambda`` is worse); where the momentum does not lower the loss it is dropped,
    and where no step does, ``lambda`` grows. A factorisation and a residual cost a fraction of the Jacobian and its product. Should rounding take
    the definiteness of the matrix, the diagonal is raised until it has one, and the largest such jitter is reported.

    References: Mueller and Zeinhofer, ICML 2023 (arXiv 2302.13163); Guzman-Cordero and others, arXiv 2505.12149 (momentum: Goldshlager,
    Abrahamsen and Lin, J. Comput. Phys. 516, 2024, doi 10.1016/j.jcp.2024.113351); Marquardt, J. SIAM 11, 1963, doi 10.1137/0111030.
    """

    damping: float = 1e-3
    momentum: float = 0.9
    factor: float = 5.0
    tries: int = 12
    least: float = 1e-16

    def __post_init__(self) -> None:
        if not self.damping > 0 or not 0 <= self.momentum < 1 or not self.factor > 1 or self.tries < 1:
            raise InputError(
                f"WoodburyGaussNewton: damping {self.damping}, momentum {self.momentum}, factor {self.factor}, tries {self.tries}; give a positive damping, a momentum from 0 to below 1, a factor above 1 and at least one try"
            )

    def begin(self, theta: Tensor) -> Momentum:
        """The damping to start with."""
        return Momentum(self.damping)

    def step(self, objective: LeastSquares, theta: Tensor, memory: Momentum) -> tuple[Tensor, Momentum]:
        """One step: one Jacobian, as many factorisations and residuals as the search takes (at most ``tries``)."""
        r, j = objective.jacobian(theta)
        loss = 0.5 * float(r @ r)
        tall = j.shape[0] >= j.shape[1]
        matrix = j.T @ j if tall else j @ j.T
        last = torch.zeros_like(theta) if memory.last is None else memory.last
        ahead, raised = j @ last, memory.jitter
        tried = list[Trial]()

        def attempt(value: float, momentum: float) -> Trial:
            nonlocal raised
            factor, jitter = definite(matrix, value)
            raised = max(raised, jitter)
            right = r + momentum * ahead
            solved = torch.cholesky_solve((j.T @ right if tall else right).unsqueeze(1), factor).squeeze(1)
            step = momentum * last - (solved if tall else j.T @ solved)
            now = 0.5 * float(objective.rows(theta + step).square().sum())
            tried.append(Trial(value, momentum, step, now))
            return tried[-1]

        best = attempt(memory.value, 0.0 if memory.last is None else self.momentum)
        if best.momentum and not best.loss < loss and len(tried) < self.tries:
            best = attempt(memory.value, 0.0)
        ways: tuple[float, ...] = (1 / self.factor, self.factor)
        while not best.loss < loss and len(tried) < self.tries:
            best, ways = attempt(best.value * self.factor, 0.0), (self.factor,)
        spent = memory.evaluations + len(tried)
        if not best.loss < loss:
            return theta, Momentum(best.value, evaluations=spent, jitter=raised, stuck=memory.stuck + 1)
        for way in ways:
            first = best
            while len(tried) < self.tries and self.least <= best.value * way:
                other = attempt(best.value * way, best.momentum)
                if not other.loss < best.loss:
                    break
                best = other
            if best is not first:
                break
        spent = memory.evaluations + len(tried)
        return theta + best.step, Momentum(best.value, evaluations=spent, jitter=raised, last=best.step)


def definite(matrix: Tensor, damping: float) -> tuple[Tensor, float]:
    """The Cholesky factor of ``matrix + damping``, and by how much more the diagonal had to be raised for there to be one."""
    jitter = 0.0
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    smallest = float(torch.finfo(matrix.dtype).eps * matrix.diagonal().amax().clamp_min(1e-300))
    for _ in range(60):
        factor, failed = torch.linalg.cholesky_ex(matrix + (damping + jitter) * eye)
        if not int(failed):
            return factor, jitter
        jitter = max(10 * jitter, smallest)
    raise InputError("the Gauss-Newton matrix is not finite; start from other weights (seed=) or a larger damping")


@dataclass(frozen=True)
class Descent:
    """First-order training: ``each`` steps of a torch rule per step, the learning rate falling as ``decay^(step)``.

    ``rule`` builds a torch optimizer for the matrices and biases: ``sciml.training.AdamW(weight_decay=0)`` is Adam, and
    ``SOAP()`` or any other object with ``build(parameters, learning_rate)`` will do. *Fails when* accuracy is wanted: it stalls
    where Gauss-Newton begins, but takes networks of any size.
    """

    rule: Optimiser = AdamW(weight_decay=0.0)
    learning_rate: float = 1e-3
    each: int = 100
    decay: float = 0.99

    def begin(self, theta: Tensor) -> Any:
        """Nothing yet: the torch optimizer is built at the first step."""
        return None

    def step(self, objective: LeastSquares, theta: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """``each`` steps of the rule."""
        count, state = memory or (0, None)
        parts, join = _parameters(objective, theta)
        rule = self.rule.build(parts, self.learning_rate * self.decay**count)
        if state is not None:
            state["param_groups"] = rule.state_dict()["param_groups"]
            rule.load_state_dict(state)
        for _ in range(self.each):
            _, gradient = objective.value_and_gradient(join())
            _hand_out(parts, gradient)
            rule.step()
        return join(), (count + 1, rule.state_dict())


@dataclass(frozen=True)
class LimitedMemory:
    """L-BFGS with a strong Wolfe line search (Liu and Nocedal, 1989, doi 10.1007/BF01589116), ``each`` iterations per step."""

    history: int = 50
    each: int = 50

    def begin(self, theta: Tensor) -> Any:
        """Nothing yet."""
        return None

    def step(self, objective: LeastSquares, theta: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """``each`` iterations."""
        parts, join = _parameters(objective, theta)
        rule = torch.optim.LBFGS(
            parts, max_iter=self.each, history_size=self.history, line_search_fn="strong_wolfe",
            tolerance_grad=0.0, tolerance_change=0.0,
        )  # fmt: skip
        if memory is not None:
            rule.load_state_dict(memory)

        def closure() -> Tensor:
            value, gradient = objective.value_and_gradient(join())
            _hand_out(parts, gradient)
            return value

        with torch.enable_grad():
            rule.step(closure)  # type: ignore[no-untyped-call]
        return join(), rule.state_dict()


@dataclass(frozen=True)
class SOAP:
    """Adam in the eigenbasis of Shampoo's preconditioner (Vyas and others, arXiv 2409.11321), from ``pytorch_optimizer``."""

    weight_decay: float = 0.0

    def build(self, parameters: Any, learning_rate: float) -> torch.optim.Optimizer:
        """The torch optimizer; InputError where the library is not installed."""
        import importlib

        try:
            library = importlib.import_module("pytorch_optimizer")
        except ImportError as error:
            raise InputError("SOAP comes from another library; install it: pip install pytorch-optimizer") from error
        rule: torch.optim.Optimizer = library.SOAP(list(parameters), lr=learning_rate, weight_decay=self.weight_decay)
        return rule


def _parameters(objective: LeastSquares, theta: Tensor) -> tuple[list[nn.Parameter], Callable[[], Tensor]]:
    """The weights as matrices and biases, and how to put them in one row again."""
    pairs = objective.layers.split(theta[: objective.layers.count])
    parts = [nn.Parameter(part.clone()) for pair in pairs for part in pair]
    rest = theta[objective.layers.count :]
    if len(rest):
        parts.append(nn.Parameter(rest.clone()))
    return parts, lambda: torch.cat([part.detach().reshape(-1) for part in parts])


def _hand_out(parts: list[nn.Parameter], gradient: Tensor) -> None:
    at = 0
    for part in parts:
        part.grad = gradient[at : at + part.numel()].view(part.shape).clone()
        at += part.numel()
