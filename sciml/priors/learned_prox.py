"""Learned proximal network: a prior learned from images whose denoiser is exactly a proximal map."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from sciml.domains.errors import InputError
from sciml.domains.space import Space
from sciml.priors._stored import load_prior, save_prior
from sciml.priors._units import Learned

__all__ = ["LearnedProx", "ReadOut", "example"]

_KEPT = 12  # pairs of differences kept by the inversion


@dataclass(frozen=True)
class ReadOut:
    """A prior read out of its network, per member; every number in the units of the caller's image.

    ``energy`` is ``R(x)`` from below: the exact value lies between ``energy`` and ``energy + gap``. ``point`` is the ``v`` with
    ``prox(v) = x`` up to ``residual``, which is ``|prox(point) - x|``, and ``steps`` the number of steps that took.
    """

    energy: Tensor
    gap: Tensor
    residual: Tensor
    point: Tensor
    steps: Tensor


@dataclass(frozen=True, eq=False)
class LearnedProx(Learned):
    r"""A prior ``R`` whose proximal map at step 1 is a network (Fang, Buchanan and Sulam, arXiv:2310.14344).

    .. math:: \mathrm{prox}_R(v) = a f((v - b) / a) + b, \qquad f = \nabla \psi,\ \psi\ \text{convex}
    .. math:: R(x) = a^2 \phi((x - b) / a), \qquad \phi(u) = \psi^*(u) - |u|^2 / 2

    The gradient of a convex function is the proximal map of some function (Moreau; Gribonval and Nikolova,
    arXiv:1806.02487), here of a ``\phi`` that need not be convex. ``network.potential(u)`` is ``\psi`` per member and
    ``network.prox(u)`` its gradient, as in ``sciml.networks.InputConvexNetwork``. ``scale`` and ``shift`` are ``a`` and ``b``, one affine map for all
    pixels: that is the one kind that keeps a proximal map proximal, so images in other units need only other numbers here.

    ``strength`` ``t`` in (0, 1] takes ``(1 - t) |u|^2 / 2 + t \psi(u)`` for ``\psi``, whose gradient ``(1 - t) u + t f(u)`` is a proximal
    map again: that of a weaker prior, closer to convex.

    The network was trained at one noise level, so the map is exact at step 1 only (``only_step``): the prior has its own
    strength, and ``Inverse.weight`` does the rest. ``noise`` is the standard deviation of that noise and ``range`` the least and
    greatest value of the training images, both in the units of ``x``; both are told, not used. ``R`` stands for ``-noise^2 log p``,
    so the weight that belongs to data of known noise is ``1 / noise^2``; half or twice that is worth a try. Any dtype and device: the weights follow the image. Any number of leading axes.

    ``energy(x)`` inverts the network: ``\psi^*(u) = \max_y <u, y> - \psi(y)`` by limited-memory BFGS in float64, from ``y = u``.
    That is meant for reading a prior out, not for every step of a solver. ``read_out`` adds the certificate.

    Raises InputError for another step, other channels or dimensions, complex images, or a scale that is not positive.
    *Fails when* images differ from those of the training set, also in pixel size; and at values far outside ``range``.
    """

    network: nn.Module = field(metadata={"opaque": True})
    scale: float = 1.0
    shift: float = 0.0
    strength: float = 1.0
    noise: float | None = None
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        has = (
            isinstance(self.network, nn.Module) and hasattr(self.network, "prox") and hasattr(self.network, "potential")
        )
        if not has:
            raise InputError(
                f"a LearnedProx is made of a network with prox(x) and potential(x), such as InputConvexNetwork, not of {type(self.network).__name__}"
            )
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.shift)):
            raise InputError(f"LearnedProx: scale {self.scale} must be positive and shift {self.shift} finite")
        if not 0 < self.strength <= 1:
            raise InputError(f"LearnedProx: strength is {self.strength}; it is above 0 and at most 1, what was trained")

    @property
    def only_step(self) -> float:
        """1: the strength is that of the training."""
        return 1.0

    @property
    def natural_weight(self) -> float | None:
        """``1 / noise^2``: at this weight the prior counts as the density of its training images; None where noise is unknown."""
        return None if self.noise is None else 1 / self.noise**2

    def scaled(self, unit: float) -> LearnedProx:
        """The prior of images whose values are ``unit`` times those of the training set, such as attenuations per pixel."""
        span = None if self.range is None else (self.range[0] * unit, self.range[1] * unit)
        noise = None if self.noise is None else self.noise * unit
        return replace(self, scale=self.scale * unit, shift=self.shift * unit, noise=noise, range=span)

    def mirrored(self) -> LearnedProx:
        """The prior whose network is the mean over the mirror images of its input: a little better, and 2^dim times as dear.

        Raises InputError for a network that is not an InputConvexNetwork.
        """
        from sciml.networks.convex import InputConvexNetwork

        if not isinstance(self.network, InputConvexNetwork):
            raise InputError(
                f"LearnedProx.mirrored takes the mean of an InputConvexNetwork; this prior has a {type(self.network).__name__}"
            )
        network = InputConvexNetwork(**{**self.network.settings, "mirrors": True})
        network.load_state_dict(self.network.state_dict())
        network.to(next(self.network.parameters())).train(self.network.training).requires_grad_(False)
        return replace(self, network=network)

    def _potential(self, u: Tensor) -> Tensor:
        """``\\psi`` of the class docstring, per member, in the units of the network."""
        return self.strength * self._call("potential", u) + (1 - self.strength) / 2 * u.square().flatten(1).sum(1)

    def _map(self, u: Tensor) -> Tensor:
        """Its gradient."""
        return self.strength * self._call("prox", u) + (1 - self.strength) * u

    def prox(self, v: Tensor, step: Tensor | float = 1.0) -> Tensor:
        """``argmin_x |x - v|^2 / 2 + R(x)``; differentiable, twice."""
        steps = torch.as_tensor(step, dtype=torch.float64)
        if not bool(((steps - 1).abs() <= 1e-5).all()):  # a product of step and weight in float32 misses 1 by 1e-7
            worst = float(steps.reshape(-1)[(steps.reshape(-1) - 1).abs().argmax()])
            raise InputError(f"LearnedProx has one strength, step 1, not {worst:.6g}; weight the data instead")
        self._judge(v)
        u = (v - self.shift) / self.scale
        lead = u.shape[: -self._axes(u)]
        found = self._map(u.reshape(-1, *u.shape[len(lead) :]))
        return self.scale * found.reshape(u.shape) + self.shift

    def energy(self, x: Tensor) -> Tensor:
        """``R(x)`` per member, up to the constant that makes it a density; its gradient in ``x`` is ``prox^-1(x) - x``."""
        found = self.read_out(x)
        if x.requires_grad and torch.is_grad_enabled():
            y = ((found.point - self.shift) / self.scale).detach()
            u = (x.double() - self.shift) / self.scale
            value = (u * y).flatten(1).sum(1) - u.square().flatten(1).sum(1) / 2 - self._potential(y)
            return (self.scale**2 * value).to(x.dtype)
        return found.energy.to(x.dtype)

    def read_out(self, x: Tensor, rtol: float = 1e-6, max_steps: int = 2000) -> ReadOut:
        r"""``R(x)`` in float64 with a bound of its error.

        The inversion stops where ``|f(y) - u| <= rtol |u|``, or after ``max_steps``. By Fenchel's inequality
        ``\psi(y) + \psi^*(u) - <u, y>`` is not negative for any ``y``; since ``\psi`` is ``alpha``-strongly convex it is at most
        ``|f(y) - u|^2 / (2 alpha)``, with the residual taken at the very ``y`` at which ``\psi`` stands. That is ``gap`` (infinite
        for a network without ``alpha``); a small residual alone proves nothing where ``\psi`` is flat.
        """
        if x.ndim != self._axes(x) + 1:
            raise InputError(f"LearnedProx.read_out takes (batch, channel, *space), not {tuple(x.shape)}")
        self._judge(x)
        u = (x.detach().double() - self.shift) / self.scale
        with torch.no_grad():
            y, steps = self._invert(u, rtol, max_steps)
            residual = (self._map(y) - u).flatten(1).norm(dim=1)
            value = (u * y).flatten(1).sum(1) - u.square().flatten(1).sum(1) / 2 - self._potential(y)
        alpha = 1 - self.strength + self.strength * float(getattr(self.network, "alpha", 0.0))
        gap = residual.square() / (2 * alpha) if alpha > 0 else torch.full_like(residual, math.inf)
        a = self.scale
        return ReadOut(a * a * value, a * a * gap, a * residual, a * y + self.shift, steps)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``checkpoint.safetensors`` in a folder, whole or not at all."""
        words = {
            "scale": self.scale,
            "shift": self.shift,
            "strength": self.strength,
            "noise": self.noise,
            "range": self.range,
        }
        save_prior(folder, LearnedProx, self.network, words)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> LearnedProx:
        """Read what `save` wrote; raises InputError for anything else."""
        found = load_prior(folder)
        if not isinstance(found, cls):
            raise InputError(f"'{os.fspath(folder)}' holds a {type(found).__name__}; open it with sciml.pretrained")
        return found

    def _axes(self, x: Tensor) -> int:
        return 1 + int(getattr(self.network, "dim", x.ndim - 2))

    def _judge(self, x: Tensor) -> None:
        if x.is_complex():
            raise InputError("LearnedProx takes real images; give magnitudes, or two channels to a network for them")
        if not x.is_floating_point():
            raise InputError(f"LearnedProx takes floating point images, not {x.dtype}; convert with .double()")

    def _call(self, name: str, u: Tensor) -> Tensor:
        """A method of the network with its weights in the dtype and on the device of ``u``."""
        state = [*self.network.parameters(), *self.network.buffers()]
        if all(p.device == u.device and p.dtype == u.dtype for p in state if p.is_floating_point()):
            return getattr(self.network, name)(u)  # type: ignore[no-any-return]
        moved = {
            f"inner.{key}": value.to(u.device, u.dtype if value.is_floating_point() else value.dtype)
            for key, value in (*self.network.named_parameters(), *self.network.named_buffers())
        }
        return torch.func.functional_call(_Method(self.network, name), moved, (u,))  # type: ignore[no-any-return]

    def _invert(self, u: Tensor, rtol: float, max_steps: int) -> tuple[Tensor, Tensor]:
        """``y`` with ``f(y) = u``: minimise ``\\psi(y) - <u, y>``, every member on its own, and the steps taken."""
        target = rtol * u.flatten(1).norm(dim=1).clamp_min(1e-30)
        y, shape = u.clone(), (-1, *(1,) * (u.ndim - 1))
        value, slope = self._dual(y, u)
        pairs: list[tuple[Tensor, Tensor]] = []
        steps = torch.zeros(len(u), dtype=torch.int64, device=u.device)
        stuck = torch.zeros_like(steps)
        for _ in range(max_steps):
            size = slope.flatten(1).norm(dim=1)
            live = (size > target) & (stuck < 3)
            if not bool(live.any()):
                break
            move = -_inverse_hessian(slope, pairs)
            fall = _dot(move, slope)
            bad = fall >= 0
            move, fall = torch.where(bad.reshape(shape), -slope, move), torch.where(bad, -size.square(), fall)
            t = live.to(u.dtype)
            for _ in range(30):
                ahead = y + t.reshape(shape) * move
                new_value, new_slope = self._dual(ahead, u)
                # Values carry rounding of their own size; near the minimum the slope decides.
                slack = 1e-14 * value.abs() + 1e-300
                enough = (new_value <= value + 1e-4 * t * fall + slack) & (new_slope.flatten(1).norm(dim=1) < 10 * size)
                if bool((enough | ~live).all()):
                    break
                t = torch.where(enough | ~live, t, t / 2)
            pairs.append((ahead - y, new_slope - slope))
            del pairs[:-_KEPT]
            y, value, slope = ahead, new_value, new_slope
            steps = steps + live
            stuck = torch.where(t < 1e-8, stuck + 1, torch.zeros_like(stuck))
        return y, steps

    def _dual(self, y: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            point = y.detach().requires_grad_()
            value = self._potential(point)
            (slope,) = torch.autograd.grad(value.sum(), point)
        return value.detach() - _dot(u, y), slope - u


class _Method(nn.Module):
    """One method of a module as the forward pass of another, for torch.func."""

    def __init__(self, inner: nn.Module, name: str) -> None:
        super().__init__()
        self.inner, self.name = inner, name

    def forward(self, u: Tensor) -> Any:
        return getattr(self.inner, self.name)(u)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _inverse_hessian(slope: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The two-loop recursion (Nocedal, Math. Comp. 35, 1980), per member; pairs without curvature count as absent."""
    shape = (-1, *(1,) * (slope.ndim - 1))
    q, kept = slope, []
    scale = torch.ones(len(slope), dtype=slope.dtype, device=slope.device)
    for s, d in reversed(pairs):
        bend = _dot(s, d)
        good = bend > 1e-14 * _dot(s, s)
        rho = torch.where(good, 1 / torch.where(good, bend, 1.0), 0.0)
        a = rho * _dot(s, q)
        q = q - a.reshape(shape) * d
        kept.append((s, d, rho, a))
        if len(kept) == 1:
            scale = torch.where(good, bend / _dot(d, d).clamp_min(1e-300), 1.0)
    q = scale.reshape(shape) * q
    for s, d, rho, a in reversed(kept):
        b = rho * _dot(d, q)
        q = q + (a - b).reshape(shape) * s
    return q


def example() -> tuple[LearnedProx, Space]:
    """A small network with the weights it starts from, and an uneven space of images."""
    from sciml.domains.pixels import Pixels
    from sciml.networks.convex import InputConvexNetwork

    network = InputConvexNetwork(2, width=4, group=2, kernel=3, scales=1, layers=1, alpha=0.5).requires_grad_(False)
    return LearnedProx(network, scale=0.5, shift=0.1, strength=0.8, noise=0.5), Pixels(
        (5, 4), extent=(1.0, 0.7)
    ).space()
