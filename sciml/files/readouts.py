"""Readouts of a magnetic resonance scan, one after the other in a file.

A row has a head (counters, flags, number of samples and coils) and its samples (coil, sample). Heads are read at once,
samples only for what is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sciml.domains.errors import InputError

__all__ = ["COUNTERS", "LINES", "REVERSED", "ReadoutsAsTheyAre", "Rows", "lazily", "select"]

COUNTERS = ("slice", "repetition", "contrast", "phase", "set", "average")
"""Counters that become axes where they vary; the counter `segment` only says in which order lines were measured."""
LINES = ("kspace_encode_step_1", "kspace_encode_step_2")
"""Counters of ky and kz."""
LEFT_OUT = {
    20: "calibration",
    23: "navigator",
    24: "phase correction",
    26: "feedback",
    27: "dummy",
    28: "feedback",
    29: "coil correction",
    30: "phase stabilisation",
    31: "phase stabilisation",
}
"""Flags (numbered from 1) of rows that are no part of the image."""
NOISE, IMAGING_TOO, REVERSED = 19, 21, 22
NEEDED = (
    *("flags", "number_of_samples", "active_channels", "trajectory_dimensions", "center_sample", "idx"),
    *("discard_pre", "discard_post", "encoding_space_ref"),
)


@dataclass(frozen=True)
class Rows:
    """The heads of all rows, and where their samples are."""

    path: str
    name: str
    head: Any

    @staticmethod
    def of(path: str, name: str) -> Rows:
        """Read the heads.

        Raises:
            InputError: a field of the head is missing.
        """
        from sciml.files.lazy import open_hdf5

        with open_hdf5(path) as handle:
            stored = handle[name].dtype["head"]
            missing = [field for field in NEEDED if field not in (stored.names or ())]
            missing += [field for field in (*COUNTERS, *LINES) if not missing and field not in stored["idx"].names]
            if missing:
                raise InputError(
                    f"the heads in '{name}' of '{path}' lack {', '.join(missing)}; convert the scan to ISMRMRD version 1."
                )
            return Rows(path, name, handle[name].fields("head")[...])

    def flag(self, number: int) -> Any:
        """Which rows bear a flag, numbered from 1."""
        return (self.head["flags"] >> (number - 1)) & 1 == 1

    def counter(self, name: str) -> Any:
        """One counter of all rows."""
        return self.head["idx"][name].astype(int)

    def samples(self, index: int) -> Any:
        """Samples (coil, sample) of a row, complex64.

        Raises:
            InputError: their number is not what the head says.
        """
        return self.many([index])[0]

    def many(self, indices: Any) -> list[Any]:
        """Samples (coil, sample) of several rows."""
        import numpy as np

        found = []
        for index, row in self._read(indices):
            head = self.head[index]
            coils, length = int(head["active_channels"]), int(head["number_of_samples"])
            values = np.ascontiguousarray(row["data"], dtype=np.float32)
            if values.size != 2 * coils * length:
                raise InputError(
                    f"readout {index} of '{self.path}' has {values.size} numbers for {coils} coils and {length} complex "
                    "samples; copy or convert the scan again."
                )
            found.append(values.view(np.complex64).reshape(coils, length))
        return found

    def paths(self, indices: Any) -> list[Any]:
        """Trajectories (sample, component) of several rows."""
        import numpy as np

        found = []
        for index, row in self._read(indices):
            length, components = (
                int(self.head[index][name]) for name in ("number_of_samples", "trajectory_dimensions")
            )
            values = np.ascontiguousarray(row["traj"], dtype=np.float32)
            if values.size != length * components:
                raise InputError(
                    f"readout {index} of '{self.path}' has a trajectory of {values.size} numbers for {length} samples of "
                    f"{components} components; convert the scan again."
                )
            found.append(values.reshape(length, components))
        return found

    def _read(self, indices: Any) -> list[tuple[int, Any]]:
        import numpy as np

        from sciml.files.lazy import open_hdf5

        wanted = np.asarray(indices, dtype=int)
        with open_hdf5(self.path) as handle:
            if handle[self.name].shape != self.head.shape:
                raise InputError(f"'{self.name}' of '{self.path}' changed its length; open the data set again.")
            stored = handle[self.name]
            found: dict[int, Any] = {}
            for piece in np.split(np.unique(wanted), np.flatnonzero(np.diff(np.unique(wanted)) > 1) + 1):
                if piece.size:
                    found |= zip(piece.tolist(), stored[int(piece[0]) : int(piece[-1]) + 1], strict=True)
        return [(int(index), found[int(index)]) for index in wanted]


def select(rows: Rows) -> tuple[Any, Any, str]:
    """The rows of the image, those of noise, and a sentence about what is left out.

    Raises:
        InputError: there is no row of an image, or the rows of the image differ in coils or encoding.
    """
    import numpy as np

    noise = rows.flag(NOISE)
    dropped = np.zeros(noise.shape, dtype=bool)
    counts: dict[str, int] = {}
    for number, kind in LEFT_OUT.items():
        found = rows.flag(number) & ~noise & ~dropped
        if number == 20:
            found &= ~rows.flag(IMAGING_TOO)
        if found.any():
            counts[kind] = counts.get(kind, 0) + int(found.sum())
        dropped |= found
    kept = np.flatnonzero(~noise & ~dropped)
    if noise.any():
        counts["noise"] = int(noise.sum())
    if kept.size:
        first = int(rows.head["encoding_space_ref"][kept].min())
        other = rows.head["encoding_space_ref"][kept] != first
        if other.any():
            counts["another encoding"] = int(other.sum())
            kept = kept[~other]
    told = ", ".join(f"{count} of {kind}" for kind, count in counts.items())
    if not kept.size:
        raise InputError(f"'{rows.path}' holds no readout of an image, only {told}; give the file of the scan itself.")
    coils = np.unique(rows.head["active_channels"][kept])
    if coils.size > 1 or not coils[0]:
        raise InputError(f"the readouts of '{rows.path}' have {coils.tolist()} coils; convert the scan again.")
    if noise.any() and (rows.head["active_channels"][noise] != coils[0]).any():
        raise InputError(
            f"the noise scans of '{rows.path}' have other coils than its {coils[0]}; convert the scan again."
        )
    return kept, np.flatnonzero(noise), told


@dataclass(frozen=True)
class ReadoutsAsTheyAre:
    """Readouts of one length along their paths."""

    rows: Rows
    kept: Any
    coils: int
    length: int
    components: int

    @staticmethod
    def of(rows: Rows, kept: Any) -> ReadoutsAsTheyAre:
        """Check that all have one length and a path.

        Raises:
            InputError: they have not.
        """
        import numpy as np

        found = {}
        for name, told in (("number_of_samples", "samples"), ("trajectory_dimensions", "components of a trajectory")):
            sizes = np.unique(rows.head[name][kept])
            if sizes.size > 1 or not sizes[0]:
                raise InputError(
                    f"the readouts of '{rows.path}' have {sizes.tolist()} {told}; they must have one number, above zero."
                )
            found[name] = int(sizes[0])
        coils = int(rows.head["active_channels"][kept[0]])
        return ReadoutsAsTheyAre(rows, kept, coils, found["number_of_samples"], found["trajectory_dimensions"])

    def samples(self) -> Any:
        """Lazy (readout, coil, sample)."""
        return lazily(Signals(self), (len(self.kept), self.coils, self.length), "complex64")

    def path(self) -> Any:
        """Lazy (readout, sample, component)."""
        return lazily(Paths(self), (len(self.kept), self.length, self.components), "float32")


@dataclass(frozen=True)
class Signals:
    """Samples of some readouts."""

    readouts: ReadoutsAsTheyAre

    def __call__(self, picks: Any) -> Any:
        import numpy as np

        empty = np.zeros((0, self.readouts.coils, self.readouts.length), np.complex64)
        found = self.readouts.rows.many(self.readouts.kept[picks])
        return np.stack(found) if found else empty


@dataclass(frozen=True)
class Paths:
    """Trajectories of some readouts."""

    readouts: ReadoutsAsTheyAre

    def __call__(self, picks: Any) -> Any:
        import numpy as np

        empty = np.zeros((0, self.readouts.length, self.readouts.components), np.float32)
        found = self.readouts.rows.paths(self.readouts.kept[picks])
        return np.stack(found) if found else empty


def lazily(compute: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """An array for xarray whose slices along the first axis are computed when they are indexed."""
    from xarray.core import indexing

    from sciml.files.lazy import ComputedArray

    return indexing.LazilyIndexedArray(ComputedArray(compute, shape, dtype))
