"""Diffusion prior: a network that removes white noise of any level, and so can draw images and weigh them against data."""

from __future__ import annotations

import bisect
import contextlib
import math
import os
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from sciml.core.noise import across
from sciml.core.probability_flow import Heun, Walk
from sciml.domains.errors import InputError
from sciml.domains.space import Space
from sciml.priors._stored import load_prior, save_prior
from sciml.priors._units import Learned

__all__ = ["Diffusion", "example"]


@dataclass(frozen=True, eq=False)
class Diffusion(Learned):
    r"""``D(x, sigma) = E[x0 | x0 + sigma n = x]`` by a network in the form of Karras, Aittala, Aila and Laine (arXiv:2206.00364).

    With ``u = (x - shift) / scale`` and ``s = sigma / scale``, where ``shift`` and ``scale`` are the mean and the standard deviation of a
    pixel of the training images,

    .. math:: D = \text{shift} + \text{scale} \Bigl( \frac{u}{1 + s^2}
              + \frac{s}{\sqrt{1 + s^2}} F\Bigl(\frac{u}{\sqrt{1 + s^2}}, \frac{\log s}{4}\Bigr) \Bigr)

    so that input and target of ``network`` ``F(v, noise)`` have unit variance at every level. Train it with
    ``sciml.fit(Diffusion(UNet(...), scale, shift), images)``.

    ``levels`` are the lowest and highest ``sigma`` of the training, ``range`` the least and greatest value of the training images, in the units of
    ``x``. Above ``levels`` the network is told the highest, below the lowest, which is right in both limits. ``remains`` lists pairs (sigma,
    root mean square error of ``D``), found by ``measured``; ``walk`` draws images. ``network`` runs in the precision of its
    weights whatever that of ``x``, or in ``precision`` by autocast: ``torch.bfloat16`` is three to four times faster on a CPU with matrix
    units, with an error of about ``sigma / 250``, and much slower on one without.

    Keeps Denoising, and, bound to a space, Generative. Raises InputError for complex images, other channels or dimension,
    and where the network returns a value that is not finite. *Fails when* images differ from those of the training set, also in pixel size.
    """

    network: nn.Module = field(metadata={"opaque": True})
    scale: float = 1.0
    shift: float = 0.0
    range: tuple[float, float] | None = None
    levels: tuple[float, float] = (0.002, 80.0)
    remains: tuple[tuple[float, float], ...] = ()
    walk: Walk = field(default=Heun(32), metadata={"opaque": True})
    precision: torch.dtype | None = field(default=None, metadata={"opaque": True})
    bound: Space | None = field(default=None, metadata={"opaque": True}, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.network, nn.Module):
            raise InputError(
                f"a Diffusion prior is made of a network such as UNet(2), not of {type(self.network).__name__}; for a function f(x, sigma) use Denoiser"
            )
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.shift)):
            raise InputError(f"Diffusion: scale {self.scale} must be positive and shift {self.shift} finite")
        if not 0 < self.levels[0] < self.levels[1]:
            raise InputError(f"Diffusion: levels are {self.levels}; give the lowest and the highest sigma")
        object.__setattr__(self, "remains", tuple((float(sigma), float(rest)) for sigma, rest in self.remains))

    @property
    def channels(self) -> int:
        """Channels of its images."""
        return int(getattr(self.network, "settings", {}).get("channels", 1))

    def scaled(self, unit: float) -> Diffusion:
        """The prior of images whose values are ``unit`` times those of the training set."""
        span = None if self.range is None else (self.range[0] * unit, self.range[1] * unit)
        remains = tuple((sigma * unit, rest * unit) for sigma, rest in self.remains)
        levels = (self.levels[0] * unit, self.levels[1] * unit)
        return replace(
            self, scale=self.scale * unit, shift=self.shift * unit, range=span, levels=levels, remains=remains
        )

    def on(self, space: Space) -> Diffusion:
        """The prior for images of this space, from which it can then draw."""
        super().on(space)
        return self if self.bound is space else replace(self, bound=space)

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The clean image on average, ``(batch, channel, *space)``; ``sigma`` is a number or ``(batch,)`` in the units of ``x``."""
        level = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).reshape(-1).expand(len(x)) / self.scale
        told = level.clamp(self.levels[0] / self.scale, self.levels[1] / self.scale).log() / 4
        root = (1 + level.square()).sqrt()
        u = (x - self.shift) / self.scale
        like = next(self.network.parameters(), x)
        device = x.device.type
        fast = contextlib.nullcontext() if self.precision is None else torch.autocast(device, self.precision)
        with fast:
            found = self.network((u / across(root, u)).to(like.dtype), told.to(like.dtype)).to(x.dtype)
        clean: Tensor = self.shift + self.scale * (u / across(root.square(), u) + across(level / root, u) * found)
        if not clean.is_meta and not bool(torch.isfinite(clean.detach()).all()):
            raise InputError(
                f"the network of a Diffusion prior returned values that are not finite at sigma {float(level.min()) * self.scale:.3g} to {float(level.max()) * self.scale:.3g}; look at its weights and at the image"
            )
        return clean

    def remaining(self, sigma: float) -> float:
        """The root mean square error of ``denoise`` at this level: from ``remains``, or that of independent Gaussian pixels."""
        crude = sigma * self.scale / math.hypot(sigma, self.scale)
        if not self.remains:
            return crude
        levels = [level for level, _ in self.remains]
        at = bisect.bisect(levels, sigma)
        if at == 0:
            return self.remains[0][1] * sigma / levels[0]
        if at == len(levels):
            return min(crude, max(self.remains[-1][1], crude * self.remains[-1][1] / levels[-1]))
        (a, low), (b, high) = self.remains[at - 1 : at + 1]
        share = math.log(sigma / a) / math.log(b / a)
        return math.exp((1 - share) * math.log(low) + share * math.log(high))

    def measured(self, clean: Tensor, count: int = 24, seed: int = 0) -> Diffusion:
        """The prior that knows how well it denoises these images ``(batch, channel, *space)`` at ``count`` levels."""
        low, high = (math.log(level) for level in self.levels)
        generator, found = torch.Generator().manual_seed(seed), []
        for i in range(count):
            sigma = math.exp(low + (high - low) * i / (count - 1))
            error = 0.0
            for part in torch.split(clean, 8):
                n = torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part)
                with torch.no_grad():
                    error += float((self.denoise(part + sigma * n, sigma) - part).square().sum())
            found.append((sigma, math.sqrt(error / clean.numel())))
        return replace(self, remains=tuple(found))

    def sample(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Images ``(count, channel, *space)`` drawn along ``walk``; noise in float64 on the generator's device.

        Starts at the highest level, at most a hundred deviations of a pixel. Raises InputError if it is not bound to a space.
        """
        if self.bound is None:
            raise InputError("this Diffusion prior does not know the shape of its images; bind it with on(space)")
        space = self.bound
        shape = (count, *space.shape)

        def noise() -> Tensor:
            n = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
            return n.to(space.device, space.dtype)

        high = min(self.levels[1], 100 * self.scale)
        with torch.no_grad():
            return self.walk(self.denoise, self.shift + high * noise(), high, self.levels[0], noise)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``checkpoint.safetensors`` into a folder; the network must be one of ``sciml.networks``."""
        words: dict[str, Any] = {
            "scale": self.scale, "shift": self.shift, "range": self.range, "levels": self.levels, "remains": self.remains
        }  # fmt: skip
        save_prior(folder, Diffusion, self.network, words)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Diffusion:
        """What `save` wrote; InputError where the folder holds another kind of prior."""
        found = load_prior(folder)
        if not isinstance(found, cls):
            raise InputError(f"'{folder}' holds a {type(found).__name__}, not a Diffusion prior")
        return found


def example() -> tuple[Diffusion, Space]:
    """An untrained network around 0.3, and a small uneven space of images."""
    from sciml.domains.pixels import Pixels
    from sciml.networks.unet import UNet

    network = UNet(2, widths=(4, 6), blocks=1, features=4)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    network.eval().requires_grad_(False)
    prior = Diffusion(network, scale=0.5, shift=0.3, range=(-1.0, 1.5), levels=(0.01, 20.0), walk=Heun(4))
    return prior, Pixels((9, 7), extent=(1.0, 0.7)).space(dtype=torch.float32)
