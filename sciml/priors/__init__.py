"""What is known before measuring: energies, proximal maps and denoisers, classical and learned."""

from sciml.priors.total_variation import TotalVariation as TotalVariation
