r"""The primal-dual Newton method of Chan, Golub and Mulet: total variation and its like, inside Gauss-Newton steps.

For ``P(x) = F(forward(x)) + weight g(K x)`` with ``g(z) = sum_i V_i |z_i|``, smoothed to ``sum_i V_i eta_i``, ``eta_i = sqrt(|z_i|^2 + s^2)``, the
condition ``eta_i w_i = z_i`` is linearised together with that of ``x``, not the quotient ``z_i / eta_i``, which is far from linear. Each step solves

    (J^H H J + weight K^H diag(V / eta) (1 - (w z^T + z w^T) / (2 eta)) K) d = -grad P(x),

with ``J`` the derivative of the forward model and ``H`` the curvature of the noise's energy, takes the first of 1, 1/2, 1/4, ... of it that lowers the smoothed
objective, and brings the new ``w_i`` back to ``|w_i| <= 1`` (Hintermueller and Stadler, SIAM J. Sci. Comput. 28, 2006, doi 10.1137/040613263). ``p = weight V K x / eta`` is feasible too, so that the
certificate is a duality gap, smoothing included. ``s`` falls by a factor of three per step to where it costs a quarter of the gap that is asked for.

Images of up to 4096 numbers are solved for with the dense matrix, larger ones by conjugate gradients. Reference: Chan, Golub and Mulet, SIAM J. Sci.
Comput. 20 (1999), doi 10.1137/S1064827596299767; in impedance tomography, Borsic, Graham, Adler and Lionheart, IEEE Trans. Med. Imaging 29 (2010), doi 10.1109/TMI.2009.2022540.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.gradients import Gradient, Unroll
from sciml.core.inverse import Inverse
from sciml.core.noise import across
from sciml.core.prior import Reweighted
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Iterative, running
from sciml.domains.errors import InputError
from sciml.solvers._normal import Fit, conjugate_gradients, fit, inner, spread, unposed, weights
from sciml.solvers.gmres import settled

__all__ = ["PrimalDualNewton"]

Map = Callable[[Tensor], Tensor]

DENSE = 4096
CHUNK = 256
HALVINGS = 12
GIVEN_UP = 4
FAR = 1e30
FALL = 3.0


@dataclass(frozen=True, eq=False)
class State:
    """Image, directions ``w``, smoothing, gap, the dual variable, and counters per member."""

    x: Tensor
    w: Tensor
    smoothing: Tensor
    gap: Tensor
    dual: Tensor
    failed: Tensor
    count: int


@dataclass(frozen=True, eq=False)
class PrimalDualNewton(Iterative[Inverse[Reweighted]]):
    """Gauss-Newton with reweighted differences for Inverse problems with total variation at a posed weight, also where the forward model is not linear.

    ``largest`` limits how far an image value moves in one step, in the units of the image: a logarithm of a conductivity should not leave the reach of
    its linear model at once. ``inner`` is the most conjugate gradient steps per step, for large images. Stops at half the target of ``optimality``.

    *Fails when* the start lies in no basin of a good fit (the answer is stationary, chi-square is told beside), or no step lowers the objective: STAGNATED.
    Bounds of the prior are refused: a logarithmic chart keeps a conductivity positive.
    """

    max_steps: int = 100
    inner: int = 1000
    largest: float = 1.5

    gradient: ClassVar[Gradient] = Unroll()
    citations: ClassVar[tuple[str, ...]] = ("@article{chan1999, doi={10.1137/S1064827596299767}}",)

    def __post_init__(self) -> None:
        if self.max_steps < 0 or self.inner < 1 or not self.largest > 0:
            raise InputError(
                f"PrimalDualNewton(max_steps={self.max_steps}, inner={self.inner}, largest={self.largest}): give positive numbers"
            )

    def accepts(self, problem: Problem) -> str | None:
        """Inverse problems whose prior is a weighted sum of lengths, such as total variation, without bounds."""
        if not isinstance(problem, Inverse):
            return "PrimalDualNewton takes Inverse problems: data, noise and a forward model"
        if not isinstance(problem.prior, Reweighted):
            return f"its prior {type(problem.prior).__name__} is no sum of lengths; use GaussNewton for smooth priors, or TotalVariation()"
        if problem.space.complex:
            return "complex images are not solved for here; use PrimalDual"
        if not problem.prior.unbounded:
            return "its prior has bounds, which these steps do not keep; leave them out, or use PrimalDual"
        return unposed(problem, "PrimalDualNewton")

    def setup(self, problem: Problem) -> float:
        """The target of optimality."""
        return problem.targets["optimality"]

    def init(self, problem: Problem, setup: float, start: Tensor | None) -> State:
        """From ``start`` or zero."""
        assert isinstance(problem, Inverse)
        x = spread(problem, start)
        one = torch.ones(problem.batch, dtype=torch.float64, device=x.device)
        zero = torch.zeros_like(problem.prior.operator(x))
        return State(x, zero, FAR * one, FAR * one, zero, 0 * one, 0)

    def step(self, problem: Problem, setup: float, state: State) -> State:
        """One reweighted Gauss-Newton step with its line search."""
        assert isinstance(problem, Inverse)
        prior, weight = problem.prior, weights(problem)
        here = fit(problem, state.x)
        z = prior.operator(state.x)
        with torch.no_grad():
            smoothing = torch.minimum(state.smoothing, self._first(problem, z, here))
            smoothing = torch.maximum(smoothing / FALL, self._least(problem, z, here, setup))
        level, pull = prior.smoothed(z, smoothing)
        eta = prior.smoothed(torch.zeros_like(z), torch.ones_like(smoothing))[1] / pull
        pull = across(weight, z) * pull
        g = here.gradient + prior.operator.adjoint(pull * z)
        w = state.w

        def bent(d: Tensor) -> Tensor:
            dz = prior.operator(d)
            turned = (w * prior.paired(z, dz) + z * prior.paired(w, dz)) / (2 * eta)
            result: Tensor = prior.operator.adjoint(pull * (dz - turned))
            return result

        d = self._direction(problem, here, bent, g)
        most = d.abs().flatten(1).amax(1).detach().to(torch.float64)
        d = across((self.largest / most.clamp_min(1e-300)).clamp(max=1.0), d) * d
        value = here.value + weight.to(torch.float64) * level
        length, found = self._searched(problem, state.x, d, value, inner(-g, d).detach(), smoothing)
        step = across(length, d) * d
        x = state.x + step
        dz = prior.operator(step)
        w = _within(prior, (z + dz - w * prior.paired(z, dz) / eta) / eta)
        z = prior.operator(x)
        dual = across(weight, z) * prior.smoothed(z, smoothing)[1] * z
        with torch.no_grad():
            gap = problem.optimality(x.detach(), weight, {"prior": dual.detach()})
        failed = torch.where(found, torch.zeros_like(state.failed), state.failed + 1)
        return State(x, w, smoothing, torch.where(found, gap, state.gap), dual, failed, state.count + 1)

    @staticmethod
    def _measure(problem: Inverse[Any], z: Tensor) -> Tensor:
        """The sum of the volumes."""
        one = torch.ones(len(z), dtype=torch.float64, device=z.device)
        total: Tensor = problem.prior.smoothed(torch.zeros_like(z), one)[0]
        return total

    def _first(self, problem: Inverse[Any], z: Tensor, here: Fit) -> Tensor:
        """A smoothing at which the prior is nearly quadratic: where it would cost as much as the data do."""
        return here.value / (weights(problem).to(torch.float64) * self._measure(problem, z))

    def _least(self, problem: Inverse[Any], z: Tensor, here: Fit, target: float) -> Tensor:
        """The smoothing that costs at most a quarter of the gap that is asked for."""
        weight = weights(problem).to(torch.float64)
        whole = here.value + weight * problem.prior.outer(z)
        smoothing: Tensor = 0.25 * target * whole / (weight * self._measure(problem, z))
        return smoothing

    def _direction(self, problem: Inverse[Any], here: Fit, bent: Map, g: Tensor) -> Tensor:
        n = problem.space.size
        if n <= DENSE:
            matrix = self._matrix(problem, here) + _applied(bent, g)
            scale = matrix.diagonal(dim1=-2, dim2=-1).mean(-1).reshape(-1, 1, 1)
            eye = torch.eye(n, dtype=g.dtype, device=g.device)
            root = torch.linalg.cholesky_ex(matrix + 1e-13 * scale * eye)[0]
            solved: Tensor = torch.cholesky_solve(-g.flatten(1).unsqueeze(2), root).reshape(g.shape)
            return solved
        begin = inner(g, g).detach().sqrt()
        return conjugate_gradients(
            lambda d: here.curvature(d) + bent(d), -g, self.inner, lambda d, left, drop: left <= 1e-3 * begin
        ).d

    @staticmethod
    def _matrix(problem: Inverse[Any], here: Fit) -> Tensor:
        """``J^T H J``, ``(batch, n, n)``."""
        J = here.tangent.dense()
        J = J.expand(problem.batch, *J.shape[1:])
        columns = J.permute(2, 0, 1).reshape(J.shape[2], problem.batch, *problem.data.shape[1:])
        bent = problem.noise.bend(columns, here.z, problem.data)
        return J.mT @ bent.flatten(2).permute(1, 2, 0)

    def _searched(
        self, problem: Inverse[Any], x: Tensor, d: Tensor, value: Tensor, descent: Tensor, smoothing: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The first of 1, 1/2, 1/4, ... that lowers the smoothed objective enough, zero where none does; and where one does."""
        prior, weight = problem.prior, weights(problem).to(torch.float64)
        with torch.no_grad():
            slack = 0.01 * torch.finfo(d.dtype).eps ** 0.5 * value.abs()
            length, found = torch.ones_like(descent), torch.zeros_like(descent, dtype=torch.bool)
            for _ in range(HALVINGS):
                at = x + across(length, d) * d
                level = problem.noise.energy(problem.forward(at), problem.data)
                level = level + weight * prior.smoothed(prior.operator(at), smoothing)[0]
                found = found | (torch.isfinite(level) & (level <= value - 1e-4 * length * descent + slack))
                if settled(found):
                    break
                length = torch.where(found, length, length / 2)
            return torch.where(found, length, torch.zeros_like(length)), found

    def measure(self, problem: Problem, setup: float, state: State) -> Tensor:
        """The certificate's number: the relative duality gap."""
        return state.gap

    def done(self, problem: Problem, setup: float, state: State) -> Tensor:
        """CONVERGED at half the target, STAGNATED when no step lowers the objective."""
        codes = running(state.x.shape[0], state.x.device)
        codes = torch.where(state.failed >= GIVEN_UP, torch.full_like(codes, int(Code.STAGNATED)), codes)
        return torch.where(state.gap <= setup / 2, torch.full_like(codes, int(Code.CONVERGED)), codes)

    def answer(self, problem: Problem, setup: float, state: State) -> Answer:
        """The image and the dual variable."""
        return Answer(state.x, running(state.x.shape[0], state.x.device), dual={"prior": state.dual})


def _within(prior: Any, w: Tensor) -> Tensor:
    """The nearest ``w`` with all lengths at most one."""
    near: Tensor = w / prior.paired(w, w).sqrt().clamp_min(1.0)
    return near


def _applied(apply: Map, like: Tensor) -> Tensor:
    """The matrix of a symmetric map of images, ``(batch, n, n)``, some columns at a time."""
    n, batch = like[0].numel(), len(like)
    eye = torch.eye(n, dtype=like.dtype, device=like.device)
    parts = [
        apply(eye[k : k + CHUNK].reshape(-1, 1, *like.shape[1:]).expand(-1, batch, *like.shape[1:])).flatten(2)
        for k in range(0, n, CHUNK)
    ]
    return torch.cat(parts).permute(1, 2, 0)


def example() -> tuple[PrimalDualNewton, Any]:
    """A blocky signal seen through a random matrix."""
    from sciml.solvers.primal_dual import example as blocky

    return PrimalDualNewton(), blocky()[1]
