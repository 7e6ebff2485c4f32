"""What is known before measuring: energies, proximal maps and denoisers, classical and learned."""

from sciml.core.probability_flow import Ancestral as Ancestral
from sciml.core.probability_flow import Euler as Euler
from sciml.core.probability_flow import Heun as Heun
from sciml.priors._phase import slow_phase as slow_phase
from sciml.priors.denoiser import Denoiser as Denoiser
from sciml.priors.diffusion import Diffusion as Diffusion
from sciml.priors.gaussian import Gaussian as Gaussian
from sciml.priors.learned_prox import LearnedProx as LearnedProx
from sciml.priors.magnitude_phase import MagnitudePhase as MagnitudePhase
from sciml.priors.mixture import Mixture as Mixture
from sciml.priors.noise_schedules import Flow as Flow
from sciml.priors.noise_schedules import Scheduled as Scheduled
from sciml.priors.noise_schedules import VarianceExploding as VarianceExploding
from sciml.priors.noise_schedules import VariancePreserving as VariancePreserving
from sciml.priors.smoothness import Smoothness as Smoothness
from sciml.priors.total_variation import TotalVariation as TotalVariation
from sciml.priors.unfolded import Unfolded as Unfolded
from sciml.priors.wavelet import Daubechies as Daubechies
from sciml.priors.wavelet import Haar as Haar
from sciml.priors.wavelet import Wavelet as Wavelet
