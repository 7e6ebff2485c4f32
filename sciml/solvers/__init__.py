"""Solvers: immutable records of settings that turn a problem into an answer."""

from sciml.solvers._usual import usual as usual
from sciml.solvers.admm import ADMM as ADMM
from sciml.solvers.calibrated import Calibrated as Calibrated
from sciml.solvers.chained import Chained as Chained
from sciml.solvers.collocation import Collocation as Collocation
from sciml.solvers.conjugate_gradient import ConjugateGradient as ConjugateGradient
from sciml.solvers.direct import Direct as Direct
from sciml.solvers.discrepancy import Discrepancy as Discrepancy
from sciml.solvers.exponential import ExponentialRungeKutta as ExponentialRungeKutta
from sciml.solvers.filtered_backprojection import FilteredBackprojection as FilteredBackprojection
from sciml.solvers.gauss_newton import GaussNewton as GaussNewton
from sciml.solvers.gmres import GMRES as GMRES
from sciml.solvers.least_squares import LeastSquares as LeastSquares
from sciml.solvers.multigrid import Multigrid as Multigrid
from sciml.solvers.newton import Nearby as Nearby
from sciml.solvers.newton import Newton as Newton
from sciml.solvers.plug_and_play import PlugAndPlay as PlugAndPlay
from sciml.solvers.primal_dual import PrimalDual as PrimalDual
from sciml.solvers.primal_dual_newton import PrimalDualNewton as PrimalDualNewton
from sciml.solvers.proximal_gradient import Nesterov as Nesterov
from sciml.solvers.proximal_gradient import NoMomentum as NoMomentum
from sciml.solvers.proximal_gradient import ProximalGradient as ProximalGradient
from sciml.solvers.sobolev_descent import PolakRibiere as PolakRibiere
from sciml.solvers.sobolev_descent import SobolevDescent as SobolevDescent
from sciml.solvers.sobolev_descent import Steepest as Steepest
from sciml.solvers.transform import DirectTransform as DirectTransform
