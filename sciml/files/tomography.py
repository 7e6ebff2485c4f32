"""From counts to line integrals, with the variance that counting statistics give them.

With `D` and `W` the averaged dark and white frames, `w = W - D` and `s = counts - D`, the line integral is
`p = -log(s / w)`. A detector of gain `g` (counts per detected quantum) and read-out variance `r2` has
`var(counts) = g s + r2`; linearising the logarithm (`n_w` white and `n_d` dark frames),

    var(p) = (g s + r2) / s^2  +  (g w + r2) / (n_w w^2)  +  (r2 / n_d) (1/s - 1/w)^2 .

The first term is independent in every view; the other two belong to the averaged frames and so are one common error of a
bin in all views (a ring in the image). `g` is the median over the detector of `(var(white) - var(dark)) / w`, `r2` the
median of `var(dark)`, both divided by the median of chi-square over its degrees of freedom, so that they estimate the
mean and dead or hot pixels do not count; each white frame is first scaled to the same total, because the beam flickers.
Averaging neighbouring pixels or scaling the counts changes `g` and nothing else. What counting does not explain
(flicker between views, a beam that moves) is not in the variance: compare with `air_ratio`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

__all__ = ["Transmission", "air_ratio", "bad_pixels"]


@dataclass(frozen=True)
class Transmission:
    """Averaged frames of one detector, (row, bin), and its counting statistics.

    Attributes:
        white, dark: averaged frames.
        whites, darks: how many frames were averaged.
        gain: counts per quantum. read: variance of the read-out, counts^2.
        told: how the gain was found, in words.
    """

    white: numpy.ndarray[Any, Any]
    dark: numpy.ndarray[Any, Any]
    whites: int
    darks: int
    gain: float
    read: float
    told: str

    @staticmethod
    def of(whites: Any, darks: Any) -> Transmission:
        """From all frames, (frame, row, bin). One white frame cannot tell the gain: 1 is assumed and `told` says so."""
        import numpy as np

        whites, darks = np.asarray(whites, dtype=float), np.asarray(darks, dtype=float)
        white, dark = whites.mean(0), darks.mean(0)
        good = np.isfinite(white) & np.isfinite(dark) & (white > dark)
        read = _spread(darks[:, good]) if len(darks) > 1 and good.any() else 0.0
        gain, told = 1.0, "assumed 1 count per quantum: it takes two white frames that differ to estimate it"
        if len(whites) > 1 and good.any():
            totals = (whites - dark)[:, good].mean(1)
            if (totals > 0).all():
                even = (whites - dark)[:, good] * (totals.mean() / totals)[:, None]
                noise = even.var(0, ddof=1) - (darks[:, good].var(0, ddof=1) if len(darks) > 1 else 0.0)
                found = float(np.median(noise / (white - dark)[good])) / _median_share(len(whites) - 1)
                if found > 0:
                    gain, told = (
                        found,
                        f"variance over mean of {len(whites)} white frames, median of {good.sum()} pixels",
                    )
        return Transmission(white, dark, len(whites), len(darks), gain, read, told)

    def rows(self, picks: Any) -> Transmission:
        """The same for some rows of the detector."""
        from dataclasses import replace

        return replace(self, white=self.white[picks], dark=self.dark[picks])

    def measured(self, counts: Any) -> Any:
        """Where (view, row, bin) counts say something: finite, above the dark frame, on pixels that see the beam."""
        import numpy as np

        with np.errstate(invalid="ignore"):
            alive = np.isfinite(self.white) & np.isfinite(self.dark) & (self.white > self.dark)
            return np.isfinite(counts) & (counts > self.dark) & alive

    def integrals(self, counts: Any) -> Any:
        """`-log((counts - dark) / (white - dark))`; NaN where nothing was measured."""
        import numpy as np

        with np.errstate(invalid="ignore", divide="ignore"):
            value = -np.log((counts - self.dark) / (self.white - self.dark))
        return np.where(self.measured(counts), value, np.nan)

    def own_variance(self, counts: Any) -> Any:
        """The part of the variance that is independent in every view, `(g s + r2) / s^2`; infinite where not measured."""
        import numpy as np

        with np.errstate(invalid="ignore", divide="ignore"):
            signal = np.asarray(counts, dtype=float) - self.dark
            value = (self.gain * signal + self.read) / signal**2
        return np.where(self.measured(counts), value, np.inf)

    def variance(self, counts: Any) -> Any:
        """The whole formula of this file; infinite where nothing was measured: no information."""
        import numpy as np

        with np.errstate(invalid="ignore", divide="ignore"):
            signal, beam = np.asarray(counts, dtype=float) - self.dark, self.white - self.dark
            frames = (self.gain * beam + self.read) / (self.whites * beam**2)
            frames = frames + self.read / self.darks * (1 / signal - 1 / beam) ** 2
        return self.own_variance(counts) + np.where(self.measured(counts), frames, 0.0)


def _median_share(freedom: int) -> float:
    """The median of chi-square with so many degrees of freedom, over its mean."""
    from scipy.special import gammaincinv

    return float(gammaincinv(freedom / 2, 0.5)) * 2 / freedom


def _spread(frames: Any) -> float:
    """Variance of repeated frames (frame, pixel): the median over pixels, made to estimate the mean."""
    import numpy as np

    return float(np.median(frames.var(0, ddof=1))) / _median_share(len(frames) - 1)


def air_ratio(integrals: Any, own: Any, edges: tuple[int, int]) -> tuple[float, float]:
    """Noise found in the air beside the object over the predicted variance: over the scan, and between successive views.

    Args:
        integrals: (view, bin) line integrals; own: their variance without the averaged frames' share.
        edges: first and one past the last bin of the shadow.

    The first number is the sample variance of a bin over the views, in which the error of the averaged frames is
    constant, over the predicted one; the second takes half the squared difference of successive views (von Neumann) for
    it, which slow drift does not enter. Both are 1 when counting explains the noise; a first number above a second that
    is 1 means that the beam drifts or moves.
    """
    import numpy as np

    bins = np.arange(integrals.shape[1])
    outside = (bins < edges[0]) | (bins >= edges[1])
    outside &= np.isfinite(integrals).all(axis=0)
    if len(integrals) < 3 or not outside.any():
        return float("nan"), float("nan")
    seen, predicted = integrals[:, outside], own[:, outside].mean()
    return (
        float(seen.var(0, ddof=1).mean() / predicted),
        float((np.diff(seen, axis=0) ** 2).mean() / 2 / predicted),
    )


def bad_pixels(
    dead: Sequence[tuple[int, int]], single: Sequence[tuple[int, int, int]], views: int, more: int = 0
) -> str:
    """How many measurements are missing and where: "none", or "3: slice 0 view 4 bin 17, ...".

    Args:
        dead: (slice, bin) that are missing in all of `views`.
        single: (slice, view, bin) of the first others; `more` of them are not listed.
    """
    count = len(dead) * views + len(single) + more
    if not count:
        return "none"
    named = [f"slice {row} bin {place} in all views" for row, place in dead]
    named += [f"slice {row} view {view} bin {place}" for row, view, place in single]
    return f"{count}: " + ", ".join([*named[:8], *(["..."] if len(named) > 8 or more else [])])
