"""Pictures and reports: of solutions, of training, of what a network predicts."""

from sciml.show.comparison import compare as compare
from sciml.show.comparison import reconstructions as reconstructions
from sciml.show.learning import samples as samples
from sciml.show.learning import training_curves as training_curves
from sciml.show.plot import plot as plot
from sciml.show.report import report as report
