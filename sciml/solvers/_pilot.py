"""The length of the time steps of a method of known order, from a pilot run."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sciml.core.evolution import Evolution
from sciml.core.loop import STRETCHES
from sciml.core.tree import Leaf, rebuild

__all__ = ["chosen_step", "round_down"]

Advance = Callable[[float, float, Tensor], Tensor]
Stepper = Callable[[Evolution], tuple[Advance, Tensor]]
PROBES = 48
SHARE = 0.15  # of the target: the certificate draws six stretches, and may draw the six worst
REACH = 4.0  # the order is trusted over this factor in the step, not further
MEMBERS = 4  # that decide
START_ORDER = 2  # at least, where a start of all wave lengths meets a stiff part
MOST = 500_000  # steps of a pilot run
SERIES = (1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.3, 8.0)


def chosen_step(problem: Evolution, stepper: Stepper, order: int) -> float:
    """The step with which a method meets the problem's target as the certificate counts it.

    ``stepper(problem)`` gives ``advance(t, h, state)`` and the first state. A coarse run is judged as the certificate does it,
    with steps of half the length as the referee, on 48 stretches evenly spread. As errors go as ``h^order`` (``h^2`` in the
    first stretch), this says how long the steps may be; the run is done again with shorter ones until that is at most a
    factor of four away. Only the four members that are worst in the first run that stays finite take part in later ones.
    The result is rounded down to a number such as 1.25e-3, ten to a decade, so that it seldom changes between batches.
    """
    begin, span = problem.begin, problem.times[-1] - problem.begin
    target = max(problem.targets["steps"], 1e-12)  # below, rounding decides
    if span <= 0:
        return 1.0
    many, before = 32, math.inf
    with torch.no_grad():
        advance, state = stepper(problem)
        while True:
            first, later = _estimate(advance, begin, span, state, many)
            estimate = first + later
            if not bool(torch.isfinite(estimate).all()):
                factor = 1 / (2 * REACH)
            else:
                allowed = SHARE * target
                factor = min(
                    (allowed / max(float(later.max()), 1e-300)) ** (1 / order),
                    (allowed / max(float(first.max()), 1e-300)) ** (1 / START_ORDER),
                )
                if estimate.shape[0] > MEMBERS:
                    rows = estimate.topk(MEMBERS).indices
                    advance, state = stepper(_rows(problem, rows))
                    problem = _rows(problem, rows)
            worst = float(estimate.max())
            # Shorter steps that gain nothing are at rounding level: the target is out of reach, and the certificate says so.
            stuck = math.isfinite(worst) and worst > 0.5 * before
            before = worst
            if stuck:
                return round_down(span / many)
            if factor >= 1 / REACH or many > MOST:
                return round_down(min(span / many * factor, span / 16))
            many = math.ceil(many * min(2 / (REACH * factor), 2 * REACH))


def round_down(h: float) -> float:
    """The largest number of the series times a power of ten that is at most ``h``."""
    power = 10.0 ** math.floor(math.log10(h) + 1e-12)
    return float(f"{max(m * power for m in SERIES if m * power <= h * (1 + 1e-9)):.3g}")


def _rows(problem: Evolution, rows: Tensor) -> Evolution:
    def pick(leaf: Leaf) -> Tensor:
        return leaf.tensor if leaf.shared or leaf.tensor.shape[0] == 1 else leaf.tensor[rows]

    return rebuild(problem, pick)


def _estimate(advance: Advance, begin: float, span: float, state: Tensor, many: int) -> tuple[Tensor, Tensor]:
    """What the certificate would say of ``many`` steps, per member, of the first stretch and of all later ones.

    Infinite where the run did not stay finite.
    """
    h, length = span / many, max(1, math.ceil(many / STRETCHES))
    stretches = many / length
    probes = {0, *(int((i + 0.5) * many / PROBES) // length * length for i in range(PROBES))}
    square = torch.zeros(state.shape[0], dtype=torch.float64, device=state.device)
    first = square
    v, largest, again = state, _size(state), state
    for i in range(many):
        if i in probes:
            again = v
            for j in range(2 * length):
                again = advance(begin + (i + j / 2) * h, h / 2, again)
        v = advance(begin + i * h, h, v)
        if i + 1 - length in probes:
            # Relative to the largest state so far: a run that will blow up must not hide its errors behind its size.
            largest = torch.maximum(largest, _size(v))
            gap = _size(v - again) / largest.clamp_min(1e-300)
            if i + 1 == length:  # stands for itself: transients of the start are over after it
                first = gap
            else:
                square = square + gap.square()
    # The difference is the error of the longer steps.
    later = stretches * (square / (len(probes) - 1)).sqrt()
    return first, torch.where(torch.isfinite(first + later + _size(v)), later, torch.full_like(later, math.inf))


def _size(v: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(v.flatten(1), dim=1).to(torch.float64)
    return size
