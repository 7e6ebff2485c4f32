"""Neural operators as plain modules: (batch, channel, *space) in and out."""

from sciml.networks.convex import InputConvexNetwork as InputConvexNetwork
from sciml.networks.denoising import BiasFreeDenoiser as BiasFreeDenoiser
from sciml.networks.denoising_steps import DenoisingSteps as DenoisingSteps
from sciml.networks.fno import FNO as FNO
from sciml.networks.symmetric_fno import SymmetricFNO as SymmetricFNO
from sciml.networks.unet import UNet as UNet
from sciml.networks.unfolded import UnfoldedNetwork as UnfoldedNetwork
