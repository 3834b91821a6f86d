"""FLOPs counted from a configuration, against the counter of torch on the model itself."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.errors import InputError
from tutelage.laws.architecture import count_flops

TOKENS = 64
WHISPER: dict[str, Any] = {
    "model_type": "whisper",
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "vocab_size": 100,
    "num_mel_bins": 8,
    "max_source_positions": 20,
}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def whisper() -> Any:
    transformers = pytest.importorskip("transformers")
    sizes = {name: value for name, value in WHISPER.items() if name != "model_type"}
    config = transformers.WhisperConfig(**sizes, **IDS, max_target_positions=TOKENS, decoder_start_token_id=1)
    model = transformers.WhisperForConditionalGeneration(config)
    model.set_attn_implementation("eager")
    return model


def measured(model: Any, backward: bool = False, **inputs: Any) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        logits = model(**inputs).logits
        if backward:
            logits.sum().backward()
    return float(counter.get_total_flops())


def speech() -> dict[str, Any]:
    import torch

    return {"input_features": torch.zeros(1, 8, 40), "decoder_input_ids": torch.zeros(1, TOKENS, dtype=torch.long)}


def test_a_whisper_model_is_counted_exactly() -> None:
    model = whisper()
    counted = count_flops(WHISPER, TOKENS)
    assert counted.forward == measured(model, **speech())
    assert count_flops(model.config.to_dict(), TOKENS) == counted
    # Training needs no gradient of the spectrogram, so the first convolution is run backward for its weights alone.
    first_convolution = 2 * 3 * 32 * 8 * 40
    assert counted.training - first_convolution == measured(model, backward=True, **speech())


@pytest.mark.parametrize("lowest", [0, 1, 2])
def test_lora_training_costs_less_than_three_forward_passes(lowest: int) -> None:
    peft = pytest.importorskip("peft")
    layers = "|".join(str(layer) for layer in range(lowest, 3))
    targets = rf".*decoder\.layers\.({layers})\..*\.(q_proj|v_proj)"
    model = peft.get_peft_model(whisper(), peft.LoraConfig(r=2, target_modules=targets))
    per_adapter, positions = 2 * (32 + 32), TOKENS + TOKENS + TOKENS + 20
    work = (3 - lowest) * per_adapter * positions
    counted = count_flops(WHISPER, TOKENS)
    flops = counted.lora_training(work, lowest)
    truth = measured(model.base_model.model, backward=True, **speech())
    # Autograd skips what lies below the adapters in the lowest block, which the formula counts whole.
    block = counted.decoder[lowest]
    assert truth <= flops < truth + block.linear + block.attention
    assert flops < counted.training
    cached = counted.lora_training(work, lowest, cached_encoder=True)
    assert flops - cached == counted.encoder_forward


def test_causal_language_models_are_counted_exactly() -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    llama = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=100,
    )  # fmt: skip
    gpt2 = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=100, bos_token_id=1, eos_token_id=2)
    neox = transformers.GPTNeoXConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=100
    )
    for config in (llama, gpt2, neox):
        model = transformers.AutoModelForCausalLM.from_config(config)
        model.set_attn_implementation("eager")
        counted = count_flops(config.to_dict(), TOKENS)
        assert counted.forward == measured(model, input_ids=torch.zeros(1, TOKENS, dtype=torch.long))
        assert counted.encoder_forward == 0


def test_a_shorter_window_cuts_the_encoder() -> None:
    full, third = count_flops(WHISPER, TOKENS, 18), count_flops(WHISPER, TOKENS, 6)
    assert third.encoder_forward < full.encoder_forward / 3
    assert third.head == full.head


def test_what_cannot_be_counted_is_an_error() -> None:
    with pytest.raises(InputError, match="FLOPs of model type 'bert' are not counted"):
        count_flops({"model_type": "bert"}, 1)
    with pytest.raises(InputError, match="this whisper model lacks decoder_ffn_dim"):
        count_flops({name: value for name, value in WHISPER.items() if name != "decoder_ffn_dim"}, 1)
    with pytest.raises(ValueError, match="lowest_block is 3; the decoder has 3 blocks"):
        count_flops(WHISPER, 1).lora_training(0.0, lowest_block=3)
