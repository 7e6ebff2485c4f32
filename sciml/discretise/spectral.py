r"""Transforms that make second differences diagonal, and spectral derivatives on periodic axes.

On a vertex-centred axis with ``n`` unknowns and spacing ``h`` the operator ``-d2`` (per volume, half cells at Neumann
ends) has the eigenvalues ``4 / h^2 sin^2(k h / 2)``, ``k`` the angular wave number of the eigenvectors:

* Dirichlet, Dirichlet: ``sin(pi (k+1) (j+1) / (n+1))`` (DST-I);  Neumann, Neumann: ``cos(pi k j / (n-1))`` (DCT-I);
* Neumann, Dirichlet: ``cos(pi (k+1/2) j / n)`` (DCT-III);  Dirichlet, Neumann: ``sin(pi (k+1/2) (j+1) / n)`` (DST-III);
* periodic: ``exp(2 pi i k j / n)`` (FFT).

A ``Transform`` takes the coefficients along all axes at once. It diagonalises ``V^-1 A`` (``V`` the dual cells) and is
orthogonal in the inner product weighted by ``V``, not in the plain one.
References: Strang, SIAM Review 41, 1999, doi 10.1137/S0036144598336745; Martucci, IEEE Trans. Signal Process. 42, 1994,
doi 10.1109/78.295213; the two-thirds rule: Orszag, J. Atmos. Sci. 28, 1971.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciml.domains.boundary import Periodic, Robin
from sciml.domains.errors import InputError
from sciml.domains.grid import Grid
from sciml.domains.space import Space

__all__ = ["Modes", "Spectrum", "Transform", "derivative", "eigenvalues"]

# What scipy calls the forward transform of an axis, by its kind: (sine?, type).
_SCIPY = {"dd": ("dst", 1), "nn": ("dct", 1), "nd": ("dct", 3), "dn": ("dst", 3)}


def kinds(grid: Grid) -> tuple[str, ...]:
    """``dd``, ``nn``, ``nd``, ``dn`` or ``periodic`` per axis; InputError for a Robin side, which no transform fits."""
    result = []
    for name, (lower, upper) in zip("xyz", grid.conditions, strict=False):
        if isinstance(lower, Robin) or isinstance(upper, Robin):
            raise InputError(
                f"axis {name} has a Robin side, which no fast transform makes diagonal; use ConjugateGradient"
            )
        ends = "".join("n" if node else "d" for node in (_node(lower), _node(upper)))
        result.append("periodic" if isinstance(lower, Periodic) else ends)
    return tuple(result)


def _node(condition: object) -> bool:
    return type(condition).__name__ == "Neumann"


@dataclass(frozen=True, eq=False)
class Transform:
    """The eigenbasis of ``-laplacian`` on ``grid`` (side values taken as zero), along the trailing space axes.

    ``inverse(forward(u)) == u``. With periodic axes coefficients are complex and the last periodic axis holds half of
    the spectrum, as in a real FFT. Differentiable any number of times; leading axes are batch axes. Plain CPU tensors
    without a gradient go through scipy (two threads), all others through torch's FFT.

    Raises InputError for a Robin side.
    """

    grid: Grid

    def __post_init__(self) -> None:
        kinds(self.grid)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kind of every axis."""
        return kinds(self.grid)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of coefficients along every axis."""
        sizes, last = list(self.grid.shape), self._halved
        if last is not None:
            sizes[last] = sizes[last] // 2 + 1
        return tuple(sizes)

    @property
    def _halved(self) -> int | None:
        axes = [axis for axis, kind in enumerate(self.kinds) if kind == "periodic"]
        return axes[-1] if axes else None

    def forward(self, u: Tensor) -> Tensor:
        """Coefficients ``(..., *modes)`` of a real field ``(..., *space)``."""
        v = self._real(u, inverse=False, overwrite=False)
        axes = self._periodic(u)
        return torch.fft.rfftn(v, dim=axes) if axes else v

    def inverse(self, v: Tensor, *, overwrite: bool = False) -> Tensor:
        """The real field of coefficients; ``overwrite`` allows to use the memory of ``v`` for it."""
        axes = self._periodic(v)
        if axes:
            v = torch.fft.irfftn(
                v, s=[self.grid.shape[axis] for axis, kind in enumerate(self.kinds) if kind == "periodic"], dim=axes
            )
        return self._real(v, inverse=True, overwrite=overwrite or bool(axes))

    def _periodic(self, u: Tensor) -> list[int]:
        first = u.ndim - self.grid.dim
        return [first + axis for axis, kind in enumerate(self.kinds) if kind == "periodic"]

    def _real(self, u: Tensor, *, inverse: bool, overwrite: bool) -> Tensor:
        """Sine and cosine transforms along the axes that are not periodic."""
        first = u.ndim - self.grid.dim
        todo = [(first + axis, kind) for axis, kind in enumerate(self.kinds) if kind != "periodic"]
        if not todo:
            return u
        if _plain(u):
            return _by_scipy(u, todo, inverse, overwrite)
        for at, kind in todo:
            u = _by_torch(u.movedim(at, -1), kind, inverse).movedim(-1, at)
        return u


def _plain(u: Tensor) -> bool:
    """Whether ``u`` is an ordinary CPU tensor that nothing differentiates, traces or fakes."""
    if type(u) is not Tensor or u.device.type != "cpu" or u.is_complex():
        return False
    if torch.is_grad_enabled() and u.requires_grad:
        return False
    inside = torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling()
    return not inside and torch.autograd.forward_ad._current_level < 0


def _by_scipy(u: Tensor, todo: list[tuple[int, str]], inverse: bool, overwrite: bool) -> Tensor:
    import scipy.fft

    array = u.detach().numpy()
    for count, kind in enumerate(dict.fromkeys(kind for _, kind in todo)):
        name, which = _SCIPY[kind]
        axes = [at for at, other in todo if other == kind]
        function = getattr(scipy.fft, ("i" if inverse else "") + name + "n")
        array = function(array, type=which, axes=axes, workers=2, overwrite_x=overwrite or count > 0)
    return torch.from_numpy(array)


def _by_torch(x: Tensor, kind: str, inverse: bool) -> Tensor:
    """A transform along the last axis, in scipy's normalisation."""
    n = x.shape[-1]
    result: Tensor
    if kind == "dd":
        zero = torch.zeros_like(x[..., :1])
        odd = torch.cat((zero, x, zero, -x.flip(-1)), -1)
        result = -torch.fft.rfft(odd).imag[..., 1 : n + 1] / (2 * (n + 1) if inverse else 1)
        return result
    if kind == "nn":
        even = torch.cat((x, x[..., 1:-1].flip(-1)), -1)
        result = torch.fft.rfft(even).real / (2 * (n - 1) if inverse else 1)
        return result
    if kind == "nd":
        return _cosine_two(x) / (2 * n) if inverse else _cosine_three(x)
    sign: Tensor = 1.0 - 2.0 * (torch.arange(n, device=x.device) % 2).to(x.dtype)
    if inverse:
        return _cosine_two(sign * x).flip(-1) / (2 * n)
    result = sign * _cosine_three(x.flip(-1))
    return result


def _twist(x: Tensor) -> Tensor:
    n = x.shape[-1]
    angle = torch.arange(n, dtype=x.dtype, device=x.device) * (-math.pi / (2 * n))
    return torch.complex(torch.cos(angle), torch.sin(angle))


def _cosine_three(x: Tensor) -> Tensor:
    """``x_0 + 2 sum_(j>0) x_j cos(pi (2k+1) j / (2n))``."""
    n = x.shape[-1]
    weight = torch.full((n,), 2.0, dtype=x.dtype, device=x.device)
    weight[:1] = 1.0
    result: Tensor = torch.fft.fft(weight * x * _twist(x), n=2 * n).real[..., :n]
    return result


def _cosine_two(x: Tensor) -> Tensor:
    """``2 sum_j x_j cos(pi k (2j+1) / (2n))``."""
    n = x.shape[-1]
    result: Tensor = 2 * (_twist(x) * torch.fft.fft(x.to(_twist(x).dtype), n=2 * n)[..., :n]).real
    return result


def _along(values: Tensor, axis: int, dim: int) -> Tensor:
    return values.reshape([-1 if other == axis else 1 for other in range(dim)])


def _index(grid: Grid, axis: int, halved: bool, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Signed mode numbers of a periodic axis."""
    n = grid.shape[axis]
    result: Tensor = (torch.fft.rfftfreq if halved else torch.fft.fftfreq)(n, d=1.0 / n, dtype=dtype, device=device)
    return result


def axis_eigenvalues(
    grid: Grid, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Eigenvalues of the negative second difference along every axis, shaped to broadcast over the modes."""
    result, halved = [], Transform(grid)._halved
    for axis, (kind, info) in enumerate(zip(kinds(grid), grid.axes(), strict=True)):
        n = info.n
        if kind == "periodic":
            angle = _index(grid, axis, axis == halved, dtype, device) * (math.pi / n)
        else:
            shift, intervals = {"dd": (1.0, n + 1), "nn": (0.0, n - 1), "nd": (0.5, n), "dn": (0.5, n)}[kind]
            angle = (torch.arange(n, dtype=dtype, device=device) + shift) * (math.pi / (2 * intervals))
        result.append(_along(torch.sin(angle).square() * (4 / info.spacing**2), axis, grid.dim))
    return result


def eigenvalues(grid: Grid, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Tensor:
    """Eigenvalues ``(*modes)`` of second differences, ``-laplacian`` per volume, as ``Transform(grid)`` orders them."""
    first, *others = axis_eigenvalues(grid, dtype, device)
    for one in others:
        first = first + one
    return first


class Modes(NamedTuple):
    """What a symbol is a function of.

    ``square`` ``(*modes)``: ``|k|^2``, exact on an all-periodic grid, otherwise the eigenvalues of second differences.
    ``wave``: on an all-periodic grid the angular wave numbers ``k`` along each axis (broadcastable), otherwise empty;
    ``odd`` the same with the unpaired highest mode of an even axis set to zero, for derivatives of odd order.
    """

    square: Tensor
    wave: tuple[Tensor, ...]
    odd: tuple[Tensor, ...]


def modes(grid: Grid, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Modes:
    """The modes of ``Transform(grid)``."""
    if any(kind != "periodic" for kind in kinds(grid)):
        return Modes(eigenvalues(grid, dtype, device), (), ())
    wave, odd = [], []
    for axis in range(grid.dim):
        index = _index(grid, axis, axis == grid.dim - 1, dtype, device)
        k = index * (2 * math.pi / grid.extent[axis])
        wave.append(_along(k, axis, grid.dim))
        odd.append(_along(torch.where(2 * index.abs() == grid.shape[axis], torch.zeros_like(k), k), axis, grid.dim))
    square = torch.zeros((1,) * grid.dim, dtype=dtype, device=device)
    for k in wave:
        square = square + k.square()
    return Modes(square, tuple(wave), tuple(odd))


def diffusion(modes: Modes, *, diffusivity: Tensor) -> Tensor:
    """``-diffusivity |k|^2``: the symbol of ``diffusivity * laplacian``."""
    return -diffusivity * modes.square


@dataclass(frozen=True, eq=False, init=False)
class Spectrum:
    """A linear operator with constant coefficients, diagonal in the basis of ``Transform(grid)``.

    ``Spectrum(grid, diffusivity=nu)`` is ``nu * laplacian``, with the exact symbol ``-nu |k|^2`` on an all-periodic
    grid and that of second differences otherwise. ``Spectrum(grid, function, name=tensor, ...)`` has the symbol
    ``function(modes, *, name, ...)``, a plain function of ``Modes`` and of the tensors, such as
    ``lambda m, *, nu: -nu * m.square.square()``. Tensors of shape ``(batch,)`` give one number per member. Side values
    of the grid are taken as zero. Implements ``sciml.core.evolution.Diagonal``.

    Raises InputError for a Robin side and for a parameter that is not a tensor.
    """

    grid: Grid
    function: Callable[..., Tensor] = field(metadata={"opaque": True})
    parameters: Mapping[str, Tensor]

    def __init__(
        self,
        grid: Grid,
        function: Callable[..., Tensor] = diffusion,
        parameters: Mapping[str, Tensor] | None = None,
        **tensors: Tensor,
    ) -> None:
        named = {**(parameters or {}), **tensors}
        for name, value in named.items():
            if not isinstance(value, Tensor):
                raise InputError(
                    f"the spectrum's {name!r} is {value!r}; pass torch.tensor({value!r}), so that it can be replaced"
                )
            named[name] = value.reshape(-1, 1, *[1] * grid.dim) if value.ndim == 1 else value
        wants = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        if sorted(wants) != sorted(named):
            raise InputError(f"the symbol takes the tensors {wants}, and {sorted(named)} are given; pass them by name")
        kinds(grid)
        for name, thing in (("grid", grid), ("function", function), ("parameters", named)):
            object.__setattr__(self, name, thing)

    @property
    def transform(self) -> Transform:
        """The basis."""
        return Transform(self.grid)

    def forward(self, u: Tensor) -> Tensor:
        """Coefficients of a field."""
        return self.transform.forward(u)

    def inverse(self, v: Tensor) -> Tensor:
        """The field of coefficients."""
        return self.transform.inverse(v)

    @property
    def symbol(self) -> Tensor:
        """Eigenvalues ``(batch or 1, 1, *modes)``, carrying the gradient of the tensors."""
        first = next(iter(self.parameters.values()), None)
        dtype = torch.float64 if first is None else first.real.dtype if first.is_complex() else first.dtype
        device = torch.device("cpu") if first is None else first.device
        result = self.function(modes(self.grid, dtype, device), **self.parameters)
        return result if result.ndim == self.grid.dim + 2 else result.reshape((1, 1, *result.shape[-self.grid.dim :]))

    def dealias(self, v: Tensor) -> Tensor:
        """Coefficients with ``3 |index| < n`` along periodic axes (the two-thirds rule); others are kept whole."""
        transform = self.transform
        for axis, kind in enumerate(transform.kinds):
            if kind == "periodic":
                index = _index(self.grid, axis, axis == transform._halved, torch.float64, v.device)
                v = v * _along((3 * index.abs() < self.grid.shape[axis]), axis, self.grid.dim)
        return v


def derivative(u: Tensor, axis: int, space: Space, order: int = 1) -> Tensor:
    """The spectral derivative of ``u`` along a periodic space axis; exact for fields that the grid resolves.

    The unpaired highest mode of an even axis has no odd derivative and is left out. Raises InputError for an axis that
    is not periodic. *Fails when* the field is not smooth: the derivative then oscillates (Gibbs).
    """
    grid = space.grid
    if not isinstance(grid.conditions[axis][0], Periodic):
        raise InputError(f"axis {axis} is not a periodic axis of a grid; spectral derivatives need Periodic() there")
    at, n = u.ndim - grid.dim + axis, grid.shape[axis]
    real = u.real.dtype if u.is_complex() else u.dtype
    index = _index(grid, axis, not u.is_complex(), real, u.device)
    k = index * (2 * math.pi / grid.extent[axis])
    if order % 2:
        k = torch.where(2 * index.abs() == n, torch.zeros_like(k), k)
    factor: Any = _along(k.pow(order) * (1j**order), axis, grid.dim)
    result: Tensor
    if u.is_complex():
        result = torch.fft.ifft(torch.fft.fft(u, dim=at) * factor, dim=at)
    else:
        result = torch.fft.irfft(torch.fft.rfft(u, dim=at) * factor, n=n, dim=at)
    return result
