"""The primal-dual hybrid gradient method for linear forward models and convex priors, with a duality gap.

With the whitened forward model ``A = W forward`` and a prior ``weight g(K x)`` on bounds, the saddle problem

    min_x max_{q, p}  <q, A x> - F^*(q) + <p, K x> - (weight g)^*(p)

is solved by

    x+ = inside(x - tau (A^H q + K^H p)),
    q+ = prox_{sigma_q F^*}(q + sigma_q A (2 x+ - x)),    p+ = prox_{sigma_p (weight g)^*}(p + sigma_p K (2 x+ - x)),

with ``tau |sigma_q A^H A + sigma_p K^H K| < 1`` and ``sigma_q |A|^2 = sigma_p |K|^2``. That norm is one to two times either: once
where ``A`` sees smooth images best and ``K`` does not, as in tomography, twice where both see the same. How often is learned
from the steps ``d``, as ``|A d|`` and ``|K d|`` are known: too long a step grows along the directions that tell (a local test
as in Malitsky and Pock, arXiv:1608.08883, but no step is taken back). A prior may know a ``metric``, a symmetric positive definite map ``M`` of images:
then ``M A^H q`` stands for ``A^H q``, and ``|A M^(1/2)|`` for ``|A|`` (preconditioning; Pock and Chambolle, ICCV 2011). Each pass costs one ``A``, one ``A^H``, one ``K`` and one ``K^H``; a
restricted duality gap comes with them for nothing.

Sources: Chambolle and Pock, J. Math. Imaging Vision 40, 120 (2011), doi:10.1007/s10851-010-0251-1; over-relaxation:
Condat, J. Optim. Theory Appl. 158, 460 (2013), doi:10.1007/s10957-012-0245-9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.gradients import Gradient, Unroll
from sciml.core.inverse import Inverse
from sciml.core.linear import LinearOperator
from sciml.core.noise import across, inner
from sciml.core.prior import Composite
from sciml.core.problem import Problem
from sciml.core.solution import Answer, Code
from sciml.core.solver import Iterative, running
from sciml.domains.errors import InputError

__all__ = ["PrimalDual"]

MARGIN = 0.95  # norms from power iterations are a few percent low
AHEAD = 1.05  # a norm seen in a step is a little low
EAGER = 4.0  # dual over primal step, in units of the distances travelled; 3 to 5 served weights over two decades alike
EVERY = 5  # steps between two looks at the gap
FAR = 1e30  # a gap that is not known yet: the first image may lie outside the domain of the noise


@dataclass(frozen=True, eq=False)
class _Setup:
    data_size: Tensor  # |W forward|^2
    prior_size: Tensor  # |K|^2


@dataclass(frozen=True, eq=False)
class _State:
    x: Tensor
    q: Tensor
    p: Tensor
    z: Tensor  # forward(x)
    kx: Tensor  # K x
    back: Tensor  # A^H q + K^H p
    ratio: Tensor
    joint: Tensor  # an estimate of |A^H A / |A|^2 + K^H K / |K|^2|, which lies in [1, 2]
    image: Tensor  # the image and the dual variables before relaxation: inside the bounds, feasible
    q_found: Tensor
    p_found: Tensor
    gap: Tensor
    count: int


@dataclass(frozen=True, eq=False)
class PrimalDual(Iterative[Inverse[Composite]]):
    """Over-relaxed primal-dual steps; the answer carries its dual variables, so that the problem can certify the gap.

    ``ratio`` of dual to primal step, both in units in which the forward model has norm one; None adapts it per member: at
    steps 10, 20, 40, 80 and 160 it is set from the distances that dual and primal variables have travelled. ``relaxation`` lies
    in (0, 2). A prior with ``stage(k)`` is asked for another prior at each step: so the layers of an unfolded network
    have their own weights. Such a prior states no energy, needs no weight, and says with ``made_for`` which settings its
    weights belong to.

    Takes Inverse problems with a linear forward model, any noise, and a prior ``g(K x)`` such as TotalVariation or Wavelet.
    Gradients pass through the steps; the lengths of the steps count as constants. *Fails when* the accuracy asked for is
    high: the gap falls like 1 / steps in general.
    """

    max_steps: int = 3000
    ratio: float | None = None
    relaxation: float = 1.8

    gradient: ClassVar[Gradient] = Unroll()
    patience: ClassVar[int] = 500
    citations: ClassVar[tuple[str, ...]] = (
        "@article{chambolle2011, author={Chambolle, A. and Pock, T.}, title={A first-order primal-dual algorithm for convex problems with applications to imaging}, journal={J. Math. Imaging Vision}, volume={40}, pages={120--145}, year={2011}, doi={10.1007/s10851-010-0251-1}}",
        "@article{condat2013, author={Condat, L.}, title={A primal-dual splitting method for convex optimization}, journal={J. Optim. Theory Appl.}, volume={158}, pages={460--479}, year={2013}, doi={10.1007/s10957-012-0245-9}}",
    )

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise InputError(f"PrimalDual(max_steps={self.max_steps}): at least one step is needed")
        if self.ratio is not None and not self.ratio > 0:
            raise InputError(f"PrimalDual(ratio={self.ratio}): the ratio of the steps must be positive")
        if not 0 < self.relaxation < 2:
            raise InputError(f"PrimalDual(relaxation={self.relaxation}): relaxation lies between 0 and 2")

    def accepts(self, problem: Problem) -> str | None:
        """Inverse problems with a linear forward model, a Composite prior and a posed weight."""
        if not isinstance(problem, Inverse):
            return "it solves Inverse problems"
        if not isinstance(problem.forward, LinearOperator):
            return (
                f"its forward model {type(problem.forward).__name__} is not linear; use GaussNewton or ProximalGradient"
            )
        if problem.prior is None:
            return "it has no prior; give one with problem.with_prior(TotalVariation())"
        made_for = getattr(problem.prior, "made_for", None)
        if made_for is not None:
            same = all(getattr(self, name) == value for name, value in made_for.items())
            wanted = ", ".join(f"{name}={value}" for name, value in made_for.items())
            return None if same else f"its prior was trained through other steps; use PrimalDual({wanted})"
        if not isinstance(problem.prior, Composite):
            return f"its prior {type(problem.prior).__name__} is not of the form g(K x); use ProximalGradient or ADMM for proximal priors, a sampler for denoisers"
        if problem.weights() is None:
            return (
                "no weight is posed; give with_prior(prior, weight=...), or wrap the solver: Discrepancy(PrimalDual())"
            )
        return None

    def setup(self, problem: Problem) -> _Setup:
        """The norms of the whitened forward model and of ``K``, by power iterations."""
        assert isinstance(problem, Inverse)
        first = _prior(problem, 0)
        with torch.no_grad():
            size = _size_in(problem, problem.prior).to(problem.data.real.dtype)
            bound = first.operator.size_bound().square().to(size)
        return _Setup(size, bound.clamp_min(1e-30).expand(problem.batch))

    def init(self, problem: Problem, setup: _Setup, start: Tensor | None) -> _State:
        """The zero image (or the given one) and zero dual variables."""
        assert isinstance(problem, Inverse)
        prior, batch = _prior(problem, 0), problem.batch
        x = problem.space.zeros(batch) if start is None else start.expand(batch, *problem.space.shape)
        x = problem.prior.inside(x)
        z, kx = problem.forward(x), prior.operator(x)
        ratio = torch.full((batch,), self.ratio or 0.1, dtype=x.real.dtype, device=x.device)
        joint = torch.full_like(ratio, 2.0 if _learned(prior) else 1.0)
        gap = torch.full((batch,), torch.inf, dtype=torch.float64, device=x.device)
        q, p, back = torch.zeros_like(z), torch.zeros_like(kx), torch.zeros_like(x)
        gap = self._gap(problem, x, q, p, z, kx, back, gap)
        return _State(x, q, p, z, kx, back, ratio, joint, x, q, p, gap, 0)

    def step(self, problem: Problem, setup: _Setup, state: _State) -> _State:
        """One pass, over-relaxed."""
        assert isinstance(problem, Inverse)
        prior, y, noise = _prior(problem, state.count), problem.data, problem.noise
        weight = problem.weights()  # None for learned steps, which have no use for it
        safe, ratio, count = (MARGIN / state.joint).sqrt(), state.ratio, state.count + 1
        tau, sigma_q = safe / (ratio * setup.data_size), safe * ratio
        sigma_p = safe * ratio * setup.data_size / setup.prior_size
        x = prior.inside(state.x - across(tau, state.x) * state.back)
        z, kx = problem.forward(x), prior.operator(x)
        dz, dkx = z - state.z, kx - state.kx
        joint = state.joint
        if not _learned(prior):
            joint = _joint(joint, x, x - state.x, noise.whiten(dz, y), dkx, setup)
        q = noise.dual_prox(state.q + across(sigma_q, z) * noise.whiten(z + dz, y), sigma_q, y)
        p = prior.dual_prox(state.p + across(sigma_p, kx) * (kx + dkx), sigma_p, weight)
        back = problem.forward.linearise(x).adjoint(noise.unwhiten(q, y))
        back = (prior.metric(back) if hasattr(prior, "metric") else back) + prior.operator.adjoint(p)
        gap = state.gap
        if count % EVERY == 0 or count == self.max_steps:
            gap = self._gap(problem, x, q, p, z, kx, back, gap)
        if self.ratio is None and count in (10, 20, 40, 80, 160) and self.max_steps > 20:
            with torch.no_grad():
                dual = (inner(q, q) + inner(p, p) * setup.prior_size / setup.data_size).sqrt()
                travelled = _size(x) * setup.data_size.sqrt()
                wanted = (EAGER * dual / travelled).to(ratio)
                ratio = torch.where(torch.isfinite(wanted) & (wanted > 0), wanted, ratio)
        if self.relaxation == 1:
            return _State(x, q, p, z, kx, back, ratio, joint, x, q, p, gap, count)
        old = (state.x, state.q, state.p, state.z, state.kx, state.back)
        found = (x, q, p, z, kx, back)
        new_x, new_q, new_p, new_z, new_kx, new_back = (
            torch.lerp(a, b, self.relaxation) for a, b in zip(old, found, strict=True)
        )
        return _State(new_x, new_q, new_p, new_z, new_kx, new_back, ratio, joint, x, q, p, gap, count)

    def measure(self, problem: Problem, setup: _Setup, state: _State) -> Tensor:
        """The relative restricted gap with the running dual variables."""
        return state.gap

    def done(self, problem: Problem, setup: _Setup, state: _State) -> Tensor:
        """CONVERGED at half of the target."""
        good = state.gap <= problem.targets["optimality"] / 2
        codes = running(state.x.shape[0], state.x.device)
        return torch.where(good, torch.full_like(codes, int(Code.CONVERGED)), codes)

    def answer(self, problem: Problem, setup: _Setup, state: _State) -> Answer:
        """The image, with the dual variable of the prior."""
        claim = running(state.x.shape[0], state.x.device)
        return Answer(state.image, claim, dual={"prior": state.p_found, "data": state.q_found})

    def _gap(
        self,
        problem: Inverse[Any],
        x: Tensor,
        q: Tensor,
        p: Tensor,
        z: Tensor,
        kx: Tensor,
        back: Tensor,
        old: Tensor,
    ) -> Tensor:
        """The relative restricted gap, as ``Inverse.optimality`` has it; none for priors that are no energies."""
        if not hasattr(problem.prior, "conjugate"):
            return torch.ones_like(old)
        with torch.no_grad():
            gap = torch.nan_to_num(problem.gap(x, {"prior": p, "data": q}, z, kx, back), nan=FAR, posinf=FAR)
            return torch.where(torch.isfinite(x).flatten(1).all(1), gap, torch.full_like(gap, torch.inf))


def _prior(problem: Inverse[Any], count: int) -> Any:
    stage = getattr(problem.prior, "stage", None)
    return problem.prior if stage is None else stage(count)


def _learned(prior: Any) -> bool:
    """Whether the prior was trained through steps, whose length then stays."""
    return hasattr(prior, "stage") or hasattr(prior, "metric")


def _joint(joint: Tensor, x: Tensor, dx: Tensor, dq: Tensor, dk: Tensor, setup: _Setup) -> Tensor:
    """The estimate after a step ``dx`` that ``W A`` maps to ``dq`` and ``K`` to ``dk``, if it is longer than rounding errors."""
    with torch.no_grad():
        length, floor = _norm(dx), 1e3 * torch.finfo(joint.dtype).eps * _norm(x)
        found = (_norm(dq) / length).square() / setup.data_size + (_norm(dk) / length).square() / setup.prior_size
        ahead = torch.maximum(found, (AHEAD * found).clamp_max(2.0))
        return torch.where((length > floor) & (found > joint), ahead, joint)


def _norm(r: Tensor) -> Tensor:
    return _size(r).to(r.real.dtype)


def _same(v: Tensor) -> Tensor:
    return v


def _size_in(problem: Inverse[Any], prior: Any) -> Tensor:
    """``|W forward|^2``, or that of ``W forward M^(1/2)`` for a prior with a metric ``M``."""
    zero = problem.space.zeros()
    if not hasattr(prior, "metric"):
        metric = _same
    else:
        metric = prior.metric
    tangent, noise, y = problem.forward.linearise(zero), problem.noise, problem.data
    generator = torch.Generator().manual_seed(0)
    v = torch.randn((1, *problem.space.shape), generator=generator, dtype=torch.float64).to(zero)
    v = v.expand(problem.batch, *problem.space.shape)  # a member begins as it would alone
    size = torch.ones(problem.batch, dtype=torch.float64, device=zero.device)
    for _ in range(12):
        v = v / across(size, v)
        v = metric(tangent.adjoint(noise.unwhiten(noise.whiten(tangent(v), y), y)))
        size = _size(v).clamp_min(1e-300)
    return size


def _size(r: Tensor) -> Tensor:
    return inner(r, r).sqrt()


def example() -> tuple[PrimalDual, Inverse[Any]]:
    """Total variation on a blocky signal seen through a random matrix."""
    from sciml.core.matrix import Matrix
    from sciml.core.noise import GaussianNoise
    from sciml.priors.total_variation import TotalVariation

    generator = torch.Generator().manual_seed(0)
    truth = torch.cat([torch.zeros(7), torch.ones(6), 0.5 * torch.ones(5)]).to(torch.float64).reshape(1, 1, -1)
    matrix = Matrix(torch.randn(1, 24, 18, generator=generator, dtype=torch.float64))
    noise = GaussianNoise(0.1)
    data = noise.sample(matrix(truth), generator=generator)
    return PrimalDual(), Inverse("a blocky signal", matrix, data, noise, TotalVariation(), weight=1.0, truth=truth)
