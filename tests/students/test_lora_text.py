"""Adapters on language models: each layout's own names, both kinds of linear layer, errors that list what exists."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tiny_text import BLOCKS, LAYOUTS, WIDTH, shared_tiny_text
from tutelage.errors import InputError
from tutelage.models.causal import load_meta_causal, load_text_model
from tutelage.models.compute import row_training_flops
from tutelage.students.design import Lora
from tutelage.students.export import merged_model
from tutelage.students.lora import (
    add_lora,
    count_lora_params,
    largest_useful_rank,
    target_modules,
    trainable_parameters,
)

RANK = 2
TARGETS = {
    "llama": ("q_proj", "v_proj"),
    "qwen2": ("self_attn.q_proj", "down_proj"),
    "qwen3": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "gpt_neox": ("query_key_value", "dense_h_to_4h"),
    "gpt2": ("c_attn", "mlp.c_proj"),
}
INPUTS = torch.tensor([[0, 80, 90, 100, 110]])
MERGED = 1e-5  # float32 sums in another order


def model_of(layout: str) -> Any:
    return load_meta_causal(shared_tiny_text(layout)).model


@pytest.mark.parametrize("layout", LAYOUTS)
def test_adapters_are_counted_as_they_are_built_and_merge_exactly(
    layout: str, recwarn: pytest.WarningsRecorder
) -> None:
    lora = Lora(rank=RANK, targets=TARGETS[layout])
    model = load_text_model(shared_tiny_text(layout)).model
    names = target_modules(model, lora)
    assert len(names) == BLOCKS * len(TARGETS[layout])
    expected = count_lora_params(load_meta_causal(shared_tiny_text(layout)).model, lora, RANK)
    wrapped = add_lora(model, lora, RANK, seed=3)
    assert not [warning for warning in recwarn if "fan_in_fan_out" in str(warning.message)]
    trained = dict(trainable_parameters(wrapped))
    assert sum(parameter.numel() for parameter in trained.values()) == expected
    assert all("lora_" in name for name in trained)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
        adapted, merged = wrapped(INPUTS).logits, merged_model(wrapped)(INPUTS).logits
    assert float((adapted - merged).abs().max()) < MERGED * float(adapted.abs().max())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_name_of_another_layout_lists_the_names_that_exist(layout: str) -> None:
    wrong = "query_key_value" if layout != "gpt_neox" else "q_proj"
    with pytest.raises(InputError) as refused:
        target_modules(load_meta_causal(shared_tiny_text(layout)).model, Lora(targets=(wrong,)))
    assert f"The LoRA target {wrong} matches no layer" in str(refused.value)
    assert TARGETS[layout][0].split(".")[-1] in str(refused.value)


def test_a_name_that_stands_twice_in_every_block_means_both() -> None:
    model = load_meta_causal(shared_tiny_text("gpt2")).model
    assert len(target_modules(model, Lora(targets=("c_proj",)))) == 2 * BLOCKS
    assert largest_useful_rank(model, Lora(targets=("c_proj",))) == WIDTH


def test_a_language_model_has_no_encoder() -> None:
    with pytest.raises(InputError, match="llama model has no encoder"):
        target_modules(load_meta_causal(shared_tiny_text()).model, Lora(scope="both"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flops_of_training_lie_between_the_counter_and_a_block_more(layout: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = load_text_model(shared_tiny_text(layout)).model
    model.set_attn_implementation("eager")
    lora, tokens = Lora(targets=TARGETS[layout]), 64
    names = [name for name in target_modules(model, lora) if ".0." not in name]
    counted = row_training_flops(model, names, RANK, tokens)
    whole = row_training_flops(model, (), 0, tokens)
    block = 4 * tokens * (4 * WIDTH * WIDTH + 2 * tokens * WIDTH + 6 * WIDTH * WIDTH)
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=RANK, target_modules=names, fan_in_fan_out=layout == "gpt2")
    wrapped = get_peft_model(model, settings)
    with FlopCounterMode(display=False) as counter:
        wrapped(torch.zeros(1, tokens, dtype=torch.long)).logits.sum().backward()
    assert 0 <= counted - counter.get_total_flops() <= block
    assert counted < whole
    more = row_training_flops(model, names, 2 * RANK, tokens) - counted
    assert more == pytest.approx(6 * tokens * count_lora_params(model_of(layout), lora, RANK) * (BLOCKS - 1) / BLOCKS)
