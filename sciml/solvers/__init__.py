"""Solvers: immutable records of settings that turn a problem into an answer."""

from sciml.solvers.conjugate_gradient import ConjugateGradient as ConjugateGradient
from sciml.solvers.direct import Direct as Direct
