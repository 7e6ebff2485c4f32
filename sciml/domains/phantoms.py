"""Sums of ellipses: phantoms whose pixel means and line integrals are known in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.domains.pixels import Pixels
from sciml.domains.random_fields import member_generator

__all__ = ["Ellipses", "random_images", "shepp_logan"]

_AT_ONCE = 1 << 21  # numbers in one temporary tensor

# Value, half axes, centre, angle in degrees: Toft's high-contrast values on the ellipses of Shepp and Logan.
_SHEPP_LOGAN = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
)


@dataclass(frozen=True, eq=False)
class Ellipses:
    r"""Images ``f(x) = \sum_k value_k [x in ellipse_k]`` in the plane, a batch of ``B`` with ``n`` ellipses each.

    ``centre`` and ``axes`` are ``(B, n, 2)`` in the user's unit of length, ``axes`` being half axes; ``angle`` ``(B, n)``
    in radians turns the first half axis counterclockwise from x; ``value`` ``(B, n)`` is what an ellipse adds, so values
    of overlapping ellipses sum, and an ellipse of value 0 is no ellipse (images of unequal number are filled up that way).
    Images are not clipped.

    Raises InputError for shapes that disagree, half axes that are not positive, or numbers that are not finite.
    """

    centre: Tensor
    axes: Tensor
    angle: Tensor
    value: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.value.shape)
        shapes = {item.name: tuple(getattr(self, item.name).shape) for item in fields(self)}
        if len(shape) != 2 or shapes != {"centre": (*shape, 2), "axes": (*shape, 2), "angle": shape, "value": shape}:
            raise InputError(
                f"Ellipses: the shapes are {shapes}; give centre and axes (batch, n, 2), angle and value (batch, n)"
            )
        if not all(bool(torch.isfinite(getattr(self, item.name)).all()) for item in fields(self)):
            raise InputError("Ellipses: a centre, half axis, angle or value is not finite; leave that ellipse out")
        if not bool((self.axes > 0).all()):
            raise InputError(f"Ellipses: the least half axis is {float(self.axes.min()):.3g}; half axes are positive")

    @property
    def batch(self) -> int:
        """Number of images."""
        return self.value.shape[0]

    def __getitem__(self, index: slice) -> Ellipses:
        """Some of the images."""
        return Ellipses(self.centre[index], self.axes[index], self.angle[index], self.value[index])

    def image(self, pixels: Pixels) -> Tensor:
        """Means over the pixels, ``(B, 1, nx, ny)``, exact to rounding.

        In coordinates where an ellipse is the unit disc a pixel is a parallelogram, and the area that the two share is a sum
        over the four sides: ``cross(p, q) / 2`` for a part of a side within the disc, half the angle seen from the centre for
        a part outside (Green's theorem). Only pixels that the boundary of an ellipse may cross are treated so; the others
        are wholly inside or outside.
        """
        if pixels.dim != 2:
            raise InputError(f"ellipses lie in the plane; these pixels have {pixels.dim} axes")
        kind, device = self.value.dtype, self.value.device
        x, y = (c.to(kind) for c in pixels.coordinates(torch.float64, device))
        lower = self.centre.new_tensor(pixels.corner)
        upper = lower + lower.new_tensor(pixels.extent)
        out = torch.zeros(self.batch, x.numel() * y.numel(), dtype=kind, device=device)
        for member in range(self.batch):
            middle, far = self.centre[member], self.axes[member].amax(-1, keepdim=True)
            used = (self.value[member] != 0) & ((middle + far > lower) & (middle - far < upper)).all(-1)
            centre, axes, angle = self.centre[member][used], self.axes[member][used], self.angle[member][used]
            stride = max(1, _AT_ONCE // out.shape[1])
            for start in range(0, int(used.sum()), stride):
                some = slice(start, start + stride)
                share = _shares(centre[some], axes[some], angle[some], x, y, pixels.spacing)
                out[member] += self.value[member][used][some] @ share
        return out.reshape(self.batch, 1, x.numel(), y.numel())

    def line_integrals(self, angles: Tensor, s: Tensor) -> Tensor:
        r"""Integrals along the lines ``x cos(angle) + y sin(angle) = s``: ``(B, 1, views, bins)``, in value times length.

        The shadow of an ellipse with half axes ``a, b`` turned by ``phi`` has the half width ``w``,
        ``w^2 = a^2 cos^2(angle - phi) + b^2 sin^2(angle - phi)``, and the chord at distance ``d`` from the centre of the shadow
        has the length ``2 a b \sqrt{w^2 - d^2} / w^2``. ``angles`` are radians, ``(views,)``; ``s`` is ``(bins,)``.
        """
        if angles.ndim != 1 or s.ndim != 1:
            raise InputError(
                f"angles have shape {tuple(angles.shape)} and s {tuple(s.shape)}; both are lists of numbers"
            )
        kind, device = self.value.dtype, self.value.device
        angles, s = angles.to(device, kind), s.to(device, kind)
        out = torch.zeros(self.batch, angles.numel(), s.numel(), dtype=kind, device=device)
        a, b = self.axes[..., 0, None], self.axes[..., 1, None]
        turned = angles - self.angle[..., None]
        width = (a * turned.cos()).square() + (b * turned.sin()).square()
        middle = self.centre[..., 0, None] * angles.cos() + self.centre[..., 1, None] * angles.sin()
        weight = 2 * a * b * self.value[..., None] / width
        stride = max(1, _AT_ONCE // max(1, self.value.numel() * s.numel()))
        for start in range(0, angles.numel(), stride):
            some = slice(start, start + stride)
            rest = width[..., some, None] - (s - middle[..., some, None]).square()
            out[:, some] = torch.einsum("bnv,bnvs->bvs", weight[..., some], rest.clamp_min(0).sqrt())
        return out.unsqueeze(1)

    @classmethod
    def random(
        cls,
        count: int,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        extent: float = 2.0,
        mean: float = 50.0,
        dtype: torch.dtype = torch.float64,
    ) -> Ellipses:
        """The random images of learned primal-dual reconstruction (Adler and Oktem 2018, arXiv:1707.06474).

        The number of ellipses is Poisson with this ``mean``; the centre is uniform in the box of side ``extent`` about zero,
        the angle uniform, the half axes are exponential with mean 0.2 (of half the box), the value is uniform in
        (-1/2, 1/2) times an exponential of mean 0.4. Over ``Pixels((128, 128), extent=2.0)`` the values of 200 images (seed 0)
        have mean -0.002 and standard deviation 0.17, and 99 % lie in (-0.71, 0.62); the extremes go to
        -1.41 and 1.54.
        """
        if (seed is None) == (generator is None):
            raise InputError("Ellipses.random: give one of seed= and generator=")
        if count < 1 or not extent > 0 or not mean > 0:
            raise InputError(f"Ellipses.random: count {count}, extent {extent} and mean {mean} must be positive")
        source = torch.Generator().manual_seed(seed) if generator is None and seed is not None else generator
        kind = torch.float64
        numbers = torch.poisson(torch.full((count,), float(mean), dtype=kind), generator=source)
        most = max(1, int(numbers.max()))
        u = torch.rand(count, most, 4, generator=source, dtype=kind)
        e = -torch.log1p(-torch.rand(count, most, 3, generator=source, dtype=kind))
        kept = torch.arange(most) < numbers[:, None]
        value = torch.where(kept, (u[..., 0] - 0.5) * 0.4 * e[..., 0], 0.0)
        axes = (0.1 * extent * e[..., 1:]).clamp_min(1e-9 * extent)
        centre, angle = (u[..., 1:3] - 0.5) * extent, u[..., 3] * (2 * math.pi)
        return cls(*(part.to(dtype) for part in (centre, axes, angle, value)))


def shepp_logan(dtype: torch.dtype = torch.float64) -> Ellipses:
    """The head phantom of Shepp and Logan (IEEE Trans. Nucl. Sci. 21, 1974) with Toft's high contrast, on [-1, 1]^2.

    One image, values 0 to 1; the skull is 1, the brain about 0.2.
    """
    table = torch.tensor(_SHEPP_LOGAN, dtype=torch.float64).unsqueeze(0)
    parts = (table[..., 3:5], table[..., 1:3], torch.deg2rad(table[..., 5]), table[..., 0])
    return Ellipses(*(part.to(dtype) for part in parts))


def random_images(count: int, shape: tuple[int, int], seed: int) -> Tensor:
    """``count`` images ``(count, 1, *shape)`` of ``Ellipses.random`` over the longer side; ``i`` depends on ``seed`` and ``i`` alone."""
    pixels = Pixels(shape, tuple(float(m) for m in shape))
    drawn = [
        Ellipses.random(1, generator=member_generator(seed, i, "image"), extent=float(max(shape))) for i in range(count)
    ]
    return torch.cat([one.image(pixels) for one in drawn])


def _shares(centre: Tensor, axes: Tensor, angle: Tensor, x: Tensor, y: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """The fraction of every pixel that lies in each of ``n`` ellipses, ``(n, nx * ny)``."""
    cos, sin = angle.cos(), angle.sin()
    a, b = axes[:, 0], axes[:, 1]
    frame = torch.stack((torch.stack((cos / a, sin / a), -1), torch.stack((-sin / b, cos / b), -1)), -2)  # (n, uv, xy)
    along = frame[:, :, 0, None] * (x - centre[:, 0, None])[:, None, :]  # (n, 2, nx)
    across = frame[:, :, 1, None] * (y - centre[:, 1, None])[:, None, :]
    u, v = ((along[:, i, :, None] + across[:, i, None, :]).flatten(1) for i in (0, 1))
    half = (frame * frame.new_tensor(spacing) / 2).abs().sum(-1)  # half sizes of a pixel's box in (u, v)
    hu, hv = half[:, :1], half[:, 1:]
    u, v = u.abs(), v.abs()
    inside = ((u + hu).square() + (v + hv).square()) <= 1
    outside = ((u - hu).clamp_min(0).square() + (v - hv).clamp_min(0).square()) >= 1
    share = inside.to(x.dtype)
    which, place = torch.nonzero(~(inside | outside), as_tuple=True)
    heavy = torch.float64
    corner = torch.stack((x[place // y.numel()], y[place % y.numel()]), -1).to(heavy) - centre[which].to(heavy)
    signs = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=heavy, device=x.device)
    corners = corner[:, None, :] + signs * signs.new_tensor(spacing) / 2  # (edge pixel, 4, xy), counterclockwise
    p = torch.einsum("kij,kcj->kci", frame.to(heavy)[which], corners)
    area = _disc_sector(p, p.roll(-1, dims=1)).sum(1) * (a * b).to(heavy)[which] / math.prod(spacing)
    share[which, place] = area.clamp(0, 1).to(x.dtype)
    return share


def _disc_sector(p: Tensor, q: Tensor) -> Tensor:
    """The signed area that the unit disc shares with the triangle ``(0, p, q)``."""
    d = q - p
    size, along = d.square().sum(-1), (p * d).sum(-1)
    root = (size - _cross(p, d).square()).clamp_min(0).sqrt()
    enter = ((-along - root) / size).clamp(0, 1)
    leave = ((-along + root) / size).clamp(0, 1)
    first, last = p + enter[..., None] * d, p + leave[..., None] * d
    return (_angle(p, first) + _cross(first, last) + _angle(last, q)) / 2


def _cross(p: Tensor, q: Tensor) -> Tensor:
    return p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]


def _angle(p: Tensor, q: Tensor) -> Tensor:
    return torch.atan2(_cross(p, q), (p * q).sum(-1))
