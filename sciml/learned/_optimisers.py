"""How the weights of a PINN move: Gauss-Newton in the smaller of the two spaces, quasi-Newton, and first-order rules of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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


class Trial(NamedTuple):
    """Weights that a damping leads to, half their sum of squares, and that damping."""

    value: float
    theta: Tensor
    loss: float


@dataclass(frozen=True)
class WoodburyGaussNewton:
    r"""Gauss-Newton with Levenberg's damping, searched anew at every step; the linear system in the smaller space.

    With residual ``r`` ``(m)`` and Jacobian ``J`` ``(m, p)`` a step is

    .. math:: \delta(\lambda) = -(J^T J + \lambda)^{-1} J^T r = -J^T (J J^T + \lambda)^{-1} r,

    the left form where ``p <= m``, the right one (Woodbury's identity, the kernel of the network) where the weights outnumber
    the points. The search is along the curve ``lambda -> delta(lambda)`` rather than along a line: from the last ``lambda``, and
    for one Jacobian, steps by ``factor`` down while the loss falls (and up where the first fails, or a smaller ``lambda`` is
    worse). A factorisation and a residual cost a fraction of the Jacobian and its product, and the rules that infer ``lambda`` from the ratio
    of actual to predicted decrease cross the long curved valleys of these losses much more slowly. Should rounding take
    the definiteness of the matrix, the diagonal is raised until it has one, and the largest such jitter is reported.

    References: Mueller and Zeinhofer, ICML 2023 (arXiv 2302.13163); Guzman-Cordero and others, arXiv 2505.12149; Marquardt, J. SIAM 11,
    1963, doi 10.1137/0111030; Nocedal and Wright, Numerical Optimization, 2006, chapter 10.
    """

    damping: float = 1e-3
    factor: float = 5.0
    tries: int = 12
    least: float = 1e-16

    def __post_init__(self) -> None:
        if not self.damping > 0 or not self.factor > 1 or self.tries < 1:
            raise InputError(
                f"WoodburyGaussNewton: damping {self.damping}, factor {self.factor}, tries {self.tries}; give a positive damping, a factor above 1 and at least one try"
            )

    def begin(self, theta: Tensor) -> Damping:
        """The damping to start with."""
        return Damping(self.damping)

    def step(self, objective: LeastSquares, theta: Tensor, memory: Damping) -> tuple[Tensor, Damping]:
        """One step: one Jacobian, as many factorisations and residuals as the search takes (at most ``tries``)."""
        r, j = objective.jacobian(theta)
        loss, gradient = 0.5 * float(r @ r), j.T @ r
        tall = j.shape[0] >= j.shape[1]
        matrix = j.T @ j if tall else j @ j.T
        count, raised = 0, memory.jitter

        def tried(value: float) -> Trial:
            nonlocal count, raised
            factor, jitter = definite(matrix, value)
            count, raised = count + 1, max(raised, jitter)
            solved = torch.cholesky_solve((gradient if tall else r).unsqueeze(1), factor).squeeze(1)
            there = theta - (solved if tall else j.T @ solved)
            return Trial(value, there, 0.5 * float(objective.rows(there).square().sum()))

        best = tried(memory.value)
        while not best.loss < loss and count < self.tries:
            best = tried(best.value * self.factor)
        if not best.loss < loss:
            kept = replace(memory, value=best.value, jitter=raised, evaluations=memory.evaluations + count)
            return theta, replace(kept, stuck=memory.stuck + 1)
        for way in (self.factor,) if count > 1 else (1 / self.factor, self.factor):
            before = best
            while count < self.tries and self.least <= best.value * way:
                other = tried(best.value * way)
                if not other.loss < best.loss:
                    break
                best = other
            if best is not before:
                break
        return best.theta, Damping(best.value, evaluations=memory.evaluations + count, jitter=raised)


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
