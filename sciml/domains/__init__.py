"""Where fields live: grids, side conditions, spaces, random fields."""

from sciml.domains.boundary import Condition as Condition
from sciml.domains.boundary import Dirichlet as Dirichlet
from sciml.domains.boundary import Neumann as Neumann
from sciml.domains.boundary import Periodic as Periodic
from sciml.domains.boundary import Robin as Robin
from sciml.domains.errors import InputError as InputError
from sciml.domains.grid import Axis as Axis
from sciml.domains.grid import Grid as Grid
from sciml.domains.mesh import Elements as Elements
from sciml.domains.mesh import Mesh as Mesh
from sciml.domains.meshing import disc as disc
from sciml.domains.meshing import polygon as polygon
from sciml.domains.meshing import rectangle as rectangle
from sciml.domains.phantoms import Ellipses as Ellipses
from sciml.domains.phantoms import shepp_logan as shepp_logan
from sciml.domains.pixels import Pixels as Pixels
from sciml.domains.random_fields import GaussianField as GaussianField
from sciml.domains.random_fields import member_generator as member_generator
from sciml.domains.space import Space as Space
