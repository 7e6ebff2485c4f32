"""Solvers made of learning."""

from sciml.learned.rollout import Rollout as Rollout
from sciml.learned.trained import Trained as Trained
