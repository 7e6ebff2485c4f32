"""The ``sciml`` command."""

from sciml.cli.application import app as app
from sciml.cli.application import main as main
