"""What a detector and a beam add to every scan: a level that drifts from view to view, stripes that make rings.

Plain numpy on one slice of line integrals, ``(view, bin)``. Both corrections look at the data alone.
"""

from __future__ import annotations

from typing import Any

__all__ = ["level", "unstriped"]


def level(integrals: Any, share: float = 0.08) -> Any:
    """The integrals less a straight line per view through the air at both ends of the detector.

    Air integrates to zero; what is measured there is the drift of the beam since the open frames. The air is the outermost
    ``share`` of the bins at either end, if their mean over the views is flat to within a twentieth of the largest integral:
    otherwise the object reaches to the end and nothing is subtracted. NaN (bad pixels) is left out.
    """
    import numpy as np

    count = integrals.shape[1]
    some = max(3, round(share * count))
    if 2 * some >= count:
        return integrals
    left, right = integrals[:, :some], integrals[:, -some:]
    if max(abs(float(np.nanmedian(left))), abs(float(np.nanmedian(right)))) > 0.05 * float(np.nanmax(integrals)):
        return integrals
    a, b = np.nanmean(left, 1, keepdims=True), np.nanmean(right, 1, keepdims=True)
    at = (np.arange(count) - (some - 1) / 2) / (count - some)
    return integrals - (a + (b - a) * at)


def unstriped(integrals: Any, width: int = 21) -> Any:
    """The integrals less an offset per bin: the median over the views of what sticks out along the bins.

    A bin whose open frame is off by a factor is off by a constant in every line integral, which back-projects to a ring.
    Edges of the object move from view to view, so the median over the views of ``p - median of p over width bins`` keeps
    the constant alone (in the manner of Rivers, 1998, who took means). It fails for an object that is itself round about
    the axis, and does nothing with fewer than 16 views.
    """
    import numpy as np
    from scipy.ndimage import median_filter

    if len(integrals) < 16:
        return integrals
    filled = np.where(np.isfinite(integrals), integrals, 0.0)
    smooth = median_filter(filled, size=(1, width), mode="nearest")
    offset = np.nanmedian(np.where(np.isfinite(integrals), filled - smooth, np.nan), axis=0, keepdims=True)
    return integrals - np.nan_to_num(offset)
