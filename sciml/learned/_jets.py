r"""Derivatives of a network along its coordinates, carried forward through the layers (Taylor mode), and rows of the Jacobian.

A *stream* is one derivative ``D^alpha v`` of what a layer makes of the coordinates; all streams that an equation needs travel
together as one tensor ``(streams, points, channels)``. An affine layer acts on each; behind ``sigma`` they follow from the
formula of Faa di Bruno, a sum over the partitions of the derivatives into blocks:

    D^alpha sigma(z) = sum over partitions of sigma^(number of blocks)(z) * product over blocks of D^block z.

The Jacobian of a residual with respect to the weights needs one backward pass for all points, since the residual at a
point depends on the streams at that point alone: with ``zbar`` the cotangents of what enters the activations,
``dr_n / dW = sum over streams of zbar_n a_n^T``. Reference: Griewank and Walther, Evaluating Derivatives, 2008, chapter 13,
doi 10.1137/1.9780898717761.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.domains.errors import InputError
from sciml.networks import MLP, SIREN

__all__ = ["Index", "Layers", "Streams", "jets_of"]

Index = tuple[int, ...]  # the coordinates along which is differentiated, sorted; () is the value


@dataclass(frozen=True)
class Streams:
    """Which derivatives travel together: the value first, and with every derivative those it is made of."""

    indices: tuple[Index, ...]

    @staticmethod
    def of(wanted: Iterable[Index]) -> Streams:
        """The smallest closed set that contains the wanted derivatives."""
        found: set[Index] = {()}
        for index in wanted:
            for size in range(1, len(index) + 1):
                found.update(tuple(sorted(part)) for part in combinations(index, size))
        return Streams(tuple(sorted(found, key=lambda index: (len(index), index))))

    @property
    def order(self) -> int:
        """The highest order."""
        return max(map(len, self.indices))

    def at(self, index: Index) -> int:
        """Where a derivative stands."""
        return self.indices.index(tuple(sorted(index)))

    @cached_property
    def chains(self) -> tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]:
        """For every stream ``(how often, blocks)``: the partitions of Faa di Bruno's formula."""
        table = []
        for index in self.indices:
            counts = Counter(
                tuple(sorted(self.at(tuple(index[i] for i in block)) for block in partition))
                for partition in _partitions(list(range(len(index))))
            )
            table.append(tuple((many, blocks) for blocks, many in sorted(counts.items())))
        return tuple(table)

    @cached_property
    def splits(self) -> tuple[tuple[tuple[int, int, int], ...], ...]:
        """For every stream ``(how often, left, right)``: Leibniz' rule for a product."""
        table = []
        for index in self.indices:
            counts: Counter[tuple[int, int]] = Counter()
            for size in range(len(index) + 1):
                for chosen in combinations(range(len(index)), size):
                    rest = tuple(index[i] for i in range(len(index)) if i not in chosen)
                    counts[self.at(tuple(index[i] for i in chosen)), self.at(rest)] += 1
            table.append(tuple((many, left, right) for (left, right), many in sorted(counts.items())))
        return tuple(table)

    def compose(self, z: Tensor, sigma: Callable[[Tensor, int], list[Tensor]]) -> Tensor:
        """The streams of ``sigma(z)`` from those of ``z``, ``(streams, ...)``."""
        slopes = sigma(z[0], self.order)
        result = [slopes[0]]
        for chain in self.chains[1:]:
            total: Tensor | None = None
            for many, blocks in chain:
                part = slopes[len(blocks)] if many == 1 else slopes[len(blocks)] * many
                for block in blocks:
                    part = part * z[block]
                total = part if total is None else total + part
            assert total is not None
            result.append(total)
        return torch.stack(result)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """The streams of a product."""
        rows = []
        for split in self.splits:
            terms = [a[left] * b[right] * many for many, left, right in split]
            rows.append(sum(terms[1:], terms[0]))
        return torch.stack(rows)


def _partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """All partitions of a list into blocks."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for partition in _partitions(rest):
        yield [[first], *partition]
        for i, block in enumerate(partition):
            yield [*partition[:i], [first, *block], *partition[i + 1 :]]


def jets_of(function: Callable[[Tensor], Tensor], points: Tensor, streams: Streams) -> Tensor:
    """The streams ``(streams, points, channels)`` of a plain function of points ``(points, coordinates)``, by autograd."""
    with torch.enable_grad():
        columns = [points[:, i].detach().clone().requires_grad_() for i in range(points.shape[1])]
        value = function(torch.stack(columns, 1))
        value = value.unsqueeze(1) if value.ndim == 1 else value
        value = value.expand(len(points), value.shape[1])
        known: dict[Index, list[Tensor]] = {(): [value[:, k] for k in range(value.shape[1])]}
        for index in streams.indices[1:]:
            known[index] = [_slope(one, columns[index[-1]]) for one in known[index[:-1]]]
    return torch.stack([torch.stack(known[index], 1).detach() for index in streams.indices])


def _slope(value: Tensor, along: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(along)
    (result,) = torch.autograd.grad(value.sum(), along, create_graph=True, allow_unused=True)
    return torch.zeros_like(along) if result is None else result


def tanh_slopes(z: Tensor, order: int) -> list[Tensor]:
    """tanh and its derivatives, as polynomials in tanh."""
    y = torch.tanh(z)
    found, power = [y], [0.0, 1.0]
    for _ in range(order):
        slope = [k * c for k, c in enumerate(power)][1:]  # of the polynomial; times 1 - y^2
        power = [a - b for a, b in zip([*slope, 0.0, 0.0], [0.0, 0.0, *slope], strict=True)]
        total = torch.full_like(y, power[-1])
        for c in reversed(power[:-1]):
            total = total * y + c if c else total * y
        found.append(total)
    return found


def sine_slopes(z: Tensor, order: int) -> list[Tensor]:
    """sin and its derivatives."""
    s, c = torch.sin(z), torch.cos(z)
    return [(s, c, -s, -c)[k % 4] for k in range(order + 1)]


def sigmoid_slopes(z: Tensor, order: int) -> list[Tensor]:
    """The logistic function, ``(1 + tanh(z / 2)) / 2``, and its derivatives."""
    found = tanh_slopes(z / 2, order)
    return [0.5 + 0.5 * found[0], *(0.5 ** (k + 1) * slope for k, slope in enumerate(found[1:], 1))]


def gaussian_slopes(z: Tensor, order: int) -> list[Tensor]:
    """The normal distribution function and its derivatives: Hermite polynomials times the bell."""
    bell = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    found, before, now = [0.5 * torch.erfc(-z / math.sqrt(2))], torch.zeros_like(z), torch.ones_like(z)
    for k in range(order):
        found.append(bell * now if k % 2 == 0 else -bell * now)
        before, now = now, z * now - k * before
    return found


def gated(gate: Callable[[Tensor, int], list[Tensor]]) -> Callable[[Tensor, int], list[Tensor]]:
    """``z g(z)`` and its derivatives ``z g^(k) + k g^(k-1)``: silu from the logistic function, gelu from the normal one."""

    def slopes(z: Tensor, order: int) -> list[Tensor]:
        g = gate(z, order)
        return [z * g[0], *(z * g[k] + k * g[k - 1] for k in range(1, order + 1))]

    return slopes


def softplus_slopes(z: Tensor, order: int) -> list[Tensor]:
    """``log(1 + exp(z))``, whose derivative is the logistic function."""
    return [functional.softplus(z), *sigmoid_slopes(z, max(order - 1, 0))[:order]]


def slopes_of(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor, int], list[Tensor]]:
    """Any function of single numbers and its derivatives, by forward mode nested as often as needed."""

    def once(inner: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def slope(z: Tensor) -> Tensor:
            result: Tensor = torch.func.jvp(inner, (z,), (torch.ones_like(z),))[1]
            return result

        return slope

    def slopes(z: Tensor, order: int) -> list[Tensor]:
        found, current = [function(z)], function
        for _ in range(order):
            current = once(current)
            found.append(current(z))
        return found

    return slopes


@dataclass(frozen=True, eq=False)
class Layers:
    """A network made of affine layers with one function between them (MLP, SIREN), as a function of its weights.

    ``theta`` are all weights in one row: of every layer the matrix ``(out, in)``, then the bias.
    """

    sizes: tuple[int, ...]
    sigma: Callable[[Tensor, int], list[Tensor]]
    gain: float = 1.0

    @staticmethod
    def of(network: nn.Module) -> Layers:
        """From a network of ``sciml.networks``."""
        if not isinstance(network, MLP | SIREN):
            raise InputError(
                f"PINN differentiates MLP and SIREN, not {type(network).__name__}; give one of these, and conditions by form="
            )
        layers: Sequence[Any] = list(network.layers)
        sizes = (layers[0].weight.shape[1], *(one.weight.shape[0] for one in layers))
        if isinstance(network, SIREN):
            return Layers(sizes, sine_slopes, network.omega)
        known: dict[Any, Any] = {
            torch.tanh: tanh_slopes, torch.sin: sine_slopes, functional.silu: gated(sigmoid_slopes),
            functional.gelu: gated(gaussian_slopes), functional.softplus: softplus_slopes,
        }  # fmt: skip
        return Layers(sizes, known.get(network.function) or slopes_of(network.function))

    @property
    def count(self) -> int:
        """Number of weights."""
        return sum((a + 1) * b for a, b in zip(self.sizes, self.sizes[1:], strict=False))

    def split(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Matrices and biases, as views."""
        found, at = [], 0
        for a, b in zip(self.sizes, self.sizes[1:], strict=False):
            found.append((theta[at : at + a * b].view(b, a), theta[at + a * b : at + (a + 1) * b]))
            at += (a + 1) * b
        return found

    def forward(
        self, theta: Tensor, inputs: Tensor, streams: Streams, cut: bool = False
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Streams of the output ``(streams, points, out)``, of what enters the activations, and of what enters the layers.

        ``cut`` starts the graph at the first layer's result, so that cotangents exist without those of the weights.
        """
        a, entered, seen = inputs, [], []
        parts = self.split(theta)
        for depth, (matrix, bias) in enumerate(parts):
            seen.append(a)
            z = a @ matrix.T
            z = torch.cat((z[:1] + bias, z[1:])) if len(z) > 1 else z + bias
            if cut and depth == 0:
                z = z.detach().requires_grad_()
            entered.append(z)
            if depth + 1 < len(parts):
                a = streams.compose(z if self.gain == 1.0 else self.gain * z, self.sigma)
        return z, entered, seen

    def rows(self, cotangents: Sequence[Tensor], seen: Sequence[Tensor], copies: int, out: Tensor) -> None:
        """The Jacobian ``(points, weights)`` into ``out``; ``copies`` mirrored copies of the points are summed."""
        at, points = 0, out.shape[0]
        for bar, a in zip(cotangents, seen, strict=True):
            o, i = bar.shape[-1], a.shape[-1]
            left = bar.reshape(-1, points, o).permute(1, 2, 0)
            right = a.reshape(-1, points, i).permute(1, 0, 2)
            out[:, at : at + o * i] = torch.bmm(left, right).reshape(points, o * i)
            out[:, at + o * i : at + o * (i + 1)] = bar[0].reshape(copies, points, o).sum(0)
            at += o * (i + 1)


def smoothness(network: nn.Module) -> float:
    """How many continuous derivatives a network has."""
    return float(getattr(network, "smoothness", math.inf))
