"""Neural operators as plain modules: (batch, channel, *space) in and out."""

from sciml.networks.convex import InputConvexNetwork as InputConvexNetwork
from sciml.networks.deeponet import DeepONet as DeepONet
from sciml.networks.denoising import BiasFreeDenoiser as BiasFreeDenoiser
from sciml.networks.denoising_steps import DenoisingSteps as DenoisingSteps
from sciml.networks.fno import FNO as FNO
from sciml.networks.galerkin import FourierTransformer as FourierTransformer
from sciml.networks.galerkin import GalerkinTransformer as GalerkinTransformer
from sciml.networks.mlp import MLP as MLP
from sciml.networks.multigrid import MgNO as MgNO
from sciml.networks.multionet import MultiONet as MultiONet
from sciml.networks.output_maps import Mapped as Mapped
from sciml.networks.rounded import Rounded as Rounded
from sciml.networks.siren import SIREN as SIREN
from sciml.networks.symmetric_fno import SymmetricFNO as SymmetricFNO
from sciml.networks.unet import UNet as UNet
from sciml.networks.unfolded import UnfoldedNetwork as UnfoldedNetwork
