"""From data sets to trained networks: samples, losses, `fit`, and `generate` for new data sets."""

from __future__ import annotations

from sciml.training.fit import fit
from sciml.training.fitted import Fit, Score
from sciml.training.generate import generate
from sciml.training.samples import Normaliser, Samples, Signature, pairs, split, windows

__all__ = [
    "Fit", "Normaliser", "Samples", "Score", "Signature", "fit", "generate", "pairs", "split", "windows",
]  # fmt: skip
