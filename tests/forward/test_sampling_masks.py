"""Masks: as many samples as asked for, the calibration block whole, the same for the same seed, distances kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sciml.domains import InputError
from sciml.forward import Equispaced, PoissonDisc, Uniform, VariableDensity
from sciml.forward.sampling_masks import example

RULES = [
    Uniform(4.0, 8),
    VariableDensity(4.0, calibration=8),
    PoissonDisc(4.0, 8),
    PoissonDisc(6.0, 6, ellipse=True),
    Uniform(3.0, 4, axes=(-1,)),
    VariableDensity(3.0, calibration=4, axes=(0,)),
    Equispaced(3.0, 6),
    Equispaced(3.0, 6, axis=0),
]


@pytest.mark.parametrize("shape", [(48, 60), (41, 37)], ids=str)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_acceleration_and_calibration(rule: Any, shape: tuple[int, int]) -> None:
    mask = rule.mask(shape)
    assert mask.shape == shape and mask.dtype == torch.bool and torch.equal(mask, rule.mask(shape))
    axes = rule.axes or (0, 1) if hasattr(rule, "axes") else (rule.axis,)
    axes = tuple(a % 2 for a in axes)
    lines = mask if len(axes) == 2 else mask.select(1 - axes[0], 0)
    # One sample (line) of rounding; for Poisson discs 2 %, what the bisection stops at and a little.
    slack = 0.02 if isinstance(rule, PoissonDisc) else 1 / lines.sum()
    assert abs(float(lines.sum()) * rule.acceleration / lines.numel() - 1) <= slack
    block = [
        slice(n // 2 - rule.calibration // 2, n // 2 - rule.calibration // 2 + rule.calibration)
        if a in axes
        else slice(None)
        for a, n in enumerate(shape)
    ]
    assert bool(mask[tuple(block)].all())
    if len(axes) == 1:  # the read-out is whole
        assert torch.equal(mask, lines.unsqueeze(1 - axes[0]).expand(shape))


@pytest.mark.parametrize("kind", [Uniform, VariableDensity, PoissonDisc])
def test_another_seed_is_another_mask(kind: Any) -> None:
    assert not torch.equal(kind(4.0, seed=0).mask((64, 64)), kind(4.0, seed=1).mask((64, 64)))


def distances(mask: torch.Tensor) -> torch.Tensor:
    """From every sample to its nearest neighbour."""
    points = mask.nonzero().to(torch.float64)
    apart = torch.cdist(points, points)
    return apart.fill_diagonal_(1e9).amin(1)


def test_poisson_discs_keep_their_distance_and_uniform_points_do_not() -> None:
    even = PoissonDisc(9.0, 0, slope=0.0).mask((60, 60))
    # At this density (mean cell of 9) discs that touch are 2.3 to 3.4 apart; random points are often neighbours.
    assert float(distances(even).min()) >= 2.0
    assert float(distances(Uniform(9.0, 0).mask((60, 60))).min()) == 1.0
    sloped = PoissonDisc(9.0, 0, slope=3.0).mask((60, 60))
    middle = sloped[20:40, 20:40].float().mean()
    assert middle > 2 * sloped.float().mean()


def test_variable_density_falls_towards_the_rim() -> None:
    mask = VariableDensity(6.0, calibration=0).mask((80, 80))
    assert mask[30:50, 30:50].float().mean() > 3 * mask.float().mean()
    flat = VariableDensity(6.0, power=0.0, calibration=0).mask((80, 80))
    assert mask[30:50, 30:50].float().mean() > 2 * flat[30:50, 30:50].float().mean()


def test_three_axes_and_the_corners() -> None:
    mask = PoissonDisc(4.0, 4, axes=(1, 2)).mask((5, 24, 20))
    assert mask.shape == (5, 24, 20) and bool((mask == mask[:1]).all())
    assert not bool(PoissonDisc(4.0, 4, ellipse=True).mask((40, 40))[:4, :4].any())
    assert example().mask((30, 30)).any()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Uniform(0.5), "at least 1"),
        (Uniform(8.0, 40), "calibration block"),
        (Equispaced(4.0, -1), "calibration"),
        (VariableDensity(4.0, power=-1.0), "power"),
        (PoissonDisc(4.0, slope=-1.0), "slope"),
        (Uniform(4.0, axes=(2,)), "axes"),
        (Equispaced(4.0, axis=5), "axes"),
        (Uniform(1e9, 0), "allows 0"),
    ],
)
def test_refusals(rule: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        rule.mask((48, 48))
