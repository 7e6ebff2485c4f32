"""Samplers: solvers whose answer is a set of draws of the posterior, with its mean and its spread."""

from sciml.core.probability_flow import Ancestral as Ancestral
from sciml.core.probability_flow import Euler as Euler
from sciml.core.probability_flow import Heun as Heun
from sciml.core.probability_flow import Karras as Karras
from sciml.samplers.decomposed import DecomposedDiffusion as DecomposedDiffusion
from sciml.samplers.diffusion_posterior_sampling import DiffusionPosteriorSampling as DiffusionPosteriorSampling
from sciml.samplers.gaussian_posterior import GaussianPosterior as GaussianPosterior
from sciml.samplers.moment_matching import Isotropic as Isotropic
from sciml.samplers.moment_matching import MomentMatching as MomentMatching
from sciml.samplers.moment_matching import Tweedie as Tweedie
from sciml.samplers.null_space import NullSpace as NullSpace
from sciml.samplers.red_diff import RedDiff as RedDiff
from sciml.samplers.twisted import TwistedDiffusion as TwistedDiffusion
