"""Solvers made of learning."""

from sciml.learned._kernels import Matern as Matern
from sciml.learned._kernels import SquaredExponential as SquaredExponential
from sciml.learned.gaussian_process import GaussianProcess as GaussianProcess
from sciml.learned.pinn import PINN as PINN
from sciml.learned.reduced import ReducedModel as ReducedModel
from sciml.learned.ritz import EnergyGaussNewton as EnergyGaussNewton
from sciml.learned.ritz import GaussLegendre as GaussLegendre
from sciml.learned.ritz import Ritz as Ritz
from sciml.learned.rollout import Rollout as Rollout
from sciml.learned.trained import Trained as Trained
