"""The length of the time steps of a method of known order, from a pilot run."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["chosen_step", "round_down"]

Advance = Callable[[float, float, Tensor], Tensor]
PROBES = 12
SHARE = 0.2  # of the target: the certificate looks at other steps than the probes
SERIES = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


def chosen_step(advance: Advance, begin: float, end: float, state: Tensor, target: float, order: int) -> float:
    """The step with which ``advance(t, h, state)`` meets ``target`` as the certificate counts it.

    A coarse run supplies ``PROBES`` states. From each, one step ``h`` is compared with two of ``h / 2``; the root mean
    square of the relative differences times the number of steps is to be ``SHARE`` of the target for the worst member.
    Defects go as ``h^(order + 1)``, so this gives ``h``; it is probed again until it stands, and the coarse run is done
    again when it was more than eight times coarser than ``h``. The result is rounded down to 1, 1.5, 2, 3, 5 or 7 times a
    power of ten, so that it seldom changes from one batch to the next.
    """
    span = end - begin
    if span <= 0:
        return 1.0
    with torch.no_grad():
        many = 32
        states, many = _states(advance, begin, span, state, many)
        h = span / many
        for _ in range(12):
            wanted = _wanted(advance, states, h, span, target, order)
            if wanted < span / (8 * many):
                states, many = _states(advance, begin, span, state, math.ceil(span / (8 * wanted)))
                h = min(h, 2 * wanted)
            elif wanted < 0.8 * h:
                h = wanted
            else:
                break
    return round_down(min(h, wanted, span / 16))


def round_down(h: float) -> float:
    """The largest of 1, 1.5, 2, 3, 5, 7 times a power of ten that is at most ``h``."""
    power = 10.0 ** math.floor(math.log10(h) + 1e-12)
    return float(f"{max(m * power for m in SERIES if m * power <= h * (1 + 1e-9)):.3g}")


def _states(
    advance: Advance, begin: float, span: float, state: Tensor, many: int
) -> tuple[list[tuple[float, Tensor]], int]:
    """States along a run of ``many`` steps, four times as many whenever it does not stay finite."""
    while True:
        h, v, kept = span / many, state, []
        wanted = {int((i + 0.5) * many / PROBES) for i in range(PROBES)}  # not the start: its transient is short
        for i in range(many):
            if i in wanted:
                kept.append((begin + i * h, v))
            v = advance(begin + i * h, h, v)
        if bool(torch.isfinite(v).all()) or many > 20_000:
            return kept, many
        many *= 4


def _wanted(
    advance: Advance, states: list[tuple[float, Tensor]], h: float, span: float, target: float, order: int
) -> float:
    total = torch.zeros((), dtype=torch.float64)
    for t, v in states:
        once = advance(t, h, v)
        twice = advance(t + h / 2, h / 2, advance(t, h / 2, v))
        size = torch.linalg.vector_norm(v.flatten(1), dim=1).to(torch.float64).clamp_min(1e-300)
        total = total + (torch.linalg.vector_norm((twice - once).flatten(1), dim=1) / size).square()
    worst = float((total / len(states)).sqrt().nan_to_num(1.0, 1.0, 1.0).max())
    estimate = span / h * worst
    if estimate == 0.0:
        return span
    # One probe changes h by at most a factor of 16: far from the answer the order is not seen yet.
    return h * min(max((SHARE * target / estimate) ** (1 / order), 1 / 16), 16.0)
