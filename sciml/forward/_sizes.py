"""Sizes that fast Fourier transforms like."""

from __future__ import annotations

__all__ = ["quick_size"]


def quick_size(n: int, step: int = 1) -> int:
    """The least multiple of ``step`` from ``n`` on that is a product of 2, 3 and 5."""
    n = -(-n // step) * step
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += step
