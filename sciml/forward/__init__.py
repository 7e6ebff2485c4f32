"""What instruments measure: forward models from images and parameters to data."""

from sciml.forward.convolution import Convolution as Convolution
from sciml.forward.convolution import Nearest as Nearest
from sciml.forward.convolution import Reflect as Reflect
from sciml.forward.convolution import Valid as Valid
from sciml.forward.convolution import Zero as Zero
from sciml.forward.convolution import gaussian_kernel as gaussian_kernel
from sciml.forward.convolution import motion_kernel as motion_kernel
from sciml.forward.mask import Mask as Mask
from sciml.forward.parameter_to_state import ParameterToState as ParameterToState
from sciml.forward.point_values import PointValues as PointValues
from sciml.forward.radon import FourierSlice as FourierSlice
from sciml.forward.radon import Radon as Radon
from sciml.forward.radon import RayDriven as RayDriven
from sciml.forward.windows import Cosine as Cosine
from sciml.forward.windows import Hamming as Hamming
from sciml.forward.windows import Hann as Hann
from sciml.forward.windows import RamLak as RamLak
from sciml.forward.windows import SheppLogan as SheppLogan
