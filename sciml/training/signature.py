"""What a fit was trained on, in a form that can be stored, compared and said in a sentence."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sciml.domains.errors import InputError

if TYPE_CHECKING:
    import xarray

    from sciml.domains.grid import Grid

__all__ = ["Signature", "geometry", "kinds_of"]

KINDS = ("periodic", "closed", "interior", "mixed", "other", "unknown")
NODES = ("neumann", "robin")


@dataclass(frozen=True)
class Signature:
    """Names, channels and grid of the fields that go in and come out.

    Args:
        inputs: names of the fields that go in, in the order of their channels.
        targets: names of the fields that come out.
        channels: channels of every name, in one frame.
        dims: names of the axes of space.
        grid: kind of every axis. `periodic`; `closed`, both boundary points are grid points; `interior`, neither is;
            `mixed`, one of them; `other`, the points do not fit the sides (a crop, a stride that misses a side);
            `unknown`, the data do not say.
        extent: length of the domain along every axis, None where unknown.
        spacing: distance of neighbouring points, None where unknown; it may differ between data that match.
        time_spacing: time from one frame to the next for windows, otherwise None.
        history: frames that go in for windows, otherwise 0.
        horizon: frames that come out for windows, otherwise 0.
        ranges: smallest and largest value of every input.
    """

    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    dims: tuple[str, ...]
    grid: tuple[str, ...]
    extent: tuple[float | None, ...]
    spacing: tuple[float | None, ...]
    channels: Mapping[str, int] = field(default_factory=dict, hash=False)
    time_spacing: float | None = None
    history: int = 0
    horizon: int = 0
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)

    @property
    def labels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The name behind every channel that goes in and behind every one that comes out, frame after frame."""
        entering = tuple(name for name in self.inputs for _ in range(self.channels.get(name, 1)))
        leaving = tuple(name for name in self.targets for _ in range(self.channels.get(name, 1)))
        return entering * max(self.history, 1), leaving * max(self.horizon, 1)

    @property
    def in_channels(self) -> int:
        """Channels that go in."""
        return len(self.labels[0])

    @property
    def out_channels(self) -> int:
        """Channels that come out."""
        return len(self.labels[1])

    @classmethod
    def of_grid(
        cls,
        grid: Grid,
        inputs: Sequence[str],
        targets: Sequence[str],
        channels: Mapping[str, int] | None = None,
        *,
        time_spacing: float | None = None,
        history: int = 0,
        horizon: int = 0,
    ) -> Signature:
        """The signature of fields on a grid, to be compared with that of a fit; `channels` defaults to one each."""
        return cls(
            tuple(inputs), tuple(targets), tuple("xyz"[: grid.dim]), kinds_of(grid.kinds()), tuple(grid.extent),
            tuple(grid.spacing), dict(channels or {}), time_spacing, history, horizon,
        )  # fmt: skip

    def mismatch(self, other: Signature) -> str | None:
        """Why data with the other signature do not suit a fit with this one: one sentence, or None when they do.

        Resolution is not compared when kind and extent agree; ranges and dtype are not compared; what one side does
        not know is not compared; data without targets are compared by their inputs.
        """
        for what, ours, theirs in (("inputs", self.inputs, other.inputs), ("targets", self.targets, other.targets)):
            if ours != theirs and (theirs or what == "inputs"):
                return f"it was trained with the {what} {_list(ours)} and is given {_list(theirs)}"
        for what, have, given in (
            ("input channels", self.in_channels, other.in_channels),
            ("output channels", self.out_channels, other.out_channels if other.targets else self.out_channels),
            ("axes of space", len(self.dims), len(other.dims)),
            ("frames that go in", self.history, other.history),
        ):
            if have != given:
                return f"it was trained with {have} {what} and is given {given}"
        for axis, ours_kind, their_kind in zip(self.dims, self.grid, other.grid, strict=True):
            if "unknown" not in (ours_kind, their_kind) and ours_kind != their_kind:
                return (
                    f"it was trained on a grid that is {ours_kind} along {axis} and is given one that is {their_kind}"
                )
        for axis, length, its in zip(self.dims, self.extent, other.extent, strict=True):
            if length is not None and its is not None and not math.isclose(length, its, rel_tol=1e-6):
                return f"it was trained on a domain of length {length:g} along {axis} and is given {its:g}"
        step, its_step = self.time_spacing, other.time_spacing
        if step is not None and its_step is not None and not math.isclose(step, its_step, rel_tol=1e-4):
            return f"it was trained on steps of {step:g} in time and is given {its_step:g}"
        return None

    def state(self) -> dict[str, Any]:
        """The signature as JSON values."""
        found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return found

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Signature:
        """The signature back from `state`.

        Raises:
            InputError: the values are not those of a signature.
        """
        try:
            plain = {name: tuple(value) if isinstance(value, list) else value for name, value in state.items()}
            plain["ranges"] = {str(name): (float(low), float(high)) for name, (low, high) in state["ranges"].items()}
            plain["channels"] = {str(name): int(count) for name, count in state["channels"].items()}
            return cls(**cast(Any, plain))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"the signature is damaged ({error}); train the network again.") from error

    def to_json(self) -> str:
        """The signature as text."""
        return json.dumps(self.state(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Signature:
        """The signature from text.

        Raises:
            InputError: the text is not a signature.
        """
        try:
            found = json.loads(text)
        except ValueError as error:
            raise InputError(f"the signature is damaged ({error}); train the network again.") from error
        return cls.restore(found)


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"


def kinds_of(sides: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The kind of every axis from the names of the conditions on its two sides."""
    found = []
    for lower, upper in sides:
        nodes = (lower in NODES) + (upper in NODES)
        found.append("periodic" if lower == "periodic" else ("interior", "mixed", "closed")[nodes])
    return tuple(found)


def geometry(
    data: xarray.Dataset | xarray.DataArray, space: Sequence[str]
) -> tuple[tuple[str, ...], tuple[float | None, ...], tuple[float | None, ...]]:
    """Kind, extent and spacing along the axes of space, from the `grid` attribute and the coordinates."""
    text = data.attrs.get("grid")
    known: dict[str, Any] = {}
    try:
        known = json.loads(text) if isinstance(text, str) else {}
        sides = kinds_of(known.get("sides", ()))
        extents = [float(length) for length in known.get("extent", ())]
        origins = [float(start) for start in known.get("origin", [0.0] * len(extents))]
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"the attribute 'grid' is damaged ({error}); generate the data again or delete it.") from error
    kinds: list[str] = []
    lengths: list[float | None] = []
    steps: list[float | None] = []
    for axis in space:
        place = "xyz".find(axis) if len(axis) == 1 else -1
        kind, extent, origin = "unknown", None, 0.0
        if 0 <= place < min(len(sides), len(extents), len(origins)):
            kind, extent, origin = sides[place], extents[place], origins[place]
        points = data.coords[axis].values.astype(float) if axis in data.coords else None
        step = None
        if points is not None and points.ndim == 1 and points.size > 1:
            step = float((points[-1] - points[0]) / (points.size - 1))
            if extent is not None:
                kind = kind if _fits(kind, points[0] - origin, origin + extent - points[-1], step) else "other"
        elif extent is not None and points is None:
            size = int(data.sizes[axis])
            gaps = {"periodic": size, "closed": size - 1, "interior": size + 1, "mixed": size}[kind]
            step = extent / gaps if gaps else None
        kinds.append(kind)
        lengths.append(extent)
        steps.append(step)
    return tuple(kinds), tuple(lengths), tuple(steps)


def _fits(kind: str, lower: float, upper: float, step: float) -> bool:
    """Whether the gaps between the outer points and the sides are those of the kind (to a thousandth of a step)."""
    gaps = (lower / step, upper / step)
    wanted = {
        "periodic": [(0.0, 1.0)],
        "closed": [(0.0, 0.0)],
        "interior": [(1.0, 1.0)],
        "mixed": [(0.0, 1.0), (1.0, 0.0)],
    }
    return any(all(abs(a - b) < 1e-3 for a, b in zip(gaps, pair, strict=True)) for pair in wanted[kind])
