"""FLOPs of the models that we build: training on one utterance or one row of text, and transcribing one utterance.

Counted product by product from the configuration (`laws.architecture`), never from a parameter count. Covers Whisper
and causal language models. Does not cover feature extraction, norms and activations (no matrix products), projectors
(`extra_params`), or time: on a CPU, time is not FLOPs, and only `evaluation.speed` measures it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.laws.architecture import ModelFlops, count_flops
from tutelage.models.verify import architecture_of

_DECODER, _ENCODER = ["model", "decoder", "layers"], ["model", "encoder", "layers"]


@dataclass(frozen=True)
class TranscriptionFlops:
    """What transcribing one window takes, in FLOPs.

    Args:
        encoder: The encoder, over its whole window however short the speech.
        decoder: The decoder with its head, one token at a time with the key-value cache.
    """

    encoder: float
    decoder: float

    @property
    def total(self) -> float:
        """Both."""
        return self.encoder + self.decoder


def utterance_flops(config: Mapping[str, Any], tokens: int) -> ModelFlops:
    """Forward FLOPs of one utterance, teacher-forced, over the model's own window.

    Args:
        config: The model's configuration (`model.config.to_dict()`).
        tokens: Decoder positions, the prompt among them.
    """
    return count_flops(config, tokens)


def transcription_flops(config: Mapping[str, Any], tokens: int) -> TranscriptionFlops:
    """FLOPs of one greedy transcription with the key-value cache.

    The cross-attention's keys and values are made once; the token at position t attends to t + 1 tokens, itself among
    them, and to the whole window.

    Args:
        config: The model's configuration.
        tokens: Decoder positions that are computed, the prompt among them.
    """
    whole = count_flops(config, tokens)
    # Teacher forcing attends to all pairs, the cache only to the past: half of them and half of the diagonal.
    spared = 4.0 * int(config["d_model"]) * (tokens * tokens - tokens * (tokens + 1) / 2)
    return TranscriptionFlops(whole.encoder_forward, whole.decoder_forward - spared * int(config["decoder_layers"]))


def lora_utterance_flops(
    model: Any,
    adapted: Collection[str],
    rank: int | Mapping[str, int],
    tokens: int,
    *,
    cached_encoder: bool,
    extra_params: int = 0,
) -> float:
    """FLOPs of training adapters on one utterance: forward and backward of student, its frozen part included.

    F + (F_lin + 2 F_attn of the decoder blocks from the lowest adapter up) + F_head + 6 N_adapter per position. It is a
    little too much: the lowest block is counted whole, and so are the gradients of cross-attention keys and values that
    have no adapter. The teacher's forward pass is not in it (`utterance_flops` of the teacher).

    Args:
        model: The student, on any device; adapters need not be built.
        adapted: Full names of the layers that have one (`students.lora.target_modules`).
        rank: Their rank, or the rank of each.
        tokens: Decoder positions.
        cached_encoder: Whether the encoder's output is read from a cache; not with adapters in the encoder.
        extra_params: Further trained parameters that see each decoder position (projectors).

    Raises:
        ValueError: Nothing is adapted, or something outside of the blocks, or an encoder whose output is cached.
    """
    ranks = _each(adapted, rank)
    outside = [name for name in adapted if name.split(".")[:3] not in (_DECODER, _ENCODER)]
    if outside or not adapted:
        raise ValueError(f"adapters in the blocks are counted; {outside[:3] or 'none'} given")
    positions = int(model.config.max_source_positions)
    work = float(extra_params) * tokens
    for name in adapted:
        layer = model.get_submodule(name)
        # Keys and values of the cross-attention are made from the encoder's positions.
        in_encoder = name.startswith("model.encoder.") or name.endswith(("encoder_attn.k_proj", "encoder_attn.v_proj"))
        sees = positions if in_encoder else tokens
        work += ranks[name] * (layer.in_features + layer.out_features) * sees
    lowest, lowest_encoder = (
        min((int(name.split(".")[3]) for name in adapted if name.split(".")[:3] == half), default=None)
        for half in (_DECODER, _ENCODER)
    )
    flops = count_flops(model.config.to_dict(), tokens)
    return flops.lora_training(work, lowest or 0, cached_encoder, lowest_encoder)


def row_training_flops(
    model: Any, adapted: Collection[str], rank: int | Mapping[str, int], tokens: int, *, extra_params: int = 0
) -> float:
    """FLOPs of training a causal language model on one row of text: forward and backward.

    With adapters F + (F_lin + 2 F_attn of the blocks from the lowest adapter up) + F_head + 6 N_adapter per position;
    without any, every weight is trained: 3 F. Attention counts every pair of positions of the row, masked or not. The
    teacher's forward pass is not in it (`count_flops` of the teacher).

    Args:
        model: The student, on any device; adapters need not be built.
        adapted: Full names of the layers that have an adapter; none where every weight is trained.
        rank: Their rank, or the rank of each.
        tokens: Positions of the row.
        extra_params: Further trained parameters that see each position (projectors).
    """
    config = model.config.to_dict()
    flops = count_flops(config, tokens)
    if not adapted:
        return flops.training + 6.0 * extra_params * tokens
    blocks = architecture_of(config).blocks
    ranks = _each(adapted, rank)
    work = sum(ranks[name] * sum(layer_sizes(model.get_submodule(name))) for name in adapted) + extra_params
    lowest = min(int(name.removeprefix(f"{blocks}.").split(".")[0]) for name in adapted)
    return flops.lora_training(float(work) * tokens, lowest_block=lowest)


def dora_pass_flops(model: Any, ranks: Mapping[str, int]) -> float:
    """FLOPs that DoRA adds to one pass, whatever the positions: the update B A of every layer, for its lengths.

    With dropout PEFT makes the frozen product of each layer a second time, which is not counted.

    Args:
        model: The student, on any device; adapters need not be built.
        ranks: Full names of the adapted layers with their ranks.
    """
    sizes = {name: layer_sizes(model.get_submodule(name)) for name in ranks}
    # PEFT multiplies an identity matrix by A and then by B.
    return sum(2.0 * rank * sizes[name][0] * sum(sizes[name]) for name, rank in ranks.items())


def _each(adapted: Collection[str], rank: int | Mapping[str, int]) -> Mapping[str, int]:
    return rank if isinstance(rank, Mapping) else dict.fromkeys(adapted, rank)


def layer_sizes(layer: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear layer; GPT-2 keeps its weights the other way round (`Conv1D`)."""
    if hasattr(layer, "in_features"):
        return int(layer.in_features), int(layer.out_features)
    inputs, outputs = layer.weight.shape
    return int(inputs), int(outputs)
