"""The two ways a user's request can be refused."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """What was passed in cannot be used: one sentence that names the thing and the next step (exit status 2)."""
