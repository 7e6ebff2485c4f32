"""Whether a tensor that a prior holds goes with the images of a space."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["broadcasts"]


def broadcasts(shape: Sequence[int], image: Sequence[int]) -> bool:
    """Whether a tensor of this shape broadcasts against images ``(1, *image)`` without changing their shape."""
    whole = (1, *image)
    pairs = zip(reversed(shape), reversed(whole), strict=False)
    return len(shape) <= len(whole) and all(m in (1, n) for m, n in pairs)
