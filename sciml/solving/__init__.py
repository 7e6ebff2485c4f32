"""The verb ``solve`` and its companions."""

from sciml.solving.bench import bench as bench
from sciml.solving.calibrate import calibrate as calibrate
from sciml.solving.refine import Refinement as Refinement
from sciml.solving.refine import refine as refine
from sciml.solving.solve import solve as solve
