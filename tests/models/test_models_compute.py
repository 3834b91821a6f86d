"""The FLOPs formulas against torch's own counter of the products that really run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tiny import shared_tiny_whisper
from tutelage.models.compute import lora_utterance_flops, transcription_flops, utterance_flops
from tutelage.models.load import load_speech_model

TOKENS = 12


@pytest.fixture
def eager() -> Any:
    """Attention as two plain products, which the counter sees."""
    model = load_speech_model(shared_tiny_whisper()).model
    model.set_attn_implementation("eager")
    return model


def inputs(model: Any) -> dict[str, torch.Tensor]:
    frames = 2 * model.config.max_source_positions
    return {
        "input_features": torch.zeros(1, model.config.num_mel_bins, frames),
        "decoder_input_ids": torch.zeros(1, TOKENS, dtype=torch.long),
    }


def test_a_forward_pass_costs_what_the_counter_sees(eager: Any) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        eager(**inputs(eager), use_cache=False)
    assert utterance_flops(eager.config.to_dict(), TOKENS).forward == counter.get_total_flops()


def test_transcription_costs_what_the_cached_steps_do(eager: Any) -> None:
    ids = torch.zeros(1, 1, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder = eager.model.encoder(inputs(eager)["input_features"])
        encoder_flops = counter.get_total_flops()
        past = None
        for _ in range(TOKENS):
            out = eager(encoder_outputs=encoder, decoder_input_ids=ids, past_key_values=past, use_cache=True)
            past = out.past_key_values
    found = transcription_flops(eager.config.to_dict(), TOKENS)
    assert found.encoder == encoder_flops
    assert found.total == counter.get_total_flops()


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("fc2",)])
@pytest.mark.parametrize("lowest", [0, 2])
def test_lora_training_costs_what_the_counter_sees(
    eager: Any, lowest: int, targets: tuple[str, ...], cached: bool
) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = [
        name
        for name, module in eager.named_modules()
        if name.startswith("model.decoder.layers.") and name.endswith(targets) and int(name.split(".")[3]) >= lowest
    ]
    expected = lora_utterance_flops(eager, adapted, 3, TOKENS, cached_encoder=cached)
    flops = utterance_flops(eager.config.to_dict(), TOKENS)
    wrapped = get_peft_model(eager, LoraConfig(r=3, target_modules=adapted))
    given = inputs(eager)
    if cached:
        with torch.no_grad():
            given["encoder_outputs"] = eager.model.encoder(given.pop("input_features"))
    with FlopCounterMode(display=False) as counter:
        wrapped(**given, use_cache=False).logits.sum().backward()
    # Counted too much, by design: the rest of the lowest adapter's block, and the gradients of the cross-attention's
    # keys and values, which nothing needs where they have no adapter.
    block = flops.decoder[lowest]
    cross = 4 * TOKENS * eager.config.max_source_positions * eager.config.d_model
    spare = block.linear + 2 * block.attention + cross * (eager.config.decoder_layers - lowest)
    assert 0 <= expected - counter.get_total_flops() <= spare
    assert expected / counter.get_total_flops() < 1.25


def test_projectors_and_refusals(eager: Any) -> None:
    adapted = ["model.decoder.layers.0.self_attn.q_proj"]
    plain = lora_utterance_flops(eager, adapted, 2, TOKENS, cached_encoder=True)
    more = lora_utterance_flops(eager, adapted, 2, TOKENS, cached_encoder=True, extra_params=100)
    assert more - plain == 6 * 100 * TOKENS
    for wrong in ([], ["model.encoder.conv1"]):
        with pytest.raises(ValueError, match="adapters in the blocks"):
            lora_utterance_flops(eager, wrong, 2, TOKENS, cached_encoder=True)
    with pytest.raises(ValueError, match="an encoder with adapters is run"):
        lora_utterance_flops(eager, ["model.encoder.layers.0.self_attn.q_proj"], 2, TOKENS, cached_encoder=True)


@pytest.mark.parametrize("halves", [("encoder",), ("encoder", "decoder")])
@pytest.mark.parametrize("lowest", [0, 1])
def test_adapters_in_the_encoder_cost_what_the_counter_sees(eager: Any, lowest: int, halves: tuple[str, ...]) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = [
        name
        for name, module in eager.named_modules()
        if name.split(".")[1:2] and name.split(".")[1] in halves and name.endswith(("q_proj", "fc1"))
        if int(name.split(".")[3]) >= lowest
    ]
    expected = lora_utterance_flops(eager, adapted, 3, TOKENS, cached_encoder=False)
    flops = utterance_flops(eager.config.to_dict(), TOKENS)
    wrapped = get_peft_model(eager, LoraConfig(r=3, target_modules=adapted))
    with FlopCounterMode(display=False) as counter:
        wrapped(**inputs(eager), use_cache=False).logits.sum().backward()
    block = flops.encoder[lowest]  # counted whole; of the lowest decoder block all but the cross-attention is too much
    spare = block.linear + 2 * block.attention + flops.decoder[0].linear + 2 * flops.decoder[0].attention
    assert 0 <= expected - counter.get_total_flops() <= spare
    assert expected / counter.get_total_flops() < 1.25


def test_an_encoder_with_adapters_is_reached_through_every_decoder_block(eager: Any) -> None:
    flops = utterance_flops(eager.config.to_dict(), TOKENS)
    reached = flops.lora_training(0.0, lowest_block=3, lowest_encoder_block=1)
    through = flops.head + sum(block.linear + 2 * block.attention + block.memory for block in flops.decoder)
    last = flops.encoder[1]
    assert reached == pytest.approx(flops.forward + through + last.linear + 2 * last.attention)
