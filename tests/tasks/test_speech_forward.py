"""One pass, aligned with its labels: no position looks ahead, padding reaches nothing, adapters stay on the path."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from tutelage.tasks.speech.batch import SpeechBatch, collate
from tutelage.tasks.speech.forward import decode
from tutelage.tasks.speech.labels import LabelCodec

BLOCKS = 4
CLOSE = 1e-5  # float32, another order of sums


@pytest.fixture
def batch(codec: LabelCodec) -> SpeechBatch:
    generator = torch.Generator().manual_seed(0)
    outputs = list(torch.randn(3, 200, 32, generator=generator))
    texts = [codec.encode(text) for text in ("el perro corre", "gato", "una manzana roja")]
    return collate(["a", "b", "c"], outputs, texts, codec)


def test_shapes_and_states(speech_model: Any, batch: SpeechBatch) -> None:
    with torch.no_grad():
        signal = decode(speech_model, batch, (0, 2, BLOCKS))
        assert set(signal.states) == {0, 2, BLOCKS}
        rows, positions = batch.labels_BT.shape
        assert signal.logits_BTV.shape == (rows, positions, speech_model.config.vocab_size)
        # The last block's state is what the head reads.
        torch.testing.assert_close(speech_model.proj_out(signal.states[BLOCKS]), signal.logits_BTV)
        embedding = speech_model.model.decoder.embed_tokens(batch.decoder_input_ids_BT)
        places = speech_model.model.decoder.embed_positions.weight[:positions]
        torch.testing.assert_close(signal.states[0], embedding + places)


def test_states_are_of_the_named_block(speech_model: Any, batch: SpeechBatch) -> None:
    seen = {}
    hook = speech_model.model.decoder.layers[1].register_forward_hook(
        lambda module, inputs, output: seen.update(out=output[0] if isinstance(output, tuple) else output)
    )
    try:
        with torch.no_grad():
            signal = decode(speech_model, batch, (2,))
    finally:
        hook.remove()
    assert torch.equal(signal.states[2], seen["out"])


def test_no_layers_keeps_no_states(speech_model: Any, batch: SpeechBatch) -> None:
    with torch.no_grad():
        assert decode(speech_model, batch).states == {}
        torch.testing.assert_close(
            decode(speech_model, batch).logits_BTV, decode(speech_model, batch, (1,)).logits_BTV, atol=CLOSE, rtol=CLOSE
        )


def test_a_layer_that_is_not_there(speech_model: Any, batch: SpeechBatch) -> None:
    with pytest.raises(ValueError, match=r"blocks 1 to 4 .* not \[5\]"):
        decode(speech_model, batch, (4, 5))


def test_position_t_sees_inputs_up_to_t_only(speech_model: Any, batch: SpeechBatch) -> None:
    with torch.no_grad():
        base = decode(speech_model, batch).logits_BTV
        for changed in range(batch.decoder_input_ids_BT.shape[1]):
            inputs = batch.decoder_input_ids_BT.clone()
            inputs[:, changed] = 5
            other = decode(speech_model, replace(batch, decoder_input_ids_BT=inputs)).logits_BTV
            moved = (other - base).abs().amax(dim=(0, 2)) > CLOSE
            assert not moved[:changed].any()
            assert moved[changed:].all()


def test_padding_reaches_no_kept_position(speech_model: Any, batch: SpeechBatch, codec: LabelCodec) -> None:
    with torch.no_grad():
        together = decode(speech_model, batch)
        short = collate(["b"], [batch.encoder_BSH[1]], [codec.encode("gato")], codec)
        alone = decode(speech_model, short)
    torch.testing.assert_close(
        together.logits_BTV[1][batch.keep_BT[1]], alone.logits_BTV[0][short.keep_BT[0]], atol=CLOSE, rtol=CLOSE
    )


def test_the_loss_equals_the_librarys_own(speech_model: Any, batch: SpeechBatch) -> None:
    """Whisper shifts labels itself; ours are shifted already. One clip at a time, so that padding plays no part."""
    from transformers.modeling_outputs import BaseModelOutput

    with torch.no_grad():
        for row in range(3):
            kept = batch.keep_BT[row]
            ours = decode(speech_model, batch).logits_BTV[row][kept]
            loss = torch.nn.functional.cross_entropy(ours, batch.labels_BT[row][kept])
            used = int(kept.nonzero().max()) + 1
            labels = batch.labels_BT[row, :used].clone()
            labels[~kept[:used]] = -100
            theirs = speech_model(
                encoder_outputs=BaseModelOutput(last_hidden_state=batch.encoder_BSH[row : row + 1]),
                decoder_input_ids=batch.decoder_input_ids_BT[row : row + 1, :used],
                labels=labels[None],
            ).loss
            torch.testing.assert_close(loss, theirs, atol=CLOSE, rtol=CLOSE)


def test_adapters_are_on_the_path(speech_model: Any, batch: SpeechBatch) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=r".*decoder.*\.(q_proj|v_proj)", init_lora_weights=False)
    wrapped = get_peft_model(copy.deepcopy(speech_model), config)
    signal = decode(wrapped, batch, (BLOCKS,))
    with torch.no_grad():
        assert (signal.logits_BTV - decode(speech_model, batch).logits_BTV).abs().max() > CLOSE
    signal.logits_BTV.square().sum().backward()
    assert all(p.grad is not None for p in wrapped.parameters() if p.requires_grad)
