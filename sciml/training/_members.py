"""The members a run works on, kept in memory when they fit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.training.samples import Samples

__all__ = ["Members"]

KEPT_BYTES = 2 * 1024**3  # members up to this size are kept in memory
CHUNK_BYTES = 64 * 1024**2  # read at once


class Members:
    """All members of `samples`, read once: kept if they take at most 2 GiB, otherwise read again batch by batch.

    `digest` identifies their values (SHA-256, shortened); `bytes` is their size.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        if not len(samples):
            raise InputError("there are no members to train or to validate on; give at least one of each.")
        size = sum(part.numel() * part.element_size() for part in samples.batch([0]))
        self.bytes = size * len(samples)
        digest = hashlib.sha256()
        kept: list[tuple[Tensor, Tensor]] = []
        step = max(1, CHUNK_BYTES // size)
        for start in range(0, len(samples), step):
            pair = samples.batch(range(start, min(start + step, len(samples))))
            for part in pair:
                digest.update(part.contiguous().numpy().tobytes())
            if self.bytes <= KEPT_BYTES:
                kept.append(pair)
        self.kept = (torch.cat([a for a, _ in kept]), torch.cat([u for _, u in kept])) if kept else None
        self.digest = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets at the positions (a vector of whole numbers)."""
        if self.kept is not None:
            return self.kept[0][positions], self.kept[1][positions]
        return self.samples.batch(positions)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """All members, `size` at a time, in the given order."""
        positions = torch.arange(len(self)) if order is None else order
        for start in range(0, len(self), size):
            yield self.batch(positions[start : start + size])
