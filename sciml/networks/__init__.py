"""Neural operators as plain modules: (batch, channel, *space) in and out."""

from sciml.networks.fno import FNO

__all__ = ["FNO"]
