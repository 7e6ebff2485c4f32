r"""What an unfolded network knows, as a prior: the primal-dual method with a learned lifting and a learned dual step.

In the primal-dual method for ``F(x) + weight g(K x)`` the prior enters through ``K`` and the proximal map of the conjugate of
``weight g``. Here both are learned, and differ from step to step: a learned convolution lifts the image to several channels,
a small network takes the place of the proximal map, and the dual variable of the prior becomes the memory of the
network. The data enter as they do in the method, through the noise and the forward model, so the prior goes with any linear
forward model; it is best for the kind of problem that it was trained through.

Sources: Gregor and LeCun, ICML (2010); Adler and Oktem, IEEE Trans. Med. Imaging 37, 1322 (2018), arXiv:1707.06474.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.func import functional_call

from sciml.core.linear import LinearOperator
from sciml.core.noise import across
from sciml.core.prior import Prior
from sciml.domains.errors import InputError
from sciml.domains.space import Space
from sciml.networks.denoising_steps import DenoisingSteps
from sciml.networks.unfolded import UnfoldedNetwork, lifted, lowered
from sciml.priors._stored import load_prior, save_prior

if TYPE_CHECKING:
    from sciml.core.solver import Solver

__all__ = ["Lifting", "Unfolded"]


RATIO = 0.3  # of dual to primal step; between 0.3 and 1 training went alike


def hann(frequency: Tensor) -> Tensor:
    """From one at zero to zero at the highest frequency, along a cosine."""
    return 0.5 + 0.5 * (math.pi * frequency).cos()


@dataclass(frozen=True, eq=False)
class Lifting(LinearOperator):
    """A convolution with stride two, ``(..., channels, *space)`` to ``(..., memory, *space // 2)``; zeros beyond the edge."""

    on: Space
    kernel: Tensor = field(metadata={"shared": True})

    @property
    def space(self) -> Space:
        """The images."""
        return self.on

    @property
    def codomain(self) -> Space:
        """The lifted variable; no domain, plain coefficients."""
        shape = (self.kernel.shape[0], *(n // 2 for n in self.on.shape[1:]))
        return replace(self.on, domain=None, shape=shape, parts=())

    def __call__(self, u: Tensor) -> Tensor:
        flat = u.reshape(-1, *self.on.shape)
        return lifted(flat, self.kernel).reshape(*u.shape[: -self.on.dim - 1], *self.codomain.shape)

    def adjoint(self, v: Tensor) -> Tensor:
        """The transposed convolution."""
        flat = v.reshape(-1, *self.codomain.shape)
        return lowered(flat, self.kernel, self.on.shape[1:]).reshape(*v.shape[: -self.on.dim - 1], *self.on.shape)


@dataclass(frozen=True, eq=False)
class Nothing(LinearOperator):
    """The operator onto no channels, ``(..., channels, *space)`` to ``(..., 0, *space)``."""

    on: Space

    @property
    def space(self) -> Space:
        """The images."""
        return self.on

    @property
    def codomain(self) -> Space:
        """Nothing, at every point."""
        return replace(self.on, domain=None, shape=(0, *self.on.shape[1:]), parts=())

    def __call__(self, u: Tensor) -> Tensor:
        return u.narrow(-self.on.dim - 1, 0, 0)

    def adjoint(self, v: Tensor) -> Tensor:
        """Zero."""
        return v.new_zeros(*v.shape[: -self.on.dim - 1], *self.on.shape)


@dataclass(frozen=True, eq=False)
class Unfolded(Prior):
    """The learned steps of ``PrimalDual(max_steps=stages, ratio=0.3, relaxation=1.0)``, images ``(batch, channel, *space)``.

    At step ``k`` the prior is ``stage(k)``. With an ``UnfoldedNetwork``, ``operator`` is the lifting ``K_k``, ``dual_prox(p, step, weight)`` is
    ``step N_k(p / step)``, ``inside`` leaves the image as it is; at the last step, whose dual variable nobody would see, ``inside`` is
    ``x - K^T N(K x)``. With ``DenoisingSteps`` nothing is lifted, and every step ends in ``inside``, a denoiser. ``metric`` is the
    filter ``M_k``: without it the steps of a tomograph hardly move fine detail. Images in other units, with data and noise to
    match, give the same answer.

    It states no energy: there is nothing to be optimal for, a weight plays no part, and an answer is judged by its misfit.
    ``filtered`` says that the weights were trained from filtered back-projection; ``solver()`` is the solver to use. ``weights`` are the
    network's unless given; ``sciml.fit(prior, members, through=solver)`` trains them. Raises InputError for
    complex images, other channels or dimension than the network's, images of less than two points along an axis.
    *Fails when* the images, views or noise are unlike those of the training, which the misfit shows only in part; and
    through a solver with another start, other steps or another relaxation.
    """

    network: UnfoldedNetwork | DenoisingSteps = field(metadata={"opaque": True})
    weights: Mapping[str, Tensor] = field(default_factory=dict, metadata={"shared": True}, repr=False)
    filtered: bool = False
    space: Space | None = field(default=None, metadata={"opaque": True})
    at: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.network, UnfoldedNetwork | DenoisingSteps):
            raise InputError(f"Unfolded takes an UnfoldedNetwork or DenoisingSteps, not {type(self.network).__name__}")
        if not self.weights:
            object.__setattr__(self, "weights", dict(self.network.named_parameters()))

    @property
    def stages(self) -> int:
        """Number of steps."""
        return self.network.stages

    @property
    def made_for(self) -> Mapping[str, float]:
        """Settings of PrimalDual that the weights belong to."""
        return {"max_steps": self.stages, "ratio": RATIO, "relaxation": 1.0}

    def solver(self) -> Solver[Any]:
        """The steps that the weights belong to, after filtered back-projection (Hann window) if ``filtered``."""
        from sciml.solvers import Chained, FilteredBackprojection, PrimalDual

        steps = PrimalDual(max_steps=self.stages, ratio=RATIO, relaxation=1.0)
        return Chained(FilteredBackprojection(hann), steps) if self.filtered else steps

    def fits(self, space: Space) -> str | None:
        """Channels and dimension of the network."""
        channels, dim = self.network.settings["channels"], self.network.dim
        if space.complex:
            return "the network is real; images must be, too"
        if space.shape[0] != channels or space.dim != dim:
            return f"the network takes {channels} channels on {dim} axes"
        return None if min(space.shape[1:]) > 1 else "every axis needs two points"

    def on(self, space: Space) -> Unfolded:
        """The prior for this space, its weights in the space's dtype and on its device."""
        super().on(space)
        moved = {name: value.to(space.device, space.dtype) for name, value in self.weights.items()}
        same = all(moved[name] is value for name, value in self.weights.items())
        return replace(self, space=space, weights=self.weights if same else moved)

    def stage(self, k: int) -> Unfolded:
        """The prior with the weights of step ``k``, counted from zero."""
        if not 0 <= k < self.stages:
            raise InputError(f"this Unfolded prior has {self.stages} steps; use PrimalDual(max_steps={self.stages})")
        return replace(self, at=k)

    @property
    def operator(self) -> Lifting | Nothing:
        """``K_k``; before any step that of the first. Without channels where all that is learned happens to the image."""
        if self.space is None:
            raise InputError("this Unfolded prior does not know its space; bind it with on(space)")
        if isinstance(self.network, DenoisingSteps):
            return Nothing(self.space)
        return Lifting(self.space, self.weights[f"lifts.{self.at or 0}"])

    def dual_prox(self, p: Tensor, step: Tensor, weight: Tensor | None = None) -> Tensor:
        """``step N_k(p / step)``; ``p`` itself at the last step."""
        if self.at == self.stages - 1 or isinstance(self.network, DenoisingSteps):
            return p
        size = across(step, p)
        return size * self._call("respond", p / size)

    def inside(self, x: Tensor) -> Tensor:
        """What the step ends in: see the network. Before any step the image itself."""
        return x if self.at is None else self._call("inside", x)

    def metric(self, g: Tensor) -> Tensor:
        """``M_k g``: symmetric and positive definite. Before any step it is the ramp, in which the method measures its steps."""
        return self._call("sharpen", g)

    def _call(self, name: str, u: Tensor) -> Tensor:
        if all(value is self.weights.get(key) for key, value in self.network.named_parameters()):
            found: Tensor = getattr(self.network, name)(u, self.at)
            return found
        values = {f"network.{key}": value for key, value in self.weights.items()}
        found = functional_call(_Part(self.network, name), values, (u, self.at))
        return found

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``checkpoint.safetensors`` in a folder, whole or not at all."""
        network = type(self.network)(**self.network.settings)
        network.load_state_dict({**self.network.state_dict(), **self.weights})
        save_prior(folder, Unfolded, network, {"filtered": self.filtered})

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Unfolded:
        """Read what ``save`` wrote; the weights ask for no gradient. Raises InputError for anything else."""
        found = load_prior(folder)
        if not isinstance(found, Unfolded):
            raise InputError(f"'{folder}' holds a {type(found).__name__}; open it with {type(found).__name__}.load")
        return found


class _Part(nn.Module):
    """One method of the network as a forward pass, which is what functional_call runs."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, u: Tensor, stage: int) -> Tensor:
        found: Tensor = getattr(self.network, self.name)(u, stage)
        return found


def example() -> tuple[Unfolded, Space]:
    """Untrained steps and a small uneven space of images."""
    from sciml.domains.pixels import Pixels

    return Unfolded(UnfoldedNetwork(stages=3, memory=6, hidden=5)), Pixels((9, 7), extent=(1.0, 0.7)).space()
