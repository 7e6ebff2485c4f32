"""Solvers made of learning."""

from sciml.learned.pinn import PINN as PINN
from sciml.learned.reduced import ReducedModel as ReducedModel
from sciml.learned.rollout import Rollout as Rollout
from sciml.learned.trained import Trained as Trained
