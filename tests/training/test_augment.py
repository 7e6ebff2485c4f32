"""Augmentation moves every member by an element of its group, all fields alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.training.augment import NodeReflection, Reflection, Translation, Transposition


def mirrors(x: Tensor, node: bool) -> Iterator[Tensor]:
    for count in range(x.ndim):
        for axes in itertools.combinations(range(1, x.ndim), count):
            moved = x.flip(axes)
            yield moved.roll([1] * len(axes), axes) if node and axes else moved


def shifts(x: Tensor) -> Iterator[Tensor]:
    for by in itertools.product(*(range(n) for n in x.shape[1:])):
        yield x.roll(by, tuple(range(1, x.ndim)))


def orders(x: Tensor) -> Iterator[Tensor]:
    for order in itertools.permutations(range(1, x.ndim)):
        yield x.permute(0, *order)


CASES = [
    (Reflection(), lambda x: mirrors(x, False), (4, 3)),
    (NodeReflection(), lambda x: mirrors(x, True), (4, 3)),
    (Translation(), shifts, (4, 3)),
    (Translation(), shifts, (2, 3, 2)),
    (Translation(), shifts, (5,)),
    (Transposition(), orders, (3, 3, 3)),
    (Reflection(), lambda x: mirrors(x, False), (2, 3, 4)),
]


@pytest.mark.parametrize(("symmetry", "group", "shape"), CASES)
def test_every_member_is_moved_by_an_element(symmetry: object, group: object, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.arange(200 * 2 * torch.Size(shape).numel(), dtype=torch.float32).reshape(200, 2, *shape)
    moved = symmetry.apply({"a": a, "u": 3 * a}, generator)  # type: ignore[attr-defined]
    seen = set()
    for member, image in zip(a, moved["a"], strict=True):
        found = [i for i, element in enumerate(group(member)) if torch.equal(element, image)]  # type: ignore[operator]
        assert found
        seen.add(found[0])
    assert torch.equal(moved["u"], 3 * moved["a"])
    assert len(seen) == len(list(group(a[0])))  # type: ignore[operator]


def test_transposition_needs_equal_axes() -> None:
    with pytest.raises(InputError, match=r"\(4, 3\)"):
        Transposition().apply({"a": torch.zeros(1, 1, 4, 3)}, torch.Generator())
