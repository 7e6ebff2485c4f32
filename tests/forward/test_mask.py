"""The mask: a projection, per member, and what it refuses."""

from __future__ import annotations

import pytest
import torch

import sciml
from sciml.domains import InputError, Pixels
from sciml.forward import Mask

SPACE = Pixels((5, 7)).space(2)
SEEN = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) < 0.5


def test_it_is_a_projection() -> None:
    mask = Mask(SPACE, SEEN)
    u = torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(mask(mask(u)), mask(u)) and torch.equal(mask(u), u * SEEN)
    assert torch.equal(mask.dense()[0], torch.diag(mask.diagonal().flatten()))
    assert sciml.checks.adjoint(mask)

    class Shifted(Mask):
        def adjoint(self, v: torch.Tensor) -> torch.Tensor:
            return self(v.roll(1, -1))

    assert not sciml.checks.adjoint(Shifted(SPACE, SEEN))


def test_what_is_hidden_does_not_spread() -> None:
    u = torch.where(SEEN, 1.0, torch.nan).to(torch.float64).expand(1, 2, 5, 7)
    assert bool(torch.isfinite(Mask(SPACE, SEEN)(u)).all())


def test_a_mask_per_member() -> None:
    masks = torch.stack([SEEN, ~SEEN])[:, None]
    both = Mask(SPACE, masks)
    u = torch.ones(2, 2, 5, 7, dtype=torch.float64)
    assert both.batch == 2
    assert torch.equal(both(u)[1], Mask(SPACE, ~SEEN)(u[:1])[0])
    assert torch.equal(both(u.expand(4, 2, 2, 5, 7))[3], both(u))


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        (SEEN.double(), "boolean tensor"),
        (None, "seen is NoneType"),
        (SEEN[:4], r"seen has shape \(4, 7\)"),
        (SEEN.expand(3, 5, 7), r"seen has shape \(3, 5, 7\)"),
        (SEEN & False, "sees no pixel"),
        (torch.stack([SEEN, SEEN & False])[:, None], "in some member"),
    ],
)
def test_refusals(seen: torch.Tensor, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Mask(SPACE, seen)
