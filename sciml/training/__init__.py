"""From data sets to trained networks: samples, losses, `fit`, and `generate` for new data sets."""

from __future__ import annotations

from sciml.training.samples import Normaliser, Samples, Signature, pairs, split, windows

__all__ = ["Normaliser", "Samples", "Signature", "pairs", "split", "windows"]
