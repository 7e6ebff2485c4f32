"""Where the axis of rotation of a parallel-beam scan projects to on the detector.

A parallel projection seen from the other side is its mirror image: `p(theta + pi, s) = p(theta, 2 c - s)`, with `c` the
position of the axis. Three estimates of `c` follow from it, all in bins relative to the middle of the detector.

- *Opposing views*: the shift between a view and the mirror image of the view nearest to its opposite. Where the two are
  not exactly opposite (a scan over [0, 180) degrees stops one step short), what the object moves in the remaining angle
  is taken from the shifts between neighbouring views and removed.
- *Double wedge* (Vo et al. 2014, doi:10.1364/OE.22.019078): the views and their mirror images make a whole turn, whose
  Fourier transform over angle (order `k`) and position (frequency `w`) vanishes where `|k| > R |w|`, `R` the radius of
  the object; the energy found there is smallest at the right `c`. Mirroring is complex conjugation of the spectra, so a
  trial position costs a phase and no interpolation.
- *First moment* (Helgason 1965, Ludwig 1966, doi:10.1002/cpa.3160190207): the centre of mass of a view is
  `c + a cos(theta) + b sin(theta)`; least squares over all views. It hangs on the level of the air around the object: an
  offset of one per cent of the mass moves it by one per cent of the distance from the axis to the middle of the detector.

The first two look at features and are averaged; the third is told beside them, and used alone where they do not apply
(less than half a turn).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from typing import Any

__all__ = ["RotationAxis", "air", "double_wedge", "filled", "find", "first_moment", "opposing_views"]

AIR = 0.05  # of the largest line integrals: bins that stay below it in 95 per cent of the views see air
FEWEST = 4  # air bins on either side


@dataclass(frozen=True)
class RotationAxis:
    """`centre` and `spread` (largest minus smallest of the estimates used) in bins; `method` says how, in words."""

    centre: float
    spread: float
    method: str


def find(sinograms: Any, angles: Any) -> RotationAxis:
    """The axis from some slices.

    Args:
        sinograms: (slice, view, bin) line integrals; NaN where nothing was measured.
        angles: (view,) in radians.

    Returns:
        The axis relative to the middle of the detector. Without any usable estimate the centre is 0 (the middle is
        assumed), the spread NaN, and `method` starts with "assumed".

    *Fails when* no slice has structure, the object moved during the scan, or it is larger than the detector and the
    scan covers less than half a turn.
    """
    import numpy as np

    found: dict[str, list[float]] = {"opposing views": [], "double wedge": [], "first moment": []}
    for sinogram in sinograms:
        p = filled(sinogram)
        if not np.ptp(p) > 0:
            continue
        sharp = opposing_views(p, angles)
        edges = air(p)
        if sharp is not None:
            found["opposing views"].append(sharp)
        if edges is None:
            continue
        level = without_air(p, edges)
        moment = first_moment(level, angles)
        if moment is not None:
            found["first moment"].append(moment)
        start = sharp if sharp is not None else moment
        if start is not None and (wedge := double_wedge(level, angles, edges, start)) is not None:
            found["double wedge"].append(wedge)
    sharp_ones = found["opposing views"] + found["double wedge"]
    used = sharp_ones or found["first moment"]
    if not used:
        return RotationAxis(0.0, float("nan"), "assumed: the middle of the detector, no estimate applies")
    medians = [float(np.median(found[name])) for name in ("opposing views", "double wedge") if found[name]]
    told = ", ".join(
        f"{name} {np.median(values):+.2f}" + ("" if values[0] in used else " (not used)")
        for name, values in found.items()
        if values
    )
    centre = float(np.mean(medians)) if medians else float(np.median(used))
    return RotationAxis(centre, float(np.ptp(used)), f"{told} bins from the middle, {len(sinograms)} slices")


def filled(sinogram: Any) -> Any:
    """A copy of a (view, bin) sinogram in which what was not measured is interpolated along the bins."""
    import numpy as np

    p = np.array(sinogram, dtype=float)
    bins = np.arange(p.shape[1])
    for row in p:
        good = np.isfinite(row)
        if not good.all():
            row[~good] = np.interp(bins[~good], bins[good], row[good]) if good.any() else 0.0
    return p


def air(p: Any) -> tuple[int, int] | None:
    """First and one past the last bin that the object's shadow reaches, or None when it leaves no air on a side."""
    import numpy as np

    high = np.quantile(p, 0.95, axis=0)
    shadow = np.flatnonzero(high > AIR * np.quantile(p, 0.99))
    if not shadow.size:
        return None
    margin = max(1, p.shape[1] // 64)
    low, up = int(shadow[0]) - margin, int(shadow[-1]) + 1 + margin
    return (low, up) if low >= FEWEST and p.shape[1] - up >= FEWEST else None


def without_air(p: Any, edges: tuple[int, int]) -> Any:
    """The sinogram less a straight line through the air on both sides of each view; zero outside the shadow."""
    import numpy as np

    bins = np.arange(p.shape[1])
    outside = (bins < edges[0]) | (bins >= edges[1])
    line = np.stack([np.ones(bins.size), bins - bins.mean()], axis=1)
    fit, *_ = np.linalg.lstsq(line[outside], p[:, outside].T, rcond=None)
    return np.where(outside, 0.0, p - (line @ fit).T)


def first_moment(p: Any, angles: Any) -> float | None:
    """`c` of `centre of mass = c + a cos(theta) + b sin(theta)` by least squares over the views of (view, bin)."""
    import numpy as np

    bins = np.arange(p.shape[1]) - (p.shape[1] - 1) / 2
    mass = p.sum(1)
    good = mass > 0.1 * np.median(mass)
    design = np.stack([np.ones(len(angles)), np.cos(angles), np.sin(angles)], axis=1)[good]
    if len(design) < 4 or not np.median(mass) > 0 or np.linalg.cond(design) > 100:
        return None
    fit, *_ = np.linalg.lstsq(design, (p[good] @ bins) / mass[good], rcond=None)
    return float(fit[0])


def opposing_views(p: Any, angles: Any, most: int = 12) -> float | None:
    """`c` from views of (view, bin) that lie opposite to each other within 1.5 steps of the scan; median over pairs."""
    import numpy as np
    from scipy.ndimage import gaussian_filter1d

    if len(angles) < 3:
        return None
    step = float(np.median(np.abs(np.diff(angles))))
    pairs = []
    for i in range(len(angles) - 1):
        gaps = (angles[i + 1 :] - angles[i]) % (2 * pi) - pi
        j = int(np.argmin(np.abs(gaps)))
        if abs(gaps[j]) <= 1.5 * step:
            pairs.append((i, i + 1 + j, float(gaps[j])))
    if not pairs:
        return None
    picks = np.unique(np.linspace(0, len(pairs) - 1, most).round().astype(int))
    smooth = gaussian_filter1d(p, 1.0, axis=1)  # noise else favours shifts by half a bin

    def speed(view: int) -> float:
        """Bins per radian that the features of a view move."""
        other = view - 1 if view else 1
        first, second = min(view, other), max(view, other)
        return _shift(smooth[first], smooth[second], p.shape[1] // 8) / float(angles[second] - angles[first])

    found = []
    for i, j, gap in (pairs[int(k)] for k in picks):
        moved = gap * (speed(j) - speed(i)) / 2 if abs(gap) > 0.02 * step else 0.0
        found.append(-(_shift(smooth[j], smooth[i][::-1], 3 * p.shape[1] // 4) + moved) / 2)
    return float(np.median(found))


def _shift(a: Any, b: Any, most: int) -> float:
    """The `t` at which `b(s)` looks most like `a(s - t)`: normalised correlation over the overlap, to a part of a bin."""
    import numpy as np
    from scipy.interpolate import CubicSpline

    n = len(a)

    def alike(x: Any, y: Any) -> float:
        x, y = x - x.mean(), y - y.mean()
        size = float(np.sqrt((x @ x) * (y @ y)))
        return float(x @ y) / size if size > 0 else -1.0

    most = max(1, min(most, n - 4))
    whole = [alike(a[max(0, -t) : n - max(0, t)], b[max(0, t) : n + min(0, t)]) for t in range(-most, most + 1)]
    start = int(np.argmax(whole)) - most
    spline = CubicSpline(np.arange(n), a)
    trials = start + np.linspace(-1.2, 1.2, 25)
    inside = slice(max(0, start) + 2, n + min(0, start) - 2)
    where = np.arange(n)[inside]
    return _top(trials, [alike(spline(where - t), b[inside]) for t in trials])


def _top(at: Any, values: Sequence[float]) -> float:
    """The highest point of the parabola through the largest of equally spaced values and its neighbours."""
    import numpy as np

    k = min(max(int(np.argmax(values)), 1), len(values) - 2)
    left, middle, right = values[k - 1 : k + 2]
    bend = left - 2 * middle + right
    part = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float(at[k] + (at[1] - at[0]) * min(max(part, -1.0), 1.0))


def double_wedge(p: Any, angles: Any, edges: tuple[int, int], start: float) -> float | None:
    """`c` near `start` that leaves least outside the double wedge; None unless equal steps divide half a turn.

    Args:
        p: (view, bin), zero outside the shadow.
        angles: (view,) in radians.
        edges: first and one past the last bin of the shadow.
        start: a first guess within about three bins.
    """
    import numpy as np

    steps = np.diff(angles)
    step = float(np.median(steps)) if steps.size else 0.0
    if not step or np.abs(steps - step).max() > 0.05 * abs(step):
        return None
    count = round(pi / abs(step))
    if count < 8 or count > len(angles) or abs(count * abs(step) - pi) > 0.1 * abs(step):
        return None
    bins = p.shape[1]
    middle = (bins - 1) / 2
    frequency = 2 * pi * np.fft.rfftfreq(2 * bins)
    spectra = np.fft.rfft(p[:count], 2 * bins, axis=1)
    radius = max(edges[1] - 1 - middle - start, middle + start - edges[0])
    order = np.abs(np.fft.fftfreq(2 * count, 1 / (2 * count)))
    outside = order[:, None] > 1.1 * radius * frequency[None] + 4
    columns = outside.any(axis=0)
    outside, frequency, spectra = outside[:, columns], frequency[columns], spectra[:, columns]
    # the transform over the turn is A exp(i w c) + B exp(-i w c): its energy needs the two only once
    near = np.fft.fft(spectra, 2 * count, axis=0)
    far = np.fft.fft(spectra.conj(), 2 * count, axis=0) * np.where(np.arange(2 * count) % 2, -1.0, 1.0)[:, None]
    product = np.where(outside, near * far.conj(), 0.0).sum(axis=0)
    trials = start + np.arange(-3.0, 3.01, 0.25)
    return _top(trials, [-float((product * np.exp(2j * frequency * (middle + c))).real.sum()) for c in trials])
