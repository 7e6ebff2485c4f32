"""The types: problems, solvers, answers, gradients, recipes."""

from sciml.core.continuous import At as At
from sciml.core.continuous import Continuous as Continuous
from sciml.core.equation import Equation as Equation
from sciml.core.evolution import Evolution as Evolution
from sciml.core.gradients import Checkpoint as Checkpoint
from sciml.core.gradients import Detach as Detach
from sciml.core.gradients import Implicit as Implicit
from sciml.core.gradients import Unroll as Unroll
from sciml.core.law import Law as Law
from sciml.core.linear import ForwardModel as ForwardModel
from sciml.core.linear import LinearOperator as LinearOperator
from sciml.core.linear import Matrix as Matrix
from sciml.core.problem import Linear as Linear
from sciml.core.problem import Problem as Problem
from sciml.core.recipe import Recipe as Recipe
from sciml.core.solution import Answer as Answer
from sciml.core.solution import Check as Check
from sciml.core.solution import Code as Code
from sciml.core.solution import Solution as Solution
from sciml.core.solution import SolveError as SolveError
from sciml.core.solver import Context as Context
from sciml.core.solver import Iterative as Iterative
from sciml.core.solver import Solver as Solver
