"""From laws to arrays: differences, transforms."""

from sciml.discretise.finite_difference import Diffusion as Diffusion
from sciml.discretise.finite_difference import laplacian as laplacian
