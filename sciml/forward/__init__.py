"""What instruments measure: forward models from images and parameters to data."""

from sciml.forward.radon import Radon as Radon
from sciml.forward.radon import RayDriven as RayDriven
