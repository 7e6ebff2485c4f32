"""What the side-by-side runs share: how busy the machine is with others, and which versions the peers have."""

from __future__ import annotations

import importlib.metadata
import time
from pathlib import Path


def busy(seconds: float = 0.2) -> float:
    """The share of the machine that others use; zero where it cannot be read."""

    def ticks() -> tuple[int, int]:
        parts = [int(part) for part in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(parts), parts[3] + parts[4]

    try:
        before = ticks()
        time.sleep(seconds)
        after = ticks()
    except OSError:
        return 0.0
    return 1 - (after[1] - before[1]) / max(1, after[0] - before[0])


def wait_for_idle(patience: float) -> float:
    """Wait until others leave the machine alone, at most `patience` seconds; returns what they still use."""
    end = time.perf_counter() + patience
    while (share := busy()) > 0.1 and time.perf_counter() < end:
        time.sleep(0.5)
    return share


def version(name: str) -> str:
    """The installed version, or 'absent'."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
