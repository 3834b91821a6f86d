"""One teacher-forced pass of a Whisper decoder over precomputed encoder outputs, or over those of its own encoder.

Covers: the pass that students and teachers share, through the model's public call, so wrappers (PEFT, DDP) stay on
the path. Does not cover: frozen encoders (`features`), generation (`generate`), losses, or any shifting of labels.

Shape letters: B batch, T decoder positions, S encoder positions, V vocabulary, H hidden.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from typing import Any

from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from tutelage.objectives.signal import Signal
from tutelage.tasks.deferral import scores_of, without_head
from tutelage.tasks.speech.batch import SpeechBatch


def decode(
    model: nn.Module, batch: SpeechBatch, layers: Collection[int] = (), *, listen: bool = False, defer: bool = False
) -> Signal:
    """Logits of every decoder position, and the states of some blocks.

    Right padding needs no mask: the decoder looks back only, so kept positions never see it.

    Args:
        model: A Whisper model, plain, PEFT-wrapped or in a data-parallel wrapper.
        batch: On the model's device.
        layers: Decoder blocks whose output is wanted, 1-based; 0 is the embedding output. Empty: none is kept.
        listen: Run the model's own encoder on the batch's features, for one that is trained; the signal then says what
            it put out.
        defer: Leave out the head: logits are then made when and where they are read.

    Returns:
        Logits (B, T, V) aligned with `batch.labels_BT`, and one (B, T, H) tensor a layer. The last block's state is
        taken after the final layer norm, as transformers reports it.

    Raises:
        ValueError: A layer that the decoder does not have, or features that the batch does not have.
    """
    dtype = next(model.parameters()).dtype
    heard: dict[str, Any] = {"encoder_outputs": BaseModelOutput(last_hidden_state=batch.encoder_BSH.to(dtype))}
    if listen:
        if batch.features_BMF is None:
            raise ValueError("the batch has no features for the encoder to listen to.")
        heard = {"input_features": batch.features_BMF.to(dtype)}
    with without_head(model) if defer else nullcontext() as head:
        outputs = model(
            **heard,
            decoder_input_ids=batch.decoder_input_ids_BT,
            output_hidden_states=bool(layers),
            use_cache=False,
            return_dict=True,
        )
    scores = scores_of(outputs.logits, head)
    own = (outputs.encoder_last_hidden_state, batch.heard_BS) if listen else (None, None)
    if not layers:
        return Signal(scores, {}, None, *own)
    states = outputs.decoder_hidden_states
    beyond = sorted(layer for layer in layers if not 0 <= layer < len(states))
    if beyond:
        raise ValueError(f"the decoder has blocks 1 to {len(states) - 1} (0: embeddings), not {beyond}.")
    return Signal(scores, {layer: states[layer] for layer in sorted(layers)}, None, *own)
