"""Members of a data set as pairs of tensors (inputs, targets), read when asked for.

`pairs` takes fields of a data set by name; `windows` cuts frames out of trajectories; `split` deals members out to
training, validation and test. Samples hold no open file, so they pickle and may be used in forked processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.training.normaliser import Moments, Normaliser
from sciml.training.signature import Signature, geometry

if TYPE_CHECKING:
    import numpy
    import xarray

__all__ = ["Normaliser", "Samples", "Signature", "pairs", "split", "windows"]

Data = TypeVar("Data", "xarray.Dataset", "xarray.DataArray", "Samples")
PIECE_BYTES = 64 * 1024**2


class _Source(Protocol):
    channels: tuple[tuple[str, ...], tuple[str, ...]]
    shape: tuple[int, ...]

    def read(self, positions: numpy.ndarray[Any, Any]) -> tuple[Any, Any]: ...


class Samples:
    """Members that are read when asked for: `len`, `batch`, `take`, `signature`.

    Attributes:
        names: names of the input fields and of the target fields.
        channels: the same, one entry per channel.
        spacing: distance of neighbouring points along every axis of space; where the data do not say, that of a
            periodic axis of length one.
        groups: the trajectory that each member was cut from; members of one group are never split apart.
        recipe: how the data were made, if they say.
    """

    def __init__(
        self,
        source: _Source,
        positions: numpy.ndarray[Any, Any],
        groups: numpy.ndarray[Any, Any],
        signature: Signature,
        dtype: torch.dtype,
        recipe: Any = None,
    ) -> None:
        self._source, self._positions, self.groups = source, positions, groups
        self._plain, self.dtype, self.recipe = signature, dtype, recipe
        self._moments: tuple[Moments, Moments] | None = None

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self._plain.inputs, self._plain.targets

    @property
    def channels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self._source.channels

    @property
    def spacing(self) -> tuple[float, ...]:
        sizes = self._source.shape
        return tuple(1.0 / n if h is None else h for h, n in zip(self._plain.spacing, sizes, strict=True))

    def batch(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, C, *space) and targets (B, C', *space) of the members, in the order asked for.

        Raises:
            InputError: no such member, or a number that is not finite (variable and member are named).
        """
        import numpy as np

        asked = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        if asked.ndim != 1 or asked.size == 0 or asked.min() < -len(self) or asked.max() >= len(self):
            raise InputError(
                f"members {asked.tolist()[:8]} are not all among the {len(self)} there are; use 0 to {len(self) - 1}."
            )
        asked = asked % len(self)
        positions = self._positions[asked]
        unique, back = np.unique(positions, return_inverse=True)  # files are read forwards and once
        found = []
        for values, names in zip(self._source.read(unique), self.channels, strict=True):
            _refuse(values, names, unique)
            found.append(torch.from_numpy(np.ascontiguousarray(values)).to(self.dtype)[torch.from_numpy(back)])
        return found[0], found[1]

    def take(self, indices: Sequence[int]) -> Samples:
        """The members with these indices as Samples of their own; nothing is read."""
        import numpy as np

        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise InputError(
                f"members up to {int(chosen.max())} were asked for and there are {len(self)}; ask for fewer."
            )
        return Samples(self._source, self._positions[chosen], self.groups[chosen], self._plain, self.dtype, self.recipe)

    def moments(self) -> tuple[Moments, Moments]:
        """Statistics per channel of inputs and targets, from one pass over all members (kept)."""
        if self._moments is None:
            found = (Moments(), Moments())
            first = self.batch([0])
            size = max(1, sum(part.numel() * part.element_size() for part in first))
            step = max(1, PIECE_BYTES // size)
            for start in range(0, len(self), step):
                for part, moments in zip(self.batch(range(start, min(start + step, len(self)))), found, strict=True):
                    moments.add(part)
            self._moments = found
        return self._moments

    def normalisers(self) -> tuple[Normaliser, Normaliser]:
        """Normalisers of inputs and targets, per channel."""
        inputs, targets = self.moments()
        return Normaliser.of_moments(inputs), Normaliser.of_moments(targets)

    @property
    def signature(self) -> Signature:
        """Names, channels, grid and ranges; the ranges need one pass over the members."""
        import dataclasses

        moments, names = self.moments()[0], self.channels[0]
        ranges: dict[str, tuple[float, float]] = {}
        for name, low, high in zip(names, moments.low.tolist(), moments.high.tolist(), strict=True):
            before = ranges.get(name, (low, high))
            ranges[name] = (min(before[0], low), max(before[1], high))
        return dataclasses.replace(self._plain, ranges=ranges)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_moments": None}


def pairs(
    data: xarray.Dataset,
    inputs: str | Sequence[str],
    targets: str | Sequence[str],
    *,
    dtype: torch.dtype = torch.float32,
) -> Samples:
    """Pairs of input and target fields of a data set, by name.

    Several names become channels in that order; so does an axis `channel`. A number (per member, or one for all,
    variable or attribute) becomes a constant channel; a field without `sample` is the same for all members.

    Args:
        data: variables with the axes `sample`, `channel` (optional) and axes of space.
        inputs: names of the fields that go in.
        targets: names of the fields that come out; each has `sample` and all axes of space. None given: the
            targets of a batch are (B, 0, *space).
        dtype: of the tensors; the file's own type is cast, bool included.

    Raises:
        InputError: a missing name (the nearest are shown), a time axis, complex numbers, axes that do not fit.
    """
    import numpy as np

    from sciml.training._columns import Pairs, column, recipe_of

    entering = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    leaving = (targets,) if isinstance(targets, str) else tuple(targets)
    if not entering:
        raise InputError("inputs= names at least one field, as in inputs='coefficient', targets='u'.")
    outgoing = [column(data, name, None) for name in leaving]
    space = max((found.space for found in outgoing or [column(data, name, None) for name in entering]), key=len)
    ingoing = [column(data, name, space) for name in entering]
    count = int(data.sizes.get("sample", 0))
    for found in outgoing:
        if not found.members or found.space != space:
            raise InputError(
                f"the target '{found.name}' has axes {tuple(found.array.dims)}; it needs {('sample', *space)}."
            )
    source = Pairs(ingoing, outgoing, space, tuple(int(data.sizes[axis]) for axis in space))
    kinds, extent, spacing = geometry(data, space)
    channels = {found.name: found.channels for found in (*ingoing, *outgoing)}
    signature = Signature(entering, leaving, space, kinds, extent, spacing, channels)
    return Samples(source, np.arange(count), np.arange(count), signature, dtype, recipe_of(data))


def windows(
    data: xarray.DataArray, history: int = 1, horizon: int = 1, *, dtype: torch.dtype = torch.float32
) -> Samples:
    """All windows of consecutive frames of the trajectories: `history` frames go in, the next `horizon` come out.

    Args:
        data: (sample, time, [channel,] *space), in any order; without `sample` it is one trajectory.
        history: frames that go in, as channels (all channels of the first frame, then of the next).
        horizon: frames that come out, likewise.
        dtype: of the tensors.

    Returns:
        Samples with (time - history - horizon + 1) members per trajectory; `groups` says which trajectory.

    Raises:
        InputError: no time axis, too few frames, frames that are not evenly spaced in time.
    """
    import numpy as np

    from sciml.training._columns import Windows, recipe_of, time_spacing

    if not hasattr(data, "dims") or not hasattr(data, "name"):
        raise InputError("windows() takes one variable, as in sciml.windows(movies.u, history=1, horizon=1).")
    name = str(data.name or "u")
    if "time" not in data.dims:
        raise InputError(f"'{name}' has axes {tuple(data.dims)} and no 'time'; windows need (sample, time, x).")
    if int(history) < 1 or int(horizon) < 1:
        raise InputError(f"history={history} and horizon={horizon} must be at least 1.")
    frames = int(data.sizes["time"])
    per = frames - history - horizon + 1
    if per < 1:
        raise InputError(
            f"'{name}' has {frames} frames and a window needs {history + horizon}; shorten history or horizon."
        )
    source = Windows(data, name, history, horizon)
    count = int(data.sizes.get("sample", 1))
    kinds, extent, spacing = geometry(data, source.space)
    signature = Signature(
        (name,), (name,), source.space, kinds, extent, spacing, {name: int(data.sizes.get("channel", 1))},
        time_spacing(data, name), history, horizon,
    )  # fmt: skip
    return Samples(source, np.arange(count * per), np.repeat(np.arange(count), per), signature, dtype, recipe_of(data))


def _refuse(values: numpy.ndarray[Any, Any], names: Sequence[str], members: numpy.ndarray[Any, Any]) -> None:
    """Raise InputError naming variable and member of the first number that is not finite."""
    import numpy as np

    finite = np.isfinite(values)
    if not finite.all():
        row, channel = (int(index) for index in np.argwhere(~finite)[0][:2])
        raise InputError(
            f"variable '{names[channel]}' has numbers that are not finite in member {int(members[row])}; "
            "repair that member or leave it out."
        )


def split(data: Data, counts: Sequence[int | float], seed: int = 0) -> tuple[Data, ...]:
    """Deal members out at random to disjoint parts, as in `train, val, test = split(data, (1000, 100, 100))`.

    Args:
        data: a data set or variable with the axis `sample`, or Samples. Windows of one trajectory stay together, and
            counts then count trajectories.
        counts: whole numbers of members, or fractions that add up to at most 1.
        seed: the same seed gives the same parts.

    Returns:
        One object like `data` per count, members in the order of the file; nothing is read.

    Raises:
        InputError: more members are asked for than there are, or a part would be empty.
    """
    import numpy as np

    if isinstance(data, Samples):
        names, places = np.unique(data.groups, return_inverse=True)
        total = len(names)
    elif "sample" in getattr(data, "sizes", {}):
        total = int(data.sizes["sample"])
    else:
        raise InputError("split() needs data with an axis 'sample'; name the axes with dims= when opening the file.")
    sizes = _sizes(list(counts), total)
    order = np.random.default_rng(seed).permutation(total)
    parts: list[Any] = []
    start = 0
    for size in sizes:
        chosen = np.sort(order[start : start + size])
        start += size
        if isinstance(data, Samples):
            parts.append(data.take(np.flatnonzero(np.isin(places, chosen)).tolist()))
        else:
            parts.append(data.isel(sample=chosen))
    return tuple(parts)


def _sizes(counts: list[int | float], total: int) -> list[int]:
    if not counts:
        raise InputError("split() needs at least one count, as in (1000, 100, 100).")
    if all(isinstance(count, int) and not isinstance(count, bool) for count in counts):
        sizes = [int(count) for count in counts]
    elif all(isinstance(count, float) and 0 < count <= 1 for count in counts) and sum(counts) <= 1 + 1e-9:
        edges = [round(total * min(1.0, sum(counts[:index]))) for index in range(len(counts) + 1)]
        sizes = [after - before for before, after in zip(edges, edges[1:], strict=False)]
    else:
        raise InputError(f"counts {tuple(counts)} must be whole numbers, or fractions that add up to at most 1.")
    if sum(sizes) > total:
        raise InputError(f"counts {tuple(counts)} ask for {sum(sizes)} members and there are {total}; ask for fewer.")
    if min(sizes) < 1:
        raise InputError(f"counts {tuple(counts)} of {total} members leave a part empty; every part needs one.")
    return sizes
