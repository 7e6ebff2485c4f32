"""Joseph's weights of parallel rays as sparse matrices, each stored once for all the views that are mirror images of it.

Along its driving axis (the one it crosses in the smaller steps, measured in pixels) a ray meets every line of pixel
centres once; the value there is interpolated linearly between the two nearest pixels of the line and multiplied by the
length of the ray between lines. Joseph, IEEE Trans. Med. Imaging 1, 1982, doi:10.1109/TMI.1982.4307572.

A box centred on the rotation axis looks the same in a mirror. For g a mirror (or a swap of equal axes) the integral of f
along the normal g u is that of f(g x) along u, so that the views at u, g u, ... share one block of weights, applied to the
image and its mirror images side by side as the columns of one matrix product; likewise the two halves of a centred
detector. A product with eight columns costs little more than one with a single column, because both wait for the weights:
180 views over half a turn of a square read an eighth of them.

Weights that exceed the memory allowed are made again, block by block, whenever they are used.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

__all__ = ["JosephWeights", "Rays"]

BLOCK = 2.5e8  # bytes of a block of weights with its transpose
SAME = 1e-13  # radians: angles closer than this, or than the rounding of their dtype, are one view
REPEATS = 4  # the same mirrored view asked for more often than this: nothing is shared
Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.signedinteger[Any]]]


@dataclass(frozen=True, eq=False)
class Rays:
    """The geometry: pixels (number, size and lower corner per axis), angles, positions on the detector (numpy, float64)."""

    shape: tuple[int, int]
    spacing: tuple[float, float]
    corner: tuple[float, float]
    angles: Floats
    positions: Floats


class _Sharing(NamedTuple):
    """Which symmetries are used: mirrors of each axis, swap of the axes, halves of the detector."""

    mirrors: bool
    swap: bool
    halves: bool


class _Part(NamedTuple):
    """Views with one driving axis: unit normals (across and along that axis), mirror images needed, size of its lines."""

    normals: Floats
    images: list[int]
    axis: int


class _Fold(NamedTuple):
    """The distinct views in parts, and where each ray of the sinogram is found among the products."""

    parts: list[_Part]
    rows: Floats  # detector positions of the rows of every view
    address: Integers  # (views, bins): place in the products of all parts, flattened (view, row, image)

    @property
    def size(self) -> int:
        return sum(len(part.normals) * len(self.rows) * len(part.images) for part in self.parts)


def _fold(rays: Rays, use: _Sharing, same: float) -> _Fold:
    cosine, sine = np.cos(rays.angles), np.sin(rays.angles)
    swapped = np.abs(sine) * rays.spacing[1] > np.abs(cosine) * rays.spacing[0]  # driven along x, interpolated along y
    across, along = np.where(swapped, sine, cosine), np.where(swapped, cosine, sine)
    if use.mirrors:
        image = 2 * (across < 0) + (along < 0)
        across, along = np.abs(across), np.abs(along)
    else:
        image = 3 * ((across < 0) & use.halves)
        turn = np.where(image > 0, -1.0, 1.0)
        across, along = across * turn, along * turn
    image = image + 4 * swapped
    bins = len(rays.positions)
    lower = bins // 2 if use.halves else 0
    rows = bins - lower
    k = np.arange(bins)
    mirrored = k < lower
    row = np.where(mirrored, bins - 1 - k, k) - lower
    index = np.empty((len(rays.angles), bins), dtype=np.int64)
    parts, offset = [], 0
    for axis in (1,) if use.swap else (1, 0):
        chosen = np.arange(len(swapped)) if use.swap else np.flatnonzero(swapped == (axis == 0))
        if len(chosen) == 0:
            continue
        direction = np.arctan2(along[chosen], across[chosen])
        order = np.argsort(direction, kind="stable")
        new = np.diff(direction[order], prepend=-np.inf) > same
        view = np.empty(len(chosen), dtype=np.int64)
        view[order] = np.cumsum(new) - 1
        first = chosen[order[new]]
        wanted = np.where(mirrored, image[chosen, None] ^ 3, image[chosen, None])
        images = np.unique(wanted)
        index[chosen] = (view[:, None] * rows + row) * len(images) + np.searchsorted(images, wanted) + offset
        parts.append(_Part(np.stack([across[first], along[first]], 1), images.tolist(), axis))
        offset += len(first) * rows * len(images)
    return _Fold(parts, rays.positions[lower:], index)


def _best(rays: Rays, same: float) -> _Fold:
    """The fold with the least work: a weight read counts as 40 columns (measured), one column as 1."""
    extent = [n * h for n, h in zip(rays.shape, rays.spacing, strict=True)]
    small = 1e-12 * max(extent)
    centred = all(abs(start + length / 2) < small for start, length in zip(rays.corner, extent, strict=True))
    square = rays.shape[0] == rays.shape[1] and abs(extent[0] - extent[1]) < small
    square = square and abs(rays.corner[0] - rays.corner[1]) < small
    halves = centred and bool(np.abs(rays.positions + rays.positions[::-1]).max() < small)
    folds = [_fold(rays, _Sharing(False, False, False), -1.0)]
    choices = (False, False), (centred, False), (centred, centred and square)
    for mirrors, swap in dict.fromkeys(choices):
        fold = _fold(rays, _Sharing(mirrors, swap, halves), same)
        if np.bincount(fold.address.ravel()).max() <= REPEATS:
            folds.append(fold)
    return min(folds, key=lambda f: sum(len(p.normals) * len(f.rows) * (40 + len(p.images)) for p in f.parts))


@dataclass(eq=False)
class _Block:
    """A range of the views of a part, and its weights as long as they are kept."""

    part: int
    first: int
    last: int
    kept: bool
    forward: Tensor | None = None
    adjoint: Tensor | None = None


class JosephWeights:
    """The products with the weights and with their transpose: ``forward`` and ``adjoint``; ``nbytes`` of tables kept."""

    def __init__(self, rays: Rays, dtype: torch.dtype, device: torch.device, memory: float) -> None:
        self.rays, self.dtype, self.device = rays, dtype, device
        self.fold = _best(rays, max(SAME, 16 * torch.finfo(dtype).eps if dtype == torch.float32 else 0.0))
        self.lock = threading.RLock()
        self.index = _places(self.fold.address.ravel(), device)
        self.sources = self._sources()
        self.mirrors = [self._mirrors(part) for part in self.fold.parts]
        self.blocks = list(self._blocks(memory))

    @property
    def nbytes(self) -> int:
        """Bytes held when all kept blocks are filled."""
        tables = sum(self._bytes(block) for block in self.blocks if block.kept)
        places = [self.index, self.sources, *(table for pair in self.mirrors for table in pair)]
        return int(tables) + sum(table.nbytes for table in places)

    @property
    def kept(self) -> bool:
        """Whether all weights stay in memory."""
        return all(block.kept for block in self.blocks)

    def _bytes_per_view(self, part: _Part) -> float:
        """Every line of pixels is met by as many rays as fit on it; two weights each."""
        lines, width = self.rays.shape[part.axis], self.rays.shape[1 - part.axis]
        rows, at = len(self.fold.rows), self.rays.positions
        met = np.full(len(part.normals), float(rows))
        if len(at) > 1:
            length = (width + 1) * self.rays.spacing[1 - part.axis]
            met = np.minimum(met, length * np.abs(part.normals[:, 0]) / abs(at[1] - at[0]) * rows / len(at) + 1)
        return float(2 * (4 + self.dtype.itemsize) * 2 * lines * met.mean())

    def _bytes(self, block: _Block) -> float:
        for table in (block.forward, block.adjoint):
            if table is not None:
                return 2.0 * (4 + self.dtype.itemsize) * table.values().numel()
        return (block.last - block.first) * self._bytes_per_view(self.fold.parts[block.part])

    def _blocks(self, memory: float) -> Iterator[_Block]:
        left = memory
        for number, part in enumerate(self.fold.parts):
            each = self._bytes_per_view(part)
            step = max(1, int(BLOCK / each))
            for first in range(0, len(part.normals), step):
                last = min(first + step, len(part.normals))
                left -= each * (last - first)
                yield _Block(number, first, last, left >= 0)

    def _sources(self) -> Tensor:
        """For every product the rays that read it, padded with the number of rays: what the transpose gathers from."""
        index = self.fold.address.ravel()
        order = np.argsort(index, kind="stable")
        target = index[order]
        start = np.searchsorted(target, target)
        table = np.full((self.fold.size, int((np.arange(len(target)) - start).max()) + 1), len(target), dtype=np.int64)
        table[target, np.arange(len(target)) - start] = order
        return _places(table, self.device)

    def _mirrors(self, part: _Part) -> tuple[Tensor, Tensor]:
        """Where the columns of a part find their pixels, ``(pixels * images,)``, and where pixels stand in the columns."""
        pixel = np.arange(math.prod(self.rays.shape), dtype=np.int32).reshape(self.rays.shape)
        turned = []
        for image in part.images:  # 4: driven along x; 2 and 1: turned across and along the driving axis
            view = pixel if image >= 4 else pixel.T
            turned.append(view[:: -1 if image & 1 else 1, :: -1 if image & 2 else 1].ravel())
        spread = np.stack(turned, -1)
        collect = np.empty_like(spread)
        for number, column in enumerate(turned):
            collect[column, number] = pixel.ravel() * len(turned) + number
        return _places(spread.ravel(), self.device), _places(collect, self.device)

    def _rows(self, block: _Block) -> tuple[Any, Any, Any]:
        """The CSR arrays of a block, pixels numbered along the driving axis first."""
        part, rays, wide = self.fold.parts[block.part], self.rays, 1 - self.fold.parts[block.part].axis
        lines, width = rays.shape[part.axis], rays.shape[wide]
        size, step = rays.spacing[wide], rays.spacing[part.axis]
        begin = rays.corner[wide] + size / 2
        line = rays.corner[part.axis] + step * (np.arange(lines) + 0.5)
        rows, count = self.fold.rows, block.last - block.first
        space = 2 * count * len(rows) * lines  # touched only as far as it is filled
        kind = np.float32 if self.dtype == torch.float32 else np.float64
        values, columns = np.empty(space, dtype=kind), np.empty(space, dtype=np.int32)
        lengths = np.empty((count, len(rows)), dtype=np.int64)
        at, base = 0, (width * np.arange(lines)).astype(np.int32)
        for n in range(count):
            a, b = part.normals[block.first + n]
            place = (rows[:, None] / a - (line * (b / a) + begin)) / size
            below = np.floor(place)
            weight = np.empty((*place.shape, 2))
            np.subtract(place, below, out=weight[..., 1])
            np.subtract(1.0, weight[..., 1], out=weight[..., 0])
            weight *= step / abs(a)
            pixel = np.clip(below, -2, width).astype(np.int32)
            inside = np.empty(weight.shape, dtype=bool)
            inside[..., 0] = (pixel >= 0) & (pixel < width)
            inside[..., 1] = (pixel >= -1) & (pixel < width - 1)
            pixel += base
            column = np.stack([pixel, pixel + 1], -1)
            lengths[n] = inside.sum((1, 2))
            end = at + int(lengths[n].sum())
            values[at:end], columns[at:end] = weight[inside], column[inside]
            at = end
        start = np.zeros(count * len(rows) + 1, dtype=np.int32)
        np.cumsum(lengths.ravel(), out=start[1:])
        return values[:at], columns[:at], start

    def _table(self, block: _Block, transposed: bool) -> Tensor:
        """The weights of a block (rays, pixels), or transposed (pixels, rays), as a CSR tensor."""
        with self.lock:
            held = block.adjoint if transposed else block.forward
            if held is not None:
                return held
            size = (block.last - block.first) * len(self.fold.rows), self.rays.shape[0] * self.rays.shape[1]
            if block.kept and block.forward is not None:  # made from its partner
                known = block.forward
                arrays = (
                    known.values().cpu().numpy(),
                    known.col_indices().cpu().numpy(),
                    known.crow_indices().cpu().numpy(),
                )
            else:
                arrays = self._rows(block)
            if block.kept and block.forward is None:
                block.forward = self._tensor(arrays, size)
            if not transposed:
                return block.forward if block.forward is not None else self._tensor(arrays, size)
            import scipy.sparse

            other = scipy.sparse.csr_array(arrays, shape=size).tocsc()
            table = self._tensor((other.data, other.indices, other.indptr), size[::-1])
            if block.kept:
                block.adjoint = table
            return table

    def _back(self, block: _Block, products: Tensor) -> Tensor:
        """The transposed weights of a block times columns; weights used only once are not worth transposing."""
        if block.kept or self.device.type != "cpu":
            return self._table(block, True) @ products
        import scipy.sparse

        values, rows, start = self._rows(block)
        shape = math.prod(self.rays.shape), len(start) - 1
        return torch.from_numpy(scipy.sparse.csc_array((values, rows, start), shape=shape) @ products.numpy())

    def _tensor(self, arrays: tuple[Any, Any, Any], size: tuple[int, int]) -> Tensor:
        values, columns, start = (torch.from_numpy(array) for array in arrays)
        with warnings.catch_warnings():  # torch says once that its sparse matrices are young
            warnings.simplefilter("ignore", UserWarning)
            table = torch.sparse_csr_tensor(start.int(), columns.int(), values, size, check_invariants=False)
        return table.to(self.device)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(batch, nx, ny)`` to line integrals ``(batch, views, bins)``."""
        batch = images.shape[0]
        pixels = images.reshape(batch, -1).T.contiguous()
        stacks = [pixels.index_select(0, spread).reshape(len(pixels), -1) for spread, _ in self.mirrors]
        products = []
        for block in self.blocks:
            products.append((self._table(block, False) @ stacks[block.part]).reshape(-1, batch))
        rays = products[0] if len(products) == 1 else torch.cat(products)
        return rays.index_select(0, self.index).T.reshape(batch, *self.fold.address.shape)

    def adjoint(self, data: Tensor) -> Tensor:
        """The transpose: ``(batch, views, bins)`` to ``(batch, nx, ny)``."""
        batch, rows = data.shape[0], len(self.fold.rows)
        rays = torch.cat([data.reshape(batch, -1).T, data.new_zeros(1, batch)])
        products = embedding_bag(self.sources, rays, mode="sum")
        at, sums = 0, [data.new_zeros(0) for _ in self.mirrors]
        for block in self.blocks:
            images = len(self.fold.parts[block.part].images)
            count = (block.last - block.first) * rows * images
            columns = self._back(block, products[at : at + count].reshape(-1, images * batch))
            sums[block.part] = sums[block.part] + columns if sums[block.part].numel() else columns
            at += count
        image = embedding_bag(self.mirrors[0][1], sums[0].reshape(-1, batch), mode="sum")
        for (_, collect), columns in zip(self.mirrors[1:], sums[1:], strict=True):
            image += embedding_bag(collect, columns.reshape(-1, batch), mode="sum")
        return image.T.reshape(batch, *self.rays.shape)


def _places(numbers: Integers, device: torch.device) -> Tensor:
    """Indices as a tensor, in 32 bits where they fit."""
    small = numbers.size == 0 or int(numbers.max()) < 2**31
    return torch.from_numpy(numbers.astype(np.int32 if small else np.int64)).to(device)
