"""From laws to arrays: differences, transforms."""

from sciml.discretise.corner_energy import Lift as Lift
from sciml.discretise.corner_energy import corner_divergence as corner_divergence
from sciml.discretise.corner_energy import corner_energy as corner_energy
from sciml.discretise.corner_energy import on_sides as on_sides
from sciml.discretise.finite_difference import Diffusion as Diffusion
from sciml.discretise.finite_difference import laplacian as laplacian
from sciml.discretise.finite_element import Stiffness as Stiffness
from sciml.discretise.sides import SideLaw as SideLaw
from sciml.discretise.spectral import Modes as Modes
from sciml.discretise.spectral import Spectrum as Spectrum
from sciml.discretise.spectral import Transform as Transform
from sciml.discretise.spectral import derivative as derivative
from sciml.discretise.spectral import eigenvalues as eigenvalues
from sciml.discretise.triangles import LinearElements as LinearElements
from sciml.discretise.triangles import QuadraticElements as QuadraticElements
