"""What a detector and a beam add to every scan: a level that drifts from view to view, stripes that make rings.

Plain numpy on one slice of line integrals, ``(view, bin)``. Both corrections look at the data alone; NaN (bad pixels) stays NaN
and takes no part.
"""

from __future__ import annotations

from typing import Any

__all__ = ["level", "unstriped"]


def level(integrals: Any, share: float = 0.08) -> Any:
    """The integrals less a straight line per view through the air at both ends of the detector.

    Air integrates to zero; what is measured there is the drift of the beam since the open frames. The air is the outermost
    ``share`` of the bins at either end, dead bins (NaN in every view) not counted, if their median is within a twentieth of the
    largest integral: otherwise the object reaches to the end and nothing is subtracted. Nothing is subtracted from a
    view of which no air was measured at one end.
    """
    import numpy as np

    known = np.isfinite(integrals)
    alive = np.flatnonzero(known.any(0))
    some = max(3, round(share * len(alive)))
    if 2 * some >= len(alive):
        return integrals
    ends = (alive[:some], alive[-some:])
    air = max(abs(float(np.median(integrals[:, at][known[:, at]]))) for at in ends)
    if air > 0.05 * float(integrals[known].max()):
        return integrals
    (a, left, some_left), (b, right, some_right) = (_mean(integrals[:, at], known[:, at], at) for at in ends)
    both = some_left & some_right
    slope = np.where(both, b - a, 0.0) / np.where(both, right - left, 1.0)
    return integrals - np.where(both, a + slope * (np.arange(integrals.shape[1]) - left), 0.0)


def _mean(values: Any, known: Any, at: Any) -> tuple[Any, Any, Any]:
    """Per row the mean of what is known and of where it is, and whether anything is; columns."""
    import numpy as np

    count = known.sum(1, keepdims=True)
    over = np.maximum(count, 1)
    return (
        np.where(known, values, 0.0).sum(1, keepdims=True) / over,
        (known * at).sum(1, keepdims=True) / over,
        count > 0,
    )


def unstriped(integrals: Any, width: int = 21) -> Any:
    """The integrals less an offset per bin: the median over the views of what sticks out along the bins.

    A bin whose open frame is off by a factor is off by a constant in every line integral, which back-projects to a ring.
    Edges of the object move from view to view, so the median over the views of ``p - median of p over width bins`` keeps
    the constant alone (in the manner of Rivers, 1998, who took means). Bad pixels are bridged along the bins. It fails for an
    object that is itself round about the axis, and does nothing with fewer than 16 views.
    """
    import numpy as np
    from scipy.ndimage import median_filter

    if len(integrals) < 16:
        return integrals
    known = np.isfinite(integrals)
    at = np.arange(integrals.shape[1])
    filled = np.where(known, integrals, 0.0)
    for view in np.flatnonzero(~known.all(1) & known.any(1)):
        filled[view] = np.interp(at, at[known[view]], integrals[view][known[view]])
    above = np.where(known, filled - median_filter(filled, size=(1, width), mode="nearest"), np.nan)
    above[:, ~known.any(0)] = 0.0
    return integrals - np.nanmedian(above, axis=0, keepdims=True)
