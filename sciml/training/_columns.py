"""How pairs and windows read their members: numpy arrays (member, channel, *space) from lazy variables."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sciml.domains.errors import InputError
from sciml.files.axes import SPACE, nearest, scalar

if TYPE_CHECKING:
    import numpy
    import xarray

SPECIAL = ("sample", "time", "channel")


@dataclass(frozen=True)
class Column:
    """One named field: its variable, whether it has members, its axes of space and its number of channels."""

    name: str
    array: xarray.DataArray
    members: bool
    space: tuple[str, ...]
    channels: int

    def read(self, positions: Any, space: Sequence[str], shape: Sequence[int]) -> Any:
        """(member, channel, *space), broadcast over the axes that the field lacks."""
        import numpy as np

        found = self.array.isel(sample=positions) if self.members else self.array
        order = [axis for axis in ("sample", "channel", *space) if axis in found.dims]
        values = np.transpose(np.asarray(found.values), [found.dims.index(axis) for axis in order])
        sizes = [found.sizes.get(axis, 1) for axis in ("sample", "channel", *space)]
        return np.broadcast_to(values.reshape(sizes), [len(positions), self.channels, *shape])


def column(data: xarray.Dataset, name: str, space: Sequence[str] | None) -> Column:
    """The field with that name; `space` limits its axes, None takes them from the field itself.

    Raises:
        InputError: missing, complex, with a time axis, or with axes outside `space`.
    """
    import xarray

    if not isinstance(data, xarray.Dataset):
        raise InputError(
            f"a data set with named variables is needed, not {type(data).__name__}; see sciml.open_dataset."
        )
    if name in data.data_vars:
        array = data[name]
    elif (number := scalar(data.attrs.get(name))) is not None:
        array = xarray.DataArray(number)
    else:
        raise InputError(
            f"the data have no variable '{name}'; {nearest(name, [str(known) for known in data.data_vars])}."
        )
    if "time" in array.dims:
        if array.sizes["time"] != 1:
            raise InputError(
                f"'{name}' has a time axis of {array.sizes['time']}; cut steps with sciml.windows(data.{name}), "
                "or keep one time, as in data.isel(time=[-1])."
            )
        array = array.isel(time=0, drop=True)
    if array.dtype.kind == "c":
        raise InputError(f"'{name}' is complex; give its real and imaginary part as two variables.")
    if array.dtype.kind not in "fiub":
        raise InputError(f"'{name}' holds {array.dtype}, not numbers; leave it out.")
    own = space_of(array)
    if space is not None:
        foreign = [axis for axis in own if axis not in space]
        if foreign and space:
            raise InputError(f"'{name}' has the axis '{foreign[0]}' and the targets have {tuple(space)}; use one grid.")
        own = tuple(axis for axis in space if axis in own)
    channels = int(array.sizes.get("channel", 1))
    return Column(name, array, "sample" in array.dims, own, channels)


def space_of(array: xarray.DataArray) -> tuple[str, ...]:
    """The axes of space: x, y, z in this order, then any others in theirs."""
    own = [str(axis) for axis in array.dims if axis not in SPECIAL]
    return tuple([axis for axis in SPACE if axis in own] + [axis for axis in own if axis not in SPACE])


class Pairs:
    """Input and target columns of a data set on one grid."""

    def __init__(
        self, inputs: Sequence[Column], targets: Sequence[Column], space: tuple[str, ...], shape: tuple[int, ...]
    ) -> None:
        self.inputs, self.targets, self.space, self.shape = tuple(inputs), tuple(targets), space, shape
        self.channels = (_names(self.inputs), _names(self.targets))

    def read(self, positions: numpy.ndarray[Any, Any]) -> tuple[Any, Any]:
        """Inputs and targets of the members at these positions."""
        import numpy as np

        inputs, targets = (
            np.concatenate([found.read(positions, self.space, self.shape) for found in columns], axis=1)
            if columns
            else np.zeros((len(positions), 0, *self.shape), dtype=np.float32)
            for columns in (self.inputs, self.targets)
        )
        return inputs, targets


def _names(columns: Sequence[Column]) -> tuple[str, ...]:
    return tuple(found.name for found in columns for _ in range(found.channels))


class Windows:
    """Windows of consecutive frames of one variable; position = trajectory * windows per trajectory + first frame."""

    def __init__(self, data: xarray.DataArray, name: str, history: int, horizon: int) -> None:
        if data.dtype.kind not in "fiub":
            raise InputError(f"'{name}' holds {data.dtype}; windows need real numbers.")
        self.data = data if "sample" in data.dims else data.expand_dims("sample")
        self.space = space_of(data)
        self.shape = tuple(int(data.sizes[axis]) for axis in self.space)
        self.history, self.length = history, history + horizon
        self.per = int(data.sizes["time"]) - self.length + 1
        each = int(data.sizes.get("channel", 1))
        self.channels = ((name,) * (history * each), (name,) * (horizon * each))

    def read(self, positions: numpy.ndarray[Any, Any]) -> tuple[Any, Any]:
        """Frames that go in and frames that come out, as channels; each trajectory or window is read once."""
        import numpy as np

        members, firsts = np.divmod(positions, self.per)
        trajectories, rows = np.unique(members, return_inverse=True)
        if len(positions) * self.length >= len(trajectories) * int(self.data.sizes["time"]):
            whole = self._values(self.data.isel(sample=trajectories))
            frames = whole[rows[:, None], firsts[:, None] + np.arange(self.length)]
        else:
            cuts = zip(members.tolist(), firsts.tolist(), strict=True)
            pieces = [self.data.isel(sample=[m], time=slice(t, t + self.length)) for m, t in cuts]
            frames = np.concatenate([self._values(piece) for piece in pieces])
        shape = (len(positions), -1, *frames.shape[3:])
        return frames[:, : self.history].reshape(shape), frames[:, self.history :].reshape(shape)

    def _values(self, piece: xarray.DataArray) -> Any:
        """(sample, time, channel, *space)."""
        import numpy as np

        order = [axis for axis in ("sample", "time", "channel", *self.space) if axis in piece.dims]
        values = np.transpose(np.asarray(piece.values), [piece.dims.index(axis) for axis in order])
        return values if "channel" in piece.dims else values[:, :, None]


def time_spacing(data: xarray.DataArray, name: str) -> float | None:
    """The time between frames, None when the data do not say.

    Raises:
        InputError: the frames are not evenly spaced (to 1e-3 of a step: times are often stored in float32).
    """
    import numpy as np

    if "time" not in data.coords or data.coords["time"].dtype.kind not in "fiu":
        return None
    steps = np.diff(np.asarray(data.coords["time"].values, dtype=float))
    mean = float(steps.mean())
    if not math.isfinite(mean) or mean <= 0 or float(np.abs(steps - mean).max()) > 1e-3 * mean:
        raise InputError(
            f"the frames of '{name}' are not evenly spaced in time; keep those that are with isel(time=...)."
        )
    return mean


def recipe_of(data: xarray.Dataset | xarray.DataArray) -> Any:
    """How the data were made: the `recipe` attribute, as JSON values when it is JSON."""
    found = data.attrs.get("recipe")
    try:
        return json.loads(found) if isinstance(found, str) else None
    except ValueError:
        return found
