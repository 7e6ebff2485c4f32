"""A recipe that tells an object in words only says so in one sentence; one that holds it builds the problem."""

from __future__ import annotations

import pytest
import torch

import sciml
from sciml.core import Recipe
from sciml.domains import InputError
from sciml.priors import TotalVariation


def test_a_prior_given_by_hand_is_named() -> None:
    posed = sciml.problem("deblur", n=9).with_prior(TotalVariation(lower=0.0), 5.0)
    held = posed.recipe
    assert held.build().prior.lower == 0.0 and torch.equal(held.build().weight, posed.weight)
    told = Recipe.from_json(held.to_json())
    assert not told.complete and told.to_json() == held.to_json()
    with pytest.raises(InputError, match=r"tells TotalVariation\(lower=0.0, .* in words only") as caught:
        told.build()
    assert "\n" not in str(caught.value)


def test_a_recipe_without_words_builds() -> None:
    posed = sciml.problem("deblur", n=9, seed=3).with_target(optimality=1e-2)
    told = Recipe.from_json(posed.recipe.to_json())
    assert told.complete and torch.equal(told.build().data, posed.data) and told.build().targets == posed.targets
