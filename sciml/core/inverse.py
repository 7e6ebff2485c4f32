"""Inverse problems: an unknown image or parameter, data that some instrument made of it, noise, and a prior."""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Self

import torch
from torch import Tensor
from typing_extensions import TypeVar

from sciml.core.bounds import refuse_other_kind, slack
from sciml.core.calibration import sampled_checks
from sciml.core.linear import ForwardModel, LinearOperator
from sciml.core.noise import Noise, across, inner
from sciml.core.prior import Composite, Energy, Prior, Proximable, Smooth
from sciml.core.problem import Problem, as_field, opaque, unpack
from sciml.core.recipe import Recipe
from sciml.core.solution import Answer, Check
from sciml.domains.errors import InputError
from sciml.domains.space import Space

__all__ = ["Inverse"]

P = TypeVar("P", covariant=True, default=Any)

STEPS_FROM_ZERO, STEPS_BESIDE = 80, 8  # of conjugate gradients, to learn how far away images that fit the data are

# The reach of a quadratic data term, for problems that differ in their prior and weight alone.
_KNOWN: weakref.WeakKeyDictionary[Noise, tuple[weakref.ref[Any], weakref.ref[Tensor], Tensor]] = (
    weakref.WeakKeyDictionary()
)


@dataclass(frozen=True, eq=False)
class Inverse(Problem, Generic[P]):
    """Find ``x`` from ``data = forward(x) + noise``: the minimiser of ``noise.energy(forward(x), data) + weight prior(x)``.

    ``data`` are ``(batch, *forward.codomain.shape)``; NaN is refused unless ``noise.measured`` excludes it. ``prior`` is any
    object that keeps the protocols of ``core/prior.py``; None asks only for agreement with the data. ``weight`` is a number
    or ``(batch,)``; None leaves it to ``Discrepancy``. ``truth`` is kept for comparison and taken away before a solver runs.

    Gates: ``optimality`` when the prior states an energy (infinite as long as no weight is posed), ``misfit`` when the weight
    was chosen by rule, or when there is nothing to be optimal for (no prior, or one that only denoises).

    * ``optimality`` bounds, relative to the objective ``P(x)``, how much lower it could be anywhere within ``r`` of ``x`` (``radius``: ``|x|`` and
      the length of an image that fits the data): ``(P(x) - g(x) + |grad g(x)| r) / P(x)`` with a convex ``g <= P``. For ``R = g(K x)`` and the answer's dual variable
      ``p`` the minorant is ``F(x) + <p, K x> - (weight g)^*(p)``, so this is a duality gap that charges for
      infeasibility; for a smooth prior it is ``|grad P| r / P``, or what its modulus of convexity tells (``core/bounds.py``); for a proximal one the subgradient at the point that a
      proximal step leads to stands for the gradient. A prior that knows its proximal map at one step only (a learned one)
      has no convex minorant: there it is the relative fixed-point residual ``|x - prox(x - tau grad F)| / (min(1, tau L) |x|)``,
      ``tau = step / weight``, ``L`` the curvature of ``F``. For a
      forward model that is not linear the number measures stationarity, not global optimality.
    * ``misfit`` is ``|chi^2 / dof - 1|``; the default target is the larger of 0.05 and two standard deviations of it.
    * An answer with ``samples`` is judged by their chi-square and its ``calibration`` record (``core/calibration.py``) instead.
    """

    name: str
    forward: ForwardModel
    data: Tensor
    noise: Noise
    prior: P = None  # type: ignore[assignment]
    weight: Tensor | float | None = None
    truth: Tensor | None = field(default=None, metadata={"told": True})
    symmetries: tuple[Any, ...] = opaque(())
    goals: Mapping[str, float] = field(default_factory=dict, metadata={"opaque": True})
    recipe: Recipe | None = opaque()
    recommend: Callable[[Any], Any] | None = opaque()
    unknown: str = "x"
    continuous: None = opaque()

    def __post_init__(self) -> None:
        if not isinstance(self.forward, ForwardModel):
            raise InputError(
                f"{self.name!r}: forward is {type(self.forward).__name__}; give a ForwardModel, such as Radon, a LinearOperator of your own, or sciml.core.Matrix(tensor)"
            )
        shape = self.forward.codomain.shape
        data = torch.as_tensor(self.data)
        if not data.is_floating_point() and not data.is_complex():
            data = data.to(self.forward.codomain.dtype)  # counts arrive as integers
        if data.ndim <= len(shape):
            data = data.reshape((1,) * (len(shape) + 1 - data.ndim) + data.shape)
        if data.ndim != len(shape) + 1 or data.shape[1:] != torch.Size(shape):
            raise InputError(
                f"{self.name!r}: the data have shape {tuple(self.data.shape)}; this forward model makes (batch, {', '.join(map(str, shape))})"
            )
        refuse_other_kind(self.name, data, self.forward)
        if not isinstance(self.noise, Noise):
            raise InputError(
                f"{self.name!r}: noise is {self.noise!r}; pass an object such as GaussianNoise(0.01), with sigma in the units of the data"
            )
        object.__setattr__(self, "noise", self.noise.shaped(self.name, data))
        measured = self.noise.measured
        if measured is not None and bool((~measured & (data != 0)).any()):  # zeros stay the same object: see ``radius``
            data = torch.where(measured, data, torch.zeros_like(data))
        object.__setattr__(self, "data", data)
        if isinstance(self.prior, type):
            raise InputError(
                f"{self.name!r}: the prior is the class {self.prior.__name__}; write {self.prior.__name__}()"
            )
        if self.truth is not None:
            object.__setattr__(self, "truth", as_field("truth", self.truth, self.forward.space))
        if isinstance(self.prior, Prior):
            object.__setattr__(self, "prior", self.prior.on(self.forward.space))
        if self.weight is not None:
            if isinstance(self.weight, str):
                raise InputError(
                    f"{self.name!r}: the weight is {self.weight!r}; give a positive number, or None for Discrepancy"
                )
            weight = torch.as_tensor(self.weight, dtype=data.real.dtype, device=data.device)
            if weight.ndim > 1 and weight.numel() == weight.shape[0]:
                weight = weight.reshape(-1)
            if weight.ndim > 1:
                raise InputError(
                    f"{self.name!r}: the weight has shape {tuple(weight.shape)}; give one number, or one per member"
                )
            object.__setattr__(self, "weight", weight)
            if weight.device.type != "meta":
                self._check_weight()

    @property
    def space(self) -> Space:
        """Where the unknown lives."""
        return self.forward.space

    def with_prior(self, prior: Any, weight: Tensor | float | None = None) -> Inverse[Any]:
        """The same data under another prior (and weight; None leaves the choice to ``Discrepancy``).

        A prior that was learned from images in other units is brought to the units of these data, with a warning.
        """
        suited = getattr(prior, "suited", None)
        if suited is not None:
            prior = suited(self.magnitude())
        copy = dataclasses.replace(self, prior=prior, weight=weight)
        return copy._with_recipe("with_prior", {"prior": prior, "weight": weight})

    def with_weight(self, weight: Tensor | float) -> Self:
        """The same problem with another weight of the prior."""
        return dataclasses.replace(self, weight=weight)._with_recipe("with_weight", weight)

    def blind(self) -> Self:
        """The problem without its truth: what solvers are given."""
        return self if self.truth is None else dataclasses.replace(self, truth=None)

    def _without_truth(self) -> Self:
        return self.blind()

    def weights(self, answer: Answer | None = None) -> Tensor | None:
        """The posed weight per member, ``(batch,)``: the answer's, where a wrapper chose it, else the problem's."""
        weight = answer.posed if answer is not None and answer.posed is not None else self.weight
        if weight is None:
            return None
        one = torch.as_tensor(weight, dtype=self.data.real.dtype, device=self.data.device)
        return one.reshape(-1).expand(self.batch)

    @property
    def energetic(self) -> bool:
        """Whether the prior states something to be optimal for."""
        return isinstance(self.prior, Smooth | Composite | Proximable)

    def fidelity(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``F(x) = noise.energy(forward(x), data)`` per member, and its plain gradient."""
        z = self.forward(x)
        slope = self.noise.slope(z, self.data)
        return self.noise.energy(z, self.data), self.forward.linearise(x).adjoint(slope)

    def objective(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """``F(x) + weight R(x)`` per member; without a prior, ``F(x)``."""
        value = self.noise.energy(self.forward(x), self.data)
        weight = self.weights() if weight is None else weight
        if self.prior is None or weight is None:
            return value
        if isinstance(self.prior, Energy):
            return value + weight.to(value.dtype) * self.prior.energy(x)
        raise InputError(f"{type(self.prior).__name__} has no energy; the objective of {self.name!r} is not defined")

    def radius(self, x: Tensor) -> Tensor:
        """How far away a better image may be: ``|x|``, and the length of the step that conjugate gradients for the data alone
        take until chi-square is the degrees of freedom: for a quadratic data term from zero and at most 80 steps, otherwise
        from ``x`` and at most 8. They also go where the data are weak. Infinite where the forward model does not change with
        ``x`` at all and the data are not explained."""
        if not (self.noise.quadratic and isinstance(self.forward, LinearOperator)):
            with torch.no_grad():
                return _size(x) + self._afar(x, STEPS_BESIDE)
        known = _KNOWN.get(self.noise)
        if known is not None and known[0]() is self.forward and known[1]() is self.data:
            return _size(x) + known[2]
        with torch.no_grad():
            far = self._afar(self.space.zeros(self.batch), STEPS_FROM_ZERO)
        _KNOWN[self.noise] = (weakref.ref(self.forward), weakref.ref(self.data), far)
        return _size(x) + far

    def _afar(self, x: Tensor, steps: int) -> Tensor:
        z, tangent = self.forward(x), self.forward.linearise(x)
        r = -tangent.adjoint(self.noise.slope(z, self.data))
        d, p, rho = torch.zeros_like(r), r, _size(r).square()
        flat = rho == 0
        left = 2 * self.noise.energy(z, self.data) - self.noise.dof(self.data)  # what is not noise
        for _ in range(steps):
            image = tangent.adjoint(self.noise.bend(tangent(p), z, self.data))
            bend = inner(p, image)
            go = (bend > 0) & (left > 0)
            alpha = torch.where(go, rho / bend.clamp_min(1e-300), torch.zeros_like(rho))
            left = left - alpha * rho
            if not left.is_meta and not bool(go.any()):
                break
            d, r = d + across(alpha, p) * p, r - across(alpha, p) * image
            new = _size(r).square()
            p = r + across(torch.where(rho > 0, new / rho.clamp_min(1e-300), torch.zeros_like(rho)), p) * p
            rho = new
        blind = (
            flat & (self.misfit(x) > 1 + self.targets["misfit"])
            if not self.noise.quadratic or not isinstance(self.forward, LinearOperator)
            else torch.zeros_like(flat)
        )
        return torch.where(blind, torch.full_like(rho, math.inf), _size(d))

    def magnitude(self) -> float:
        """How large the values of the image are, to within a factor of about two: the 99.5th percentile of the magnitude after
        eight steps of steepest descent for the data alone; the median over the members."""
        with torch.no_grad():
            x = self.space.zeros(self.batch)
            for _ in range(8):
                _, gradient = self.fidelity(x)
                ahead = self.forward.linearise(x)(gradient)
                bent = self.noise.bend(ahead, self.forward(x), self.data)
                length = inner(gradient, gradient) / inner(ahead, bent).clamp_min(1e-300)
                x = x - across(length, x) * gradient
            return float(x.abs().flatten(1).kthvalue(max(1, int(0.995 * x[0].numel())), dim=1).values.median())

    def residual_dual(self, x: Tensor) -> Tensor:
        """The dual variable of the data that belongs to ``x``: the slope of the energy in whitened units (Gaussian: the residual)."""
        z = self.forward(x)
        return self.noise.whitened_slope(z, self.data)

    def misfit(self, x: Tensor) -> Tensor:
        """``chi^2 / dof`` per member: 1 for the truth, on average."""
        return self.noise.chi_square(self.forward(x), self.data) / self.noise.dof(self.data)

    def default_targets(self) -> dict[str, float]:
        """Optimality 1e-3; calibration 0.15; for the misfit the larger of 0.05 and two standard deviations of ``chi^2 / dof``."""
        spread = 2 * math.sqrt(2 / max(float(self.noise.dof(self.data).min()), 1.0))
        return {"optimality": 1e-3, "misfit": max(0.05, spread), "calibration": 0.15}

    def certify(self, answer: Answer | Tensor) -> tuple[Check, ...]:
        """``optimality`` and ``misfit`` as the class docstring says; chi-square per degree of freedom is told beside."""
        x = unpack(self, answer, self.space.shape)
        judged = answer if isinstance(answer, Answer) else None
        weight = self.weights(judged)
        if judged is not None and judged.samples is not None:
            return sampled_checks(self, judged)
        with torch.no_grad():
            x = x.to(self.data.device)
            x = x.to(self.space.zeros().dtype) if x.is_complex() == self.space.zeros().is_complex() else x
            chi = self.misfit(x)
            told = Check("chi-square per degree of freedom", chi)
            gate = Check("misfit", (chi - 1).abs(), self.targets["misfit"])
            if not self.energetic:
                return (gate, told)
            if weight is None:  # nothing can be optimal for a prior of unknown weight
                return (Check("optimality", torch.full_like(chi, math.inf), self.targets["optimality"]), gate, told)
            dual = None if judged is None else judged.dual
            optimal = Check("optimality", self.optimality(x, weight, dual), self.targets["optimality"])
            return (optimal, gate, told) if judged is not None and judged.posed is not None else (optimal, told)

    def gap(
        self,
        x: Tensor,
        dual: Mapping[str, Tensor],
        z: Tensor | None = None,
        kx: Tensor | None = None,
        back: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The relative restricted gap with the minorant ``<q, A x> - F^*(q) + <p, K x> - (weight g)^*(p)`` of dual variables
        ``prior`` (p) and ``data`` (q, whitened); ``forward(x)``, ``K x`` and ``A^H q + K^H p`` may be passed if they are known."""
        prior: Any = self.prior
        weight = self.weights() if weight is None else weight
        assert weight is not None
        q, p, y = dual["data"], dual["prior"], self.data
        z = self.forward(x) if z is None else z
        kx = prior.operator(x) if kx is None else kx
        if back is None:
            back = self.forward.linearise(x).adjoint(self.noise.unwhiten(q, y)) + prior.operator.adjoint(p)
        value, outer = self.noise.energy(z, y), weight.to(torch.float64) * prior.outer(kx)
        miss = value + self.noise.conjugate(q, y) - inner(q, self.noise.whiten(z, y))
        above = outer + prior.conjugate(p, weight) - inner(p, kx)
        beyond = x - prior.inside(x)
        outside = inner(beyond, beyond)
        reach = _size(prior.descent(x, back)) * self.radius(x)
        found = (miss.abs() + above.abs() + reach) / (value + outer).clamp_min(1e-300)
        return torch.where(outside > 0, torch.full_like(found, math.inf), found)

    def optimality(self, x: Tensor, weight: Tensor, dual: Mapping[str, Tensor] | None = None) -> Tensor:
        """The relative restricted gap (or fixed-point residual) of the class docstring, per member."""
        prior: Any = self.prior
        value, gradient = self.fidelity(x)
        heavy = weight.to(torch.float64)
        if isinstance(prior, Composite) and dual is not None:
            # The data's dual variable that belongs to x, and the answer's own: each gives a bound.
            mine = self.gap(x, {**dual, "data": self.residual_dual(x)}, weight=weight)
            return torch.minimum(mine, self.gap(x, dual, weight=weight)) if "data" in dual else mine
        if isinstance(prior, Smooth):
            rest = gradient + across(weight, x) * prior.gradient(x)
            return slack(self, _size(rest), x, weight, self.radius) / (value + heavy * prior.energy(x)).clamp_min(
                1e-300
            )
        step = _tau(self, x, prior, weight)
        explicit = getattr(prior, "prox_dual", None)
        if isinstance(prior, Composite) and explicit is not None:
            # The proximal map is itself an iteration: its dual variable, however far it came, makes an honest minorant.
            p = explicit(x - across(step, x) * gradient, step * weight)
            own = {"prior": p / across(step, p), "data": self.residual_dual(x)}
            return self.gap(x, own, weight=weight)
        onward = prior.prox(x - across(step, x) * gradient, step * weight)
        move = x - onward
        if prior.only_step is not None or not isinstance(prior, Energy):
            # A step much shorter than the data term allows moves little wherever it starts.
            short = (step.to(torch.float64) * curvature(self, x)).clamp(max=1.0)
            return _size(move) / (short * _size(x)).clamp_min(1e-300)
        _, ahead = self.fidelity(onward)
        rest = move / across(step, x) + ahead - gradient
        # The step is part of the answer's error.
        gain = (self.objective(x, weight) - self.objective(onward, weight)).abs()
        return (_size(rest) * self.radius(x) + gain) / self.objective(x, weight).clamp_min(1e-300)

    def validate(self) -> None:
        """Tensors; data that are not finite are named by channel and position; the noise must make a likelihood."""
        bad = ~torch.isfinite(self.data)
        if bool(bad.any()):
            index = [int(i) for i in torch.nonzero(bad)[0]]
            where = ", ".join(f"{axis} {i}" for axis, i in zip(self._axes(), index[2:], strict=True))
            raise InputError(
                f"{self.name!r}: {int(bad.sum())} data are not finite, the first at {where} (member {index[0]}); leave them out with noise=GaussianNoise(sigma, measured=torch.isfinite(data)), or mend them"
            )
        super().validate()
        self._check_weight()
        prior: Any = self.prior
        if hasattr(prior, "suited") and not prior.suits(size := self.magnitude()):
            raise InputError(
                f"{self.name!r}: {type(prior).__name__} was made for images with values up to about {prior.largest:.2g}, and these data come from one with about {size:.2g}; give it by problem.with_prior(prior), which brings it to these units, or pass prior.scaled({size / prior.largest:.2g})"
            )
        self.forward.validate(self.name)
        self.noise.validate(self.name, self.data)

    def _check_weight(self) -> None:
        weight = self.weight
        if isinstance(weight, Tensor) and not (bool((weight > 0).all()) and bool(torch.isfinite(weight).all())):
            raise InputError(
                f"{self.name!r}: the weight of the prior is {float(weight.min()):.3g}; it must be positive and finite"
            )

    def _axes(self) -> list[str]:
        count, scan = self.data.ndim - 2, hasattr(self.forward, "angles")
        return ["view", "bin"] if count == 2 and scan else [f"index {i}" for i in range(count)]

    def gauge(self, u: Tensor) -> Tensor:
        """``u`` itself."""
        return u

    @property
    def operator(self) -> ForwardModel:
        """The forward model, under the name that the other problems use."""
        return self.forward


def _size(r: Tensor) -> Tensor:
    return inner(r, r).sqrt()  # squares leave single precision


def _tau(problem: Inverse[Any], x: Tensor, prior: Any, weight: Tensor) -> Tensor:
    """The step of the proximal map in the certificate: the prior's own, or one over the curvature of the data term."""
    if prior.only_step is not None:
        step: Tensor = prior.only_step / weight
        return step
    return 1 / curvature(problem, x).to(weight)


def curvature(problem: Inverse[Any], x: Tensor, rounds: int = 12) -> Tensor:
    """A lower estimate, within a few percent, of the largest eigenvalue of ``J^H W^H W J`` at ``x``, per member.

    Power iterations from a fixed start; a proximal step with it is safe after a margin or a line search.
    """
    tangent: LinearOperator = problem.forward.linearise(x)
    z = problem.forward(x)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn((1, *problem.space.shape), generator=generator, dtype=torch.float64).to(x.device, x.dtype)
    v = v.expand(problem.batch, *problem.space.shape)  # a member starts as it would alone
    size = torch.ones(problem.batch, dtype=torch.float64, device=x.device)
    with torch.no_grad():
        for _ in range(rounds):
            v = v / across(_size(v).clamp_min(1e-300), v)
            v = tangent.adjoint(problem.noise.bend(tangent(v), z, problem.data))
            size = _size(v)
    found: Tensor = size.clamp_min(1e-300)
    return found
