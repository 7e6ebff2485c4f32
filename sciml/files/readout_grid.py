"""Readouts of a magnetic resonance scan put onto a Cartesian grid.

Sample i of a readout belongs at kx = i - center_sample + n // 2 of the encoded matrix of n columns; a reversed readout is
turned first, so that its center_sample counts in the turned order. Its counters give ky and kz, moved so that the middle of
k-space lies at half of the matrix.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sciml.domains.errors import InputError
from sciml.files.ismrmrd_header import Encoding
from sciml.files.readouts import COUNTERS, LINES, REVERSED, Rows, lazily

__all__ = ["GridOfReadouts"]

BLOCK = 512
"""Rows that are read at once."""
LARGEST = 1 << 34
"""Samples of a grid beyond which the header is not believed."""


@dataclass(frozen=True)
class GridOfReadouts:
    """Readouts on a Cartesian grid.

    `place` (row, counters and kz, ky) is where each goes, `shape` the lengths of those axes; `first` and `last` bound the
    columns that its samples fill; `width` is the length of kx as encoded and `surplus` the factor that is cut off.
    """

    rows: Rows
    kept: Any
    place: Any
    counters: tuple[str, ...]
    shape: tuple[int, ...]
    coils: int
    width: int
    surplus: int
    first: Any
    last: Any

    @staticmethod
    def of(rows: Rows, kept: Any, encoding: Encoding) -> GridOfReadouts:
        """Find the place of every readout.

        Raises:
            InputError: a line or a sample lies outside the matrix.
        """
        import numpy as np

        head = rows.head[kept]
        samples, middle = head["number_of_samples"].astype(int), head["center_sample"].astype(int)
        matrix = encoding.encoded
        if matrix is None:
            guess = (int(samples.max()), *(int(rows.counter(line)[kept].max()) + 1 for line in LINES))
            matrix = (guess[0], guess[1], guess[2])
            warnings.warn(
                f"the header of '{rows.path}' gives no matrix; {matrix} was taken from the readouts.", stacklevel=3
            )
        width, turned = matrix[0], rows.flag(REVERSED)[kept]
        before, after = head["discard_pre"].astype(int), head["discard_post"].astype(int)
        before, after = np.where(turned, after, before), np.where(turned, before, after)
        if (samples == width).all() and not (before + after).any() and (middle != width // 2).any():
            warnings.warn(
                f"readouts of '{rows.path}' name sample {int(middle[middle != width // 2][0])} of {width} as the middle; as they "
                "fill the matrix, they were not moved.",
                stacklevel=4,
            )
            middle = np.full_like(middle, width // 2)
        first, last = before - middle + width // 2, samples - after - middle + width // 2
        out = (first < 0) | (last > width) | (first >= last)
        if out.any():
            which = int(np.flatnonzero(out)[0])
            raise InputError(
                f"readout {int(kept[which])} of '{rows.path}' fills columns {first[which]} to {last[which] - 1} of a matrix "
                f"of {width}; correct center_sample or encodedSpace."
            )
        counted = {name: np.unique(rows.counter(name)[kept], return_inverse=True) for name in COUNTERS}
        counters = tuple(name for name, (values, _) in counted.items() if values.size > 1)
        places = [counted[name][1].reshape(-1) for name in counters]
        shape = [counted[name][0].size for name in counters]
        for line, length in ((LINES[1], matrix[2]), (LINES[0], matrix[1])):
            step = rows.counter(line)[kept] + length // 2
            step = step - encoding.centre.get(line.replace("encode", "encoding"), length // 2)
            if step.min() < 0 or step.max() >= length:
                raise InputError(
                    f"'{rows.path}' has readouts at {line} {step.min()} to {step.max()} of a matrix of {length}; correct "
                    "encodedSpace or encodingLimits."
                )
            places.append(step)
            shape.append(length)
        coils = int(head["active_channels"][0])
        if int(np.prod([*shape, coils, width], dtype=float)) > LARGEST:
            raise InputError(
                f"the header of '{rows.path}' asks for a grid of {(*shape, coils, width)}; correct its matrix."
            )
        whole = bool((first == 0).all() and (last == width).all())
        surplus = encoding.oversampling() if whole else 1
        place = np.stack(places, 1)
        repeated = len(place) - len(np.unique(place, axis=0))
        if repeated and whole:
            warnings.warn(
                f"{repeated} of {len(place)} readouts of '{rows.path}' have a place that another has too; their mean is taken.",
                stacklevel=3,
            )
        return GridOfReadouts(rows, kept, place, counters, tuple(shape), coils, width, surplus, first, last)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of `samples`."""
        return (*self.counters, "coil", *(("kz",) if self.shape[-2] > 1 else ()), "ky", "kx")

    def samples(self) -> Any:
        """Samples with the axes `axes`; lazy along the first counter that varies, otherwise in memory."""
        deep = self.shape[-2:] if self.shape[-2] > 1 else self.shape[-1:]
        shape = (*self.shape[:-2], self.coils, *deep, self.width // self.surplus)
        if self.counters:
            return lazily(Gridded(self, shape), shape, "complex64")
        return Gridded(self, (1, *shape))([0])[0]

    def mask(self) -> tuple[tuple[str, ...], Any]:
        """Where something was measured, with the axes along which that varies, and ky."""
        import numpy as np

        full = np.zeros((*self.shape, self.width), dtype=bool)
        for at, first, last in zip(self.place, self.first, self.last, strict=True):
            full[(*at, slice(int(first), int(last)))] = True
        axes = [*self.counters, "kz", "ky", "kx"]
        for name in [*self.counters, "kz", "kx"]:
            axis = axes.index(name)
            if (full == full.take([0], axis)).all():
                full = full.take(0, axis)
                axes.remove(name)
        return tuple(axes), full


@dataclass(frozen=True)
class Gridded:
    """The grid for some values of the first counter (of the only value, if no counter varies)."""

    grid: GridOfReadouts
    shape: tuple[int, ...]

    def __call__(self, picks: Any) -> Any:
        import numpy as np

        grid = self.grid
        shape = (len(picks), *(grid.shape[1:] if grid.counters else grid.shape))
        sums = np.zeros((*shape, grid.coils, grid.width), np.complex64)
        counts = np.zeros((*shape, grid.width), np.int32)
        turned = grid.rows.flag(REVERSED)[grid.kept]
        for where, pick in enumerate(picks):
            chosen = np.flatnonzero(grid.place[:, 0] == pick) if grid.counters else np.arange(len(grid.kept))
            for row, values in self._signals(chosen):
                at = (where, *grid.place[row][1 if grid.counters else 0 :])
                values = values[:, ::-1] if turned[row] else values
                first, last = int(grid.first[row]), int(grid.last[row])
                skipped = self._skipped(int(row), bool(turned[row]))
                sums[at][:, first:last] += values[:, skipped : skipped + last - first]
                counts[at][first:last] += 1
        sums /= np.maximum(counts, 1)[..., None, :]
        if grid.surplus > 1:
            sums = _cropped(sums, grid.surplus)
        found = np.moveaxis(sums, -2, -4)  # the coils before kz
        return np.ascontiguousarray(found).reshape(len(picks), *self.shape[1:])

    def _signals(self, chosen: Any) -> Iterator[tuple[int, Any]]:
        """The samples of some readouts, a block of rows in memory at a time."""
        for start in range(0, len(chosen), BLOCK):
            part = chosen[start : start + BLOCK]
            yield from zip(part, self.grid.rows.many(self.grid.kept[part]), strict=True)

    def _skipped(self, row: int, turned: bool) -> int:
        head = self.grid.rows.head[self.grid.kept[row]]
        return int(head["discard_post"] if turned else head["discard_pre"])


def _cropped(samples: Any, factor: int) -> Any:
    """The middle part of the field of view along the last axis, back in k-space; orthonormal, k = 0 at n // 2."""
    import numpy as np

    width = samples.shape[-1]
    kept = width // factor
    image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(samples, axes=-1), norm="ortho"), axes=-1)
    start = width // 2 - kept // 2
    image = image[..., start : start + kept]
    found = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(image, axes=-1), norm="ortho"), axes=-1)
    return found.astype(np.complex64)
