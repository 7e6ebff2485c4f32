r"""Total variation: images that are flat in pieces (Rudin, Osher and Fatemi, Physica D 60, 1992, doi 10.1016/0167-2789(92)90242-F).

``R(x) = sum_i V_i |grad x|_i``, the midpoint rule for the integral of ``|grad x|``: forward differences over the spacing,
the Euclidean length over the axes (isotropic), each channel on its own, ``V_i`` the volume of node ``i``. On an axis that
is not periodic the difference at the last index is zero: nothing is said of a jump across the edge. On a mesh it is the integral of the length of
the gradient, or, for fields on triangles, of the jump along the edges. In the units of the
image times length^(dim - 1), so that the weight keeps its meaning on a finer grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.core.linear import LinearOperator
from sciml.core.noise import across, total
from sciml.core.prior import Prior
from sciml.core.slopes import Differences
from sciml.domains.errors import InputError
from sciml.domains.space import Space
from sciml.priors._cosines import Cosines
from sciml.priors._mesh import differences, meshed

__all__ = ["Gradient", "TotalVariation"]

CHECK_EVERY = 10


@dataclass(frozen=True, eq=False)
class Gradient(LinearOperator):
    """Forward differences over the spacing, ``(..., channel, *space)`` to ``(..., channel * dim, *space)``.

    Channel ``c * dim + a`` holds the difference of channel ``c`` along axis ``a``; it is zero at the last index of an axis
    that is not periodic, and wraps around on a periodic axis of a Grid. A space without a domain has spacing one.
    """

    on: Space

    @property
    def space(self) -> Space:
        """The images."""
        return self.on

    @property
    def codomain(self) -> Space:
        """One channel per axis and channel of the image; no domain, plain coefficients."""
        shape = (self.on.shape[0] * self.on.dim, *self.on.shape[1:])
        return replace(self.on, domain=None, shape=shape, parts=())

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbours along every axis."""
        return Cosines(self.on).spacing

    @property
    def components(self) -> int:
        """One per axis."""
        return self.on.dim

    def volumes(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Those of the nodes or pixels."""
        return self.on.weights(dtype)

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether an axis wraps around."""
        return Cosines(self.on).periodic

    @property
    def square_bound(self) -> float:
        """A bound of ``|K|^2``: the sum over the axes of ``4 / h^2``, times ``sin^2(pi (n-1) / (2n))`` without wrapping."""
        rows = zip(self.on.shape[1:], self.spacing, self.periodic, strict=True)
        return sum(4 / h**2 * (1.0 if wraps else math.sin(math.pi * (n - 1) / (2 * n)) ** 2) for n, h, wraps in rows)

    def __call__(self, u: Tensor) -> Tensor:
        dim = self.on.dim
        first = u.ndim - dim
        result = u.new_zeros((*u.shape[:first], dim, *u.shape[first:]))
        for axis, (h, wraps) in enumerate(zip(self.spacing, self.periodic, strict=True)):
            n, part = u.shape[first + axis], result.select(first, axis)
            part.narrow(first + axis, 0, n - 1).copy_(u.diff(dim=first + axis)).div_(h)
            if wraps:
                ends = u.narrow(first + axis, 0, 1) - u.narrow(first + axis, n - 1, 1)
                part.narrow(first + axis, n - 1, 1).copy_(ends / h)
        return result.flatten(first - 1, first)

    def adjoint(self, v: Tensor) -> Tensor:
        """Minus the backward differences over the spacing (the negative divergence), summed over the axes."""
        dim = self.on.dim
        at = v.ndim - dim - 1
        parts = v.reshape(*v.shape[:at], self.on.shape[0], dim, *v.shape[at + 1 :])
        first = at + 1
        result = torch.zeros_like(parts.select(first, 0))
        for axis, (h, wraps) in enumerate(zip(self.spacing, self.periodic, strict=True)):
            n = result.shape[first + axis]
            flux = parts.select(first, axis)
            inner = flux.narrow(first + axis, 0, n - 1)
            result.narrow(first + axis, 0, n - 1).sub_(inner, alpha=1 / h)
            result.narrow(first + axis, 1, n - 1).add_(inner, alpha=1 / h)
            if wraps:
                last = flux.narrow(first + axis, n - 1, 1)
                result.narrow(first + axis, n - 1, 1).sub_(last, alpha=1 / h)
                result.narrow(first + axis, 0, 1).add_(last, alpha=1 / h)
        return result


@dataclass(frozen=True, eq=False)
class TotalVariation(Prior):
    """The integral of ``|grad x|``, for images within ``[lower, upper]`` (None: no bound); infinite outside of them.

    Images are ``(batch, channel, *space)``, real or complex (a complex image has no bounds). Bound to a space by
    ``on(space)``; unbound it counts in pixels: spacing and volumes one. Keeps Energy, Composite and Proximable.

    ``prox`` minimises by an accelerated projected gradient method on the dual with restart (Beck and Teboulle, IEEE Trans.
    Image Process. 18, 2009, doi 10.1109/TIP.2009.2028250; O'Donoghue and Candes, Found. Comput. Math. 15, 2015, doi
    10.1007/s10208-013-9150-3), the bounds included, until the duality gap is 1e-10 of the value (1e-5 in single
    precision), each member by itself; at most ``max_steps`` iterations, after which the image reached is returned. A small
    step needs tens of iterations, one that flattens objects of hundreds of pixels thousands: where the forward model is
    not the identity, a primal-dual method needs no prox. Differentiable by unrolling, which keeps all iterations in memory.

    *Fails when* the image has slopes: they come out as stairs. Contrast is lost in proportion to the weight.
    Raises InputError for bounds in the wrong order and for a bound on complex images.
    """

    lower: float | None = None
    upper: float | None = None
    space: Space | None = None
    max_steps: int = 2000

    def __post_init__(self) -> None:
        for bound in (self.lower, self.upper):
            if bound is not None and not isinstance(bound, int | float):
                raise InputError(f"the bounds of TotalVariation are numbers, not {type(bound).__name__}")
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise InputError(f"the bounds of TotalVariation are {self.lower} and {self.upper}; the lower must be below")

    only_step = None
    meshes = True

    def fits(self, space: Space) -> str | None:
        """Complex images have no order, so no bounds."""
        if space.complex and (self.lower, self.upper) != (None, None):
            return "complex images have no lower or upper bound; leave the bounds out"
        return None if 1 <= space.dim <= 3 else f"it has {space.dim} space axes; total variation needs 1, 2 or 3"

    def on(self, space: Space) -> TotalVariation:
        """The same prior with the spacing and the volumes of the space."""
        super().on(space)
        return replace(self, space=space)

    def _for(self, x: Tensor) -> TotalVariation:
        """The prior for images like ``x``: itself, or, unbound, in units of pixels."""
        if self.space is None:
            return self.on(Space(None, tuple(x.shape[1:]), (), x.is_complex(), x.real.dtype, x.device))
        if x.shape[1:] != torch.Size(self.space.shape):
            raise InputError(
                f"the image has shape {tuple(x.shape)}; this TotalVariation is bound to (batch, {', '.join(map(str, self.space.shape))})"
            )
        return self

    @property
    def operator(self) -> Gradient | Differences:
        """``K``: the gradient by forward differences; on a mesh that on the triangles, or the jumps between them."""
        if self.space is None:
            raise InputError("this TotalVariation does not know its space; bind it with on(space)")
        if not meshed(self.space):
            return Gradient(self.space)
        held: Differences | None = self.__dict__.get("_held")
        if held is None or held.on is not self.space:
            held = self.__dict__["_held"] = differences(self.space)
        return held

    def _parts(self, z: Tensor) -> Tensor:
        """The components along the axes apart: ``(batch, channel, dim, *space)``."""
        return z.reshape(z.shape[0], -1, self.operator.components, *z.shape[2:])

    def _lengths(self, z: Tensor) -> Tensor:
        """``|z|`` over the axes, ``(batch, channel, 1, *space)``."""
        parts = self._parts(z)
        if torch.is_grad_enabled() and z.requires_grad:
            norm: Tensor = torch.linalg.vector_norm(parts, dim=2, keepdim=True)  # slower, with the subgradient 0 at 0
            return norm
        square = torch.zeros_like(parts.select(2, 0).real)
        for real in torch.view_as_real(z).unbind(-1) if z.is_complex() else (z,):
            for part in self._parts(real).unbind(2):
                square.addcmul_(part, part)
        return square.sqrt_().unsqueeze(2)

    def _volumes(self, z: Tensor) -> Tensor:
        return self.operator.volumes(z.real.dtype).to(z.device)

    def energy(self, x: Tensor) -> Tensor:
        """``sum_i V_i |grad x|_i`` per member; infinite outside the bounds."""
        here = self._for(x)
        value = here.outer(here.operator(x))
        if self.lower is None and self.upper is None:
            return value
        outside = (self.inside(x) != x).flatten(1).any(1)
        return value.masked_fill(outside, math.inf)

    def outer(self, z: Tensor) -> Tensor:
        """``g(z) = sum_i V_i |z_i|``."""
        return total(self._lengths(z) * self._volumes(z))

    @property
    def unbounded(self) -> bool:
        """Whether there are no bounds."""
        return self.lower is None and self.upper is None

    def smoothed(self, z: Tensor, smoothing: Tensor) -> tuple[Tensor, Tensor]:
        """``sum_i V_i eta_i`` and ``V_i / eta_i``, ``eta_i = sqrt(|z_i|^2 + s^2)``."""
        square = self._parts(z).abs().square().sum(2, keepdim=True)
        eta = (square + across(smoothing, square).square()).sqrt()
        volumes = self._volumes(z)
        weights = (volumes / eta).expand(-1, -1, self.operator.components, *z.shape[2:]).flatten(1, 2)
        return total(eta * volumes), weights

    def paired(self, a: Tensor, b: Tensor) -> Tensor:
        """``<a_i, b_i>`` over the axes, repeated for each."""
        at = -self.space_axes - 1
        products = (self._parts_of(a) * self._parts_of(b)).sum(at)
        return products.repeat_interleave(self.operator.components, at)

    @property
    def space_axes(self) -> int:
        """How many axes the places of ``K x`` have."""
        return len(self.operator.codomain.shape) - 1

    def _parts_of(self, z: Tensor) -> Tensor:
        """The components apart, whatever leads: ``(..., channel, components, *space)``."""
        axes = self.space_axes
        shape = z.shape[: z.ndim - axes - 1], z.shape[z.ndim - axes :]
        return z.reshape(*shape[0], -1, self.operator.components, *shape[1])

    def conjugate(self, p: Tensor, weight: Tensor) -> Tensor:
        """Zero where ``|p_i| <= weight V_i`` everywhere (up to 16 units of rounding), else infinite."""
        limit = across(weight, p) * self._volumes(p) * (1 + 16 * torch.finfo(p.dtype).eps)
        broken = (self._lengths(p) > limit.unsqueeze(1 if limit.ndim == p.ndim else 0)).flatten(1).any(1)
        return torch.zeros(p.shape[0], dtype=torch.float64, device=p.device).masked_fill(broken, math.inf)

    def dual_prox(self, p: Tensor, step: Tensor, weight: Tensor) -> Tensor:
        """The nearest ``q`` with ``|q_i| <= weight V_i``, whatever the step."""
        return self._project(p, across(weight, p) * self._volumes(p))

    def _project(self, p: Tensor, limit: Tensor) -> Tensor:
        limit = limit.unsqueeze(1) if limit.ndim == p.ndim else limit
        excess = self._lengths(p) / limit
        return (self._parts(p) / excess.clamp_min(1.0)).flatten(1, 2)

    def inside(self, x: Tensor) -> Tensor:
        """``x`` clamped to the bounds."""
        return x if self.lower is None and self.upper is None else x.clamp(self.lower, self.upper)

    def descent(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The gradient, zero where it points out of a bound that the image has reached."""
        if self.lower is not None:
            gradient = gradient.masked_fill((x <= self.lower) & (gradient > 0), 0.0)
        if self.upper is not None:
            gradient = gradient.masked_fill((x >= self.upper) & (gradient < 0), 0.0)
        return gradient

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """``argmin |x - v|^2 / 2 + step R(x)`` within the bounds; see the class for how, and to which accuracy."""
        return self._for(v)._minimise(v, step)[0]

    def prox_dual(self, v: Tensor, step: Tensor | float) -> Tensor:
        """The dual variable that ``prox`` ends with, ``|p| <= step volume``: what a certificate may rest on."""
        return self._for(v)._minimise(v, step)[1]

    def _minimise(self, v: Tensor, step: Tensor | float) -> tuple[Tensor, Tensor]:
        """``x = inside(v - K^H p)`` for the dual ``p``; there the duality gap is ``sum_i limit_i |z_i| - <p, z>``, ``z = K x``.

        Every term of that sum is non-negative, so that nothing cancels.
        """
        K = self.operator
        strength = torch.as_tensor(step, dtype=v.real.dtype, device=v.device).reshape(-1).expand(v.shape[0])
        limit = strength.reshape(-1, *[1] * (v.ndim - 1)) * self._volumes(v)
        tolerance = 1e-10 if v.real.dtype == torch.float64 else 1e-5
        rate = 1 / max(K.square_bound, 1e-300)
        found: list[Tensor] = list(self.inside(v).unbind(0))
        duals: list[Tensor] = list(v.new_zeros((v.shape[0], *K.codomain.shape)).unbind(0))
        left = torch.arange(v.shape[0], device=v.device)
        p = v.new_zeros((v.shape[0], *K.codomain.shape))
        q, momentum = p, torch.ones(v.shape[0], dtype=torch.float64, device=v.device)
        for count in range(self.max_steps + 1):
            if count % CHECK_EVERY == 0 or count == self.max_steps:
                x = self.inside(v - K.adjoint(p))
                z = K(x)
                whole = (limit.unsqueeze(1) * self._lengths(z)).flatten(1, 2)
                gap = total(whole) - total((p.conj() * z).real)
                done = gap <= tolerance * (total((x - v).abs().square()) / 2 + total(whole))
                if count == self.max_steps:
                    done = torch.ones_like(done)
                if bool(done.any()):
                    for row in torch.nonzero(done).flatten().tolist():
                        found[int(left[row])], duals[int(left[row])] = x[row], p[row]
                    keep = ~done
                    if not bool(keep.any()):
                        break
                    v, limit, p, q = v[keep], limit[keep], p[keep], q[keep]
                    left, momentum = left[keep], momentum[keep]
            new = self._project(torch.add(q, K(self.inside(v - K.adjoint(q))), alpha=rate), limit)
            change = new - p
            uphill = _paired(q - new, change) > 0
            momentum = torch.where(uphill, 1.0, momentum)
            following = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
            ahead = across(torch.where(uphill, 0.0, (momentum - 1) / following), v)
            q = torch.addcmul(new, ahead.to(v.dtype), change)
            p, momentum = new, following
        return torch.stack(found), torch.stack(duals)


def _paired(a: Tensor, b: Tensor) -> Tensor:
    """The real part of ``<a, b>`` per member."""
    return torch.bmm(a.conj().reshape(len(a), 1, -1), b.reshape(len(b), -1, 1)).reshape(-1).real


def example() -> tuple[TotalVariation, Space]:
    """Total variation within bounds, and a small uneven space of images that it fits."""
    from sciml.domains.pixels import Pixels

    return TotalVariation(lower=0.0), Pixels((9, 7), extent=(1.0, 0.7)).space()
