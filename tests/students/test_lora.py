"""Adapters sit where the recipe says, as many as it implies, and their weights depend on the seed alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tiny import shared_tiny_whisper
from tutelage.errors import InputError
from tutelage.models.load import load_meta, load_speech_model
from tutelage.students.design import Lora
from tutelage.students.lora import (
    add_lora,
    count_lora_params,
    expected_modules,
    largest_useful_rank,
    target_modules,
    trainable_parameters,
)

IDS = torch.tensor([[305, 309, 314, 318, 10, 20]])


@pytest.fixture(scope="module")
def base() -> Any:
    return load_speech_model(shared_tiny_whisper()).model


@pytest.fixture
def model(base: Any) -> Any:
    return copy.deepcopy(base)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 16),
        ({"targets": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")}, 40),
        ({"targets": ("encoder_attn.q_proj",)}, 4),
        ({"targets": ("self_attn.q_proj",), "scope": "both"}, 6),
        ({"scope": "encoder"}, 4),
        ({"scope": "both", "targets": ("q_proj", "fc1")}, 16),
    ],
)
def test_targets_match_as_many_layers_as_the_recipe_implies(base: Any, settings: dict[str, Any], count: int) -> None:
    lora = Lora(**settings)
    names = target_modules(base, lora)
    assert len(names) == len(set(names)) == count == expected_modules(base.config, lora)
    halves = {name.split(".")[1] for name in names}
    assert halves == ({"encoder", "decoder"} if lora.scope == "both" else {lora.scope})


def test_a_target_that_matches_nothing_lists_what_there_is(base: Any) -> None:
    with pytest.raises(InputError, match="query matches no layer of the decoder") as caught:
        target_modules(base, Lora(targets=("q_proj", "query")))
    for name in ("q_proj", "v_proj", "k_proj", "out_proj", "fc1", "fc2", "encoder_attn.q_proj"):
        assert name in str(caught.value)
    assert "proj_out" not in str(caught.value)
    with pytest.raises(InputError, match="matches no layer of the encoder"):
        target_modules(base, Lora(targets=("encoder_attn.q_proj",), scope="encoder"))


def test_fewer_matches_than_implied_are_refused(model: Any) -> None:
    model.model.decoder.layers[1].encoder_attn.q_proj = torch.nn.Identity()
    with pytest.raises(InputError, match="matches 7 layers of the decoder; the recipe implies 8"):
        target_modules(model, Lora(targets=("q_proj",)))


def test_overlapping_targets_are_refused(base: Any) -> None:
    with pytest.raises(InputError, match="twice"):
        target_modules(base, Lora(targets=("q_proj", "encoder_attn.q_proj")))


@pytest.mark.parametrize("scope", ["decoder", "encoder", "both"])
def test_the_count_is_what_is_then_trained(model: Any, scope: Any) -> None:
    lora = Lora(targets=("q_proj", "fc1"), scope=scope)
    counted = count_lora_params(load_meta(shared_tiny_whisper()), lora, 3)
    wrapped = add_lora(model, lora, 3, seed=0)
    trained = trainable_parameters(wrapped)
    assert sum(parameter.numel() for _, parameter in trained) == counted
    assert all("lora_" in name for name, _ in trained)
    assert {parameter.dtype for _, parameter in trained} == {torch.float32}


def test_a_fresh_adapter_changes_nothing(model: Any, base: Any) -> None:
    wrapped = add_lora(model, Lora(), 4, seed=0)
    encoded = torch.randn(1, 200, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = wrapped(encoder_outputs=(encoded,), decoder_input_ids=IDS).logits
        expected = base(encoder_outputs=(encoded,), decoder_input_ids=IDS).logits
    assert torch.equal(found, expected)


def test_weights_depend_on_the_seed_and_on_nothing_else(base: Any) -> None:
    torch.manual_seed(1)
    first = dict(trainable_parameters(add_lora(copy.deepcopy(base), Lora(), 4, seed=5)))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = dict(trainable_parameters(add_lora(copy.deepcopy(base), Lora(), 4, seed=5)))
    assert torch.equal(torch.get_rng_state(), state)
    other = dict(trainable_parameters(add_lora(copy.deepcopy(base), Lora(), 4, seed=6)))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    a_matrices = [name for name in first if "lora_A" in name]
    assert all(not torch.equal(first[name], other[name]) for name in a_matrices)
    assert len({float(first[name].detach().sum()) for name in a_matrices}) == len(a_matrices)


def test_adapters_of_a_half_precision_base_train_in_float32(model: Any) -> None:
    wrapped = add_lora(model.to(torch.bfloat16), Lora(), 4, seed=0)
    assert {parameter.dtype for _, parameter in trainable_parameters(wrapped)} == {torch.float32}


def test_the_base_is_frozen_and_every_adapter_gets_a_gradient(model: Any) -> None:
    wrapped = add_lora(model, Lora(), 4, seed=0)
    for _, parameter in trainable_parameters(wrapped):
        with torch.no_grad():
            parameter.add_(0.01)
    encoded = torch.randn(1, 200, 32, generator=torch.Generator().manual_seed(0))
    wrapped(encoder_outputs=(encoded,), decoder_input_ids=IDS).logits.square().sum().backward()
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert not parameter.requires_grad, name


@pytest.mark.parametrize(("rslora", "scale"), [(False, 2.0), (True, 4.0)])
def test_the_scale_is_alpha_over_rank_or_its_root(model: Any, rslora: bool, scale: float) -> None:
    wrapped = add_lora(model, Lora(use_rslora=rslora), 4, seed=0)
    layer = wrapped.get_submodule("base_model.model.model.decoder.layers.0.self_attn.q_proj")
    assert layer.scaling["default"] == scale


def test_the_largest_useful_rank_is_the_narrowest_side(base: Any) -> None:
    assert largest_useful_rank(base, Lora(targets=("fc1", "q_proj"))) == 32
