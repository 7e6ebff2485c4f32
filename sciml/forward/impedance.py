r"""Electrical impedance tomography: voltages between electrodes from the conductivity of the body that they touch.

``-div(sigma grad u) = 0`` in a plane domain, with currents through electrodes by one of the models in ``electrodes.py``, in finite
elements, piecewise linear unless ``elements`` says ``QuadraticElements()``, on which the conductivity is constant. With ``R`` the matrix of potentials of electrode ``k`` for a unit of current into electrode ``l``, injections ``C`` (electrodes x injections) and
measurements ``M`` (electrodes x measurements), the voltages are ``C^T R M``: every pattern comes from one factorisation and as many
right-hand sides as electrodes. The derivative in the conductivity of element ``k`` is

    d(C^T R M) / d sigma_k = - int_k  grad u_c . grad u_m

with the potentials of both patterns (the adjoint fields are those of the measurements), exact for the discrete model. Reference: Cheney,
Isaacson and Newell, SIAM Rev. 41, 1999, doi 10.1137/S0036144598333613; Polydorides and Lionheart, Meas. Sci. Technol. 13, 2002, doi 10.1088/0957-0233/13/12/310.

*Fails when* triangles at the ends of electrodes are large: the voltages of driven electrodes converge slowly there (grade the mesh).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor

from sciml.core.linear import ForwardModel, LinearOperator
from sciml.discretise.triangles import LinearElements, TriangleElements
from sciml.domains.errors import InputError
from sciml.domains.mesh import Elements, Mesh
from sciml.domains.space import Space
from sciml.forward._potentials import System, roomy
from sciml.forward.conductivity import Chart, Plain, Spread
from sciml.forward.electrodes import CompleteElectrodes, Electrodes
from sciml.metrics import otsu

__all__ = ["Impedance", "ImpedanceSensitivity", "adjacent", "opposite"]


LARGE = 100_000  # entries of fields that no cache holds
CHUNK = 1024  # columns of a dense matrix that are made at a time


def adjacent(electrodes: int, step: int = 1) -> Tensor:
    """Unit currents into electrode ``i`` and out of ``i + step``, for all ``i`` around: ``(electrodes, electrodes)``, one pattern a column."""
    if electrodes < 2 or step % electrodes == 0:
        raise InputError(f"{electrodes} electrodes {step} apart make no pattern; give at least 2, and a step between")
    eye = torch.eye(electrodes, dtype=torch.float64)
    return eye - eye.roll(step, 0)


def opposite(electrodes: int) -> Tensor:
    """Currents into electrode ``i`` and out of the one across, for the first half of them. Raises InputError for an odd number."""
    if electrodes % 2:
        raise InputError(
            f"{electrodes} electrodes have none across from each other; give an even number, or use adjacent"
        )
    return adjacent(electrodes, electrodes // 2)[:, : electrodes // 2]


@dataclass(frozen=True, eq=False)
class Impedance(ForwardModel):
    """Images ``(batch, 1, *image)`` to voltages ``(batch, 1, injection, measurement)``.

    ``currents`` and ``voltages`` are patterns ``(electrodes, count)``, a pattern a column that sums to zero; without ``voltages`` those between neighbours, ``e_i - e_(i+1)``.
    ``image`` says where the image lives (default: the nodes of the mesh) and ``chart`` what its values mean: ``Plain()`` conductivity, or
    ``Logarithm(reference)``. Quadratic elements take about four times the unknowns and are far more accurate for as many. Derivatives by automatic differentiation are right in the image, the patterns and the contact impedances, to any order.
    Computed in double precision on the CPU whatever the dtype and device of the image.

    Raises InputError for patterns that do not fit the electrodes or do not sum to zero, an image of another mesh, and a conductivity that is not positive.
    """

    mesh: Mesh = field(metadata={"opaque": True})
    electrodes: Electrodes
    currents: Tensor = field(metadata={"shared": True})
    voltages: Tensor | None = field(default=None, metadata={"shared": True})
    _: KW_ONLY
    image: Spread | None = None
    chart: Chart = field(default_factory=Plain)
    elements: TriangleElements = field(default_factory=LinearElements)

    def __post_init__(self) -> None:
        if self.image is None:
            object.__setattr__(self, "image", Spread(self.mesh))
        if self._image.mesh is not self.mesh:
            raise InputError(
                "the image is spread over another mesh; build it as Spread(mesh, space) with the same mesh"
            )
        count = self.electrodes.number(self.mesh)
        if self.voltages is None:
            object.__setattr__(self, "voltages", adjacent(count)[:, :-1])
        for name in ("currents", "voltages"):
            patterns = torch.as_tensor(getattr(self, name))
            patterns = patterns if patterns.is_floating_point() else patterns.to(torch.float64)
            object.__setattr__(self, name, patterns)
            if patterns.ndim != 2 or patterns.shape[0] != count or not patterns.shape[1]:
                raise InputError(
                    f"{name} has shape {tuple(patterns.shape)}; with {count} electrodes it is ({count}, patterns), one pattern a column"
                )
            if patterns.device.type == "meta":
                continue
            off = patterns.detach().to(torch.float64).sum(0).abs()
            size = patterns.detach().to(torch.float64).abs().amax(0)
            bad = ~(off <= 1e-5 * size) | (size == 0)
            if bool(bad.any()):
                i = int(bad.nonzero()[0])
                say = "is zero" if float(size[i]) == 0 else f"sums to {float(off[i]):.3g}"
                raise InputError(
                    f"pattern {i} of {name} {say}; what flows in must flow out, so give patterns that sum to zero (subtract the mean to read against the mean of all electrodes)"
                )

    @property
    def _image(self) -> Spread:
        assert self.image is not None
        return self.image

    @property
    def _voltages(self) -> Tensor:
        assert self.voltages is not None
        return self.voltages

    @property
    def space(self) -> Space:
        """The images."""
        return self._image.space

    @property
    def codomain(self) -> Space:
        """``(1, injection, measurement)`` plain numbers."""
        shape = (1, self.currents.shape[1], self._voltages.shape[1])
        return Space(None, shape, dtype=self.space.dtype, device=self.space.device)

    def validate(self, name: str) -> None:
        """The electrodes."""
        self.electrodes.validate(name, self.mesh)

    @property
    def system(self) -> System:
        """The pattern of the matrix; found at first use and kept."""
        held: System | None = self.__dict__.get("_held")
        if held is None:
            wiring = self.electrodes.wiring(self.mesh, self.elements)
            held = self.__dict__["_held"] = System(self.mesh, self.elements, wiring)
        return held

    def conductivity(self, x: Tensor) -> Tensor:
        """The conductivity of every element, ``(..., elements)``, in double precision; InputError where it is not positive."""
        sigma = self._image(self.chart(x.to(torch.float64))).squeeze(-2)
        low = sigma.detach()
        if bool((low <= 0).any()):
            raise InputError(
                f"the conductivity is {float(low.min()):.3g} in element {int(low.reshape(-1, low.shape[-1]).amin(0).argmin())}; it must be positive (chart=Logarithm(reference) keeps it so)"
            )
        return sigma

    def entries(self, x: Tensor) -> Tensor:
        """The entries of the finite elements' matrix, ``(batch, entries)``."""
        z, sigma = self.electrodes.impedances(), self.conductivity(x)
        return self.system.values(sigma, None if z is None else 1 / z.to(sigma))

    def potentials(self, x: Tensor) -> Tensor:
        """The unknowns of the finite elements for a unit of current into every electrode and out of all, ``(batch, unknowns, electrodes)``."""
        return self.system.potentials(self.entries(x))

    def resistances(self, potentials: Tensor) -> Tensor:
        """``R``: the potential of every electrode for a unit of current into every one, ``(batch, electrodes, electrodes)``."""
        return self.system.load.to(potentials.device).mT @ potentials

    def __call__(self, u: Tensor) -> Tensor:
        shape = self.space.shape
        if u.shape[-len(shape) :] != torch.Size(shape):
            raise InputError(f"images have shape (batch, {', '.join(map(str, shape))}), not {tuple(u.shape)}")
        lead = u.shape[: u.ndim - len(shape)]
        potentials = self.potentials(u.reshape(-1, *shape))
        found = self._read(self.resistances(potentials))
        return found.to(u.dtype).reshape(*lead, *self.codomain.shape)

    def _read(self, resistances: Tensor) -> Tensor:
        """``C^T R M``."""
        found: Tensor = self.currents.to(resistances).mT @ resistances @ self._voltages.to(resistances)
        return found

    def linearise(self, x: Tensor) -> ImpedanceSensitivity:
        """The derivative at ``x`` ``(batch, *image)``: one factorisation, and no other for any number of products."""
        shape = self.space.shape
        if x.shape[-len(shape) :] != torch.Size(shape) or x.ndim > len(shape) + 1:
            raise InputError(f"linearise takes one batch, (batch, {', '.join(map(str, shape))}), not {tuple(x.shape)}")
        x = x.reshape(-1, *shape)
        return ImpedanceSensitivity(self, self.chart.slope(x), self.system.slopes(self.entries(x)))

    def kinds(self, x: Tensor, n: int = 256) -> Tensor:
        """Labels ``(batch, n, n)`` of an image or a batch of them: 0 background, 1 resistive, 2 conductive, by two thresholds of Otsu's on ``log(sigma)``.

        The first row is the top; outside of the body it is background, of which there has to be most. InputError where an image has fewer than three
        kinds of values. *Fails when* there are inclusions of one kind only: three are found all the same.
        """
        logarithm = self.chart(x.detach().to(torch.float64)).log().reshape(-1, *self.space.shape[1:])
        domain = self.space.domain
        if isinstance(domain, Mesh | Elements):
            logarithm = domain.picture(logarithm, n)[0]
        inside = torch.isfinite(logarithm)
        middle = torch.stack([one[seen].median() for one, seen in zip(logarithm, inside, strict=True)])
        return otsu(torch.where(inside, logarithm, middle.reshape(-1, 1, 1)).mT.flip(-2))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_held"}


@dataclass(frozen=True, eq=False)
class ImpedanceSensitivity(LinearOperator):
    """The derivative at one conductivity. ``slope`` is that of the chart, ``fields`` ``(batch, each * elements, electrodes)`` the gradients of
    the potentials of unit currents, times the roots of the quadrature weights. Products do not form the matrix; ``dense`` does."""

    forward: Impedance
    slope: Tensor
    fields: Tensor

    @property
    def space(self) -> Space:
        """The images."""
        return self.forward.space

    @property
    def codomain(self) -> Space:
        """The voltages."""
        return self.forward.codomain

    @property
    def batch(self) -> int:
        """Number of members."""
        return self.slope.shape[0]

    def __call__(self, u: Tensor) -> Tensor:
        inside = self.forward._image(self.slope * u.to(self.slope.dtype)).squeeze(-2).to(self.fields)
        weighted = self.fields * inside.repeat_interleave(self.forward.system.each, -1).unsqueeze(-1)
        found = self.forward._read(-(self.fields.mT @ weighted))
        return found.to(u.dtype).unsqueeze(-3)

    def adjoint(self, v: Tensor) -> Tensor:
        """``J^T v``, the sensitivities of all elements weighted by ``v``."""
        patterns = self.forward.currents.to(self.fields), self.forward._voltages.to(self.fields)
        mixed = patterns[0] @ v.squeeze(-3).to(self.fields) @ patterns[1].mT
        if self.fields.numel() > LARGE and mixed.ndim == 3:  # member by member, for the caches
            several = mixed.expand(self.batch, *mixed.shape[1:])
            found = -torch.stack([((f @ m) * f).sum(-1) for f, m in zip(self.fields, several, strict=True)])
        else:
            found = -((self.fields @ mixed) * self.fields).sum(-1)
        each = found.reshape(*found.shape[:-1], -1, self.forward.system.each).sum(-1)
        back = self.forward._image.adjoint(each.unsqueeze(-2).to(v.dtype))
        return self.slope.to(v.dtype) * back

    def dense(self) -> Tensor:
        """The matrix ``(batch, injections * measurements, image)``, stored by columns: for each value of the image one product of the fields of
        both kinds of patterns on the elements that it touches. Not differentiable."""
        with torch.no_grad():
            dtype, number = self.slope.dtype, self.space.size
            each = self.forward.system.each
            pairs = (self.batch, -1, each, self.codomain.shape[1]), (self.batch, -1, each, self.codomain.shape[2])
            left = (self.fields @ self.forward.currents.to(self.fields)).to(dtype).reshape(pairs[0])
            right = (self.fields @ self.forward._voltages.to(self.fields)).to(dtype).reshape(pairs[1])
            found = roomy((self.batch, number, self.codomain.size), left)
            slopes = -self.slope.flatten(1)
            if self.forward._image.same:
                whole = found.reshape(self.batch, number, *self.codomain.shape[1:])
                for i in range(self.batch):
                    torch.bmm((left[i] * slopes[i].reshape(-1, 1, 1)).mT, right[i], out=whole[i])
                return found.mT
            elements, weights = self.forward._image.touched()
            for at in range(0, number, CHUNK):
                index, weight = elements[at : at + CHUNK].to(left.device), weights[at : at + CHUNK].to(left)
                weight = weight.unsqueeze(2).unsqueeze(3)
                for i in range(self.batch):
                    scaled = slopes[i, at : at + CHUNK].reshape(-1, 1, 1, 1) * weight
                    mine = (left[i, index] * scaled).flatten(1, 2).mT
                    out = found[i, at : at + CHUNK].view(-1, *self.codomain.shape[1:])
                    torch.bmm(mine, right[i, index].flatten(1, 2), out=out)
            return found.mT


def example() -> Impedance:
    """Four electrodes on a small disc, two injections, the logarithm of the conductivity at the nodes."""
    from sciml.domains.meshing import disc
    from sciml.forward.conductivity import Logarithm

    plates = CompleteElectrodes(torch.tensor([0.3, 0.5, 0.2, 0.4], dtype=torch.float64))
    return Impedance(disc(nodes=20, electrodes=4), plates, adjacent(4)[:, :2], chart=Logarithm(0.7))
