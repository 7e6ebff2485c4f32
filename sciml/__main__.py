"""``python -m sciml`` is the ``sciml`` command."""

from __future__ import annotations

import sys

from sciml.cli import main

if __name__ == "__main__":
    sys.exit(main())
