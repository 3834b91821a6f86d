"""Settings of a student refuse what cannot be meant, in one sentence with the value."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from tutelage.students.design import Design, Lora, Projector


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": -4}, "rank"),
        ({"rank": 2.5}, "rank"),
        ({"rank": True}, "rank"),
        ({"rank": "all"}, "rank"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": math.inf}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"dropout": math.nan}, "dropout"),
        ({"targets": ()}, "at least one target"),
        ({"targets": ("q_proj", "q_proj")}, "more than once"),
        ({"targets": ("",)}, "names of layers"),
        ({"scope": "head"}, "scope"),
    ],
)
def test_lora_refuses(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Lora(**settings)


@pytest.mark.parametrize("settings", [{"kind": "conv"}, {"width": 0}, {"width": -1}, {"members": 1}])
def test_projector_refuses(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(settings.values())))):
        Projector(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": " "}, "empty text"),
        ({"decoder_layers": 0}, "whole number from 1"),
        ({"decoder_layers": True}, "whole number from 1"),
        ({"decoder_layers": ()}, "numbers from 0"),
        ({"decoder_layers": (-1, 2)}, "numbers from 0"),
        ({"decoder_layers": (2, 1)}, "rising order"),
        ({"decoder_layers": (1, 1)}, "rising order"),
        ({"window_seconds": 0.0}, "window"),
        ({"window_seconds": math.nan}, "window"),
        ({"budget_share": 0.0}, "budget"),
        ({"budget_share": 1.5}, "budget"),
        ({"budget_share": math.nan}, "budget"),
        ({"layer_map": "middle"}, "layer map"),
        ({"layer_map": ()}, "layer map"),
        ({"layer_map": ((0, 1),)}, "layer map"),
        ({"align": "both"}, "align: both compares encoder states"),
        ({"keep": "sensitivity"}, "decoder_layers is None, so give a number"),
        ({"keep": "sensitivity", "decoder_layers": (0, 2)}, "decoder_layers is .0, 2., so give a number"),
        ({"sensitivity_batches": 0}, "sensitivity_batches"),
    ],
)
def test_design_refuses(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Design(**settings)


def test_the_defaults_are_the_method_and_frozen() -> None:
    design = Design()
    assert (design.budget_share, design.lora.rank, design.lora.targets) == (0.01, "auto", ("q_proj", "v_proj"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        design.model = "x"  # type: ignore[misc]


def test_the_scale_of_the_update_does_not_depend_on_a_chosen_rank() -> None:
    assert Lora().alpha_for(37) / 37 == Lora().alpha_for(8) / 8 == 2
    assert Lora(alpha=5.0).alpha_for(37) == 5
