"""LoRA students: FLOPs from F(N) and from a configuration."""

from __future__ import annotations

import pytest

from tutelage.errors import InputError
from tutelage.laws.architecture import count_flops
from tutelage.laws.compute import ForwardCost
from tutelage.planning.lora import LoraStudent, cost_lora, lora_flops

# A model of the aspect ratio of F(N): 12 width^2 parameters a block, width / blocks = 128.
CONFIG = {
    "model_type": "llama",
    "hidden_size": 3072,
    "num_attention_heads": 24,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "vocab_size": 32768,
}
PARAMS = 12 * 24 * 3072**2
# The ratio; F(N) counts the causal half of attention, the configuration all of it.
MODEL = 0.04


def test_without_attention_and_head_two_thirds_are_left_and_the_adapters() -> None:
    bare = ForwardCost(context=0, vocabulary=0)
    ratio = lora_flops(bare, 1e9, 1e7) / float(bare.training_per_token(1e9))
    assert ratio == pytest.approx(2 / 3 + 0.01)


def test_products_without_weights_save_nothing() -> None:
    forward = ForwardCost()
    linear, attention, head = (float(part) for part in forward.split(1e9))
    assert linear + attention + head == pytest.approx(float(forward.per_token(1e9)))
    assert lora_flops(forward, 1e9, 0.0) == pytest.approx(2 * linear + 3 * attention + 2 * head)


def test_the_model_on_the_law_agrees_with_the_count_of_a_configuration() -> None:
    modelled = cost_lora(ForwardCost(), PARAMS, LoraStudent(share=0.01))
    counted = cost_lora(ForwardCost(), PARAMS, LoraStudent(share=0.01, config=CONFIG))
    assert (modelled.counted_from, counted.counted_from) == ("F(N)", "configuration")
    assert counted.ratio.value == pytest.approx(modelled.ratio.value, rel=MODEL)


def test_a_configuration_is_counted_by_the_architecture() -> None:
    cost = cost_lora(ForwardCost(), PARAMS, LoraStudent(adapter_params=1e7, config=CONFIG, context=512))
    model = count_flops(CONFIG, 512)
    assert cost.full_training_flops_per_token.value == pytest.approx(model.training / 512)
    assert cost.lora_training_flops_per_token.value == pytest.approx(model.lora_training(1e7 * 512) / 512)
    assert cost.adapter_params.value == 1e7
    assert "of training every weight" in cost.text


def test_adapters_are_given_by_size_or_share() -> None:
    assert LoraStudent(share=0.02).params_of(1e9) == 2e7
    for bad in (
        {},
        {"adapter_params": 1e6, "share": 0.1},
        {"share": 1.5},
        {"share": -1.0},
        {"share": 0.1, "context": 0},
    ):
        with pytest.raises(InputError):
            LoraStudent(**bad)
    with pytest.raises(InputError, match="'mamba' are not counted"):
        cost_lora(ForwardCost(), 1e9, LoraStudent(share=0.01, config={"model_type": "mamba"}))
