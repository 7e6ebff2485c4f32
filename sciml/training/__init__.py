"""From data sets to trained networks: samples, losses, `fit`, and `generate` for new data sets."""

from __future__ import annotations

from sciml.training.augment import NodeReflection, Reflection, Translation, Transposition
from sciml.training.denoising import EDM
from sciml.training.fit import fit
from sciml.training.fitted import Fit, Score
from sciml.training.generate import generate
from sciml.training.losses import H1, LogL2, RelativeL2
from sciml.training.optimisers import AdamW, Muon
from sciml.training.samples import Normaliser, Samples, Signature, pairs, split, windows
from sciml.training.schedules import Constant, Cosine, OneCycle
from sciml.training.through import FittedPrior

__all__ = [
    "EDM", "H1", "AdamW", "Constant", "Cosine", "Fit", "FittedPrior", "LogL2", "Muon", "NodeReflection", "Normaliser", "OneCycle", "Reflection", "RelativeL2",
    "Samples", "Score", "Signature", "Translation", "Transposition", "fit", "generate", "pairs", "split", "windows",
]  # fmt: skip
