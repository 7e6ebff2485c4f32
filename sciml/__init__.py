"""State a problem once; solve it with any solver that understands its kind; get an answer that carries its certificate."""

from sciml import checks as checks
from sciml.catalogue import dataset as dataset
from sciml.catalogue import pretrained as pretrained
from sciml.catalogue import problem as problem
from sciml.catalogue import problems as problems
from sciml.core import Answer as Answer
from sciml.core import Check as Check
from sciml.core import Checkpoint as Checkpoint
from sciml.core import Code as Code
from sciml.core import Continuous as Continuous
from sciml.core import CorrelatedNoise as CorrelatedNoise
from sciml.core import CovarianceMatrix as CovarianceMatrix
from sciml.core import Detach as Detach
from sciml.core import Equation as Equation
from sciml.core import Evolution as Evolution
from sciml.core import GaussianNoise as GaussianNoise
from sciml.core import Implicit as Implicit
from sciml.core import Inverse as Inverse
from sciml.core import Law as Law
from sciml.core import Linear as Linear
from sciml.core import PoissonNoise as PoissonNoise
from sciml.core import PowerSpectrum as PowerSpectrum
from sciml.core import Recipe as Recipe
from sciml.core import Solution as Solution
from sciml.core import SolveError as SolveError
from sciml.core import TransmissionNoise as TransmissionNoise
from sciml.core import Unroll as Unroll
from sciml.domains import Dirichlet as Dirichlet
from sciml.domains import GaussianField as GaussianField
from sciml.domains import Grid as Grid
from sciml.domains import InputError as InputError
from sciml.domains import Neumann as Neumann
from sciml.domains import Periodic as Periodic
from sciml.domains import Pixels as Pixels
from sciml.domains import Robin as Robin
from sciml.domains import Space as Space
from sciml.files import open_dataset as open_dataset
from sciml.priors import Denoiser as Denoiser
from sciml.solving import bench as bench
from sciml.solving import calibrate as calibrate
from sciml.solving import refine as refine
from sciml.solving import solve as solve
from sciml.training import fit as fit
from sciml.training import generate as generate
from sciml.training import pairs as pairs
from sciml.training import split as split
from sciml.training import windows as windows

__version__ = "0.1.0"

__all__ = [
    "Answer", "Check", "Checkpoint", "Code", "Continuous", "CorrelatedNoise", "CovarianceMatrix", "Denoiser",
    "Detach", "Dirichlet", "Equation", "Evolution", "GaussianField", "GaussianNoise", "Grid", "Implicit", "InputError", "Inverse", "Law",
    "Linear", "Neumann", "Periodic", "Pixels", "PoissonNoise", "PowerSpectrum", "Recipe", "Robin", "Solution",
    "SolveError", "Space", "TransmissionNoise", "Unroll", "bench", "calibrate", "checks", "dataset", "fit", "generate",
    "open_dataset", "pairs", "pretrained", "problem", "problems", "refine", "solve", "split", "windows",
]  # fmt: skip
