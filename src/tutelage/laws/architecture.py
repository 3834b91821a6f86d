"""FLOPs of a model whose configuration is known, counted product by product.

Covers: Whisper-like encoder-decoders and causal language models of the Llama, GPT-2 and GPT-NeoX layouts; the cost of a
forward pass, of training every weight, and of training LoRA adapters on a frozen model. Does not cover: embeddings,
norms, softmax and activations (no matrix products), mixtures of experts, windowed attention, and generation one token
at a time. Published laws have their own count, `tutelage.laws.compute.ForwardCost`; the two are not mixed.

A multiplication with its addition is two FLOPs. Attention counts every pair of positions, masked or not, as the usual
kernels compute it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.errors import InputError
from tutelage.laws.compute import TRAINING_TO_FORWARD

_GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "olmo", "olmo2", "smollm3")
"""Causal models with `hidden_size`, grouped keys and a feed-forward part of three products."""

_PLAIN = {
    "gpt2": ("n_embd", "n_inner", "n_layer"),
    "gpt_neox": ("hidden_size", "intermediate_size", "num_hidden_layers"),
}
"""Causal models with as many keys as heads and a feed-forward part of two products: their names of width, inner width
(four times the width where it is not given) and blocks."""


@dataclass(frozen=True)
class BlockFlops:
    """Forward FLOPs of one block over one sequence.

    Args:
        linear: Products of the sequence with weights.
        attention: Products of the sequence with itself or with the encoder's output.
        memory: Products of the encoder's output with the block's cross-attention weights.
    """

    linear: float
    attention: float
    memory: float = 0.0

    @property
    def forward(self) -> float:
        """All of them."""
        return self.linear + self.attention + self.memory


@dataclass(frozen=True)
class ModelFlops:
    """Forward FLOPs of one sequence, part by part.

    Args:
        decoder: The blocks of the decoder, or of a model without an encoder, first to last.
        head: The product with the vocabulary.
        encoder: The blocks of the encoder.
        stem: What comes before the encoder's blocks.
    """

    decoder: tuple[BlockFlops, ...]
    head: float
    encoder: tuple[BlockFlops, ...] = ()
    stem: float = 0.0

    @property
    def encoder_forward(self) -> float:
        """Forward FLOPs of the encoder with its stem; what a cache of its outputs saves."""
        return self.stem + sum(block.forward for block in self.encoder)

    @property
    def decoder_forward(self) -> float:
        """Forward FLOPs of the decoder with the head."""
        return self.head + sum(block.forward for block in self.decoder)

    @property
    def forward(self) -> float:
        """Forward FLOPs of the whole model."""
        return self.encoder_forward + self.decoder_forward

    @property
    def training(self) -> float:
        """FLOPs of training every weight on this sequence: forward and backward."""
        return TRAINING_TO_FORWARD * self.forward

    def lora_training(
        self,
        adapter_work: float,
        lowest_block: int = 0,
        cached_encoder: bool = False,
        lowest_encoder_block: int | None = None,
    ) -> float:
        """FLOPs of training LoRA adapters, everything else frozen.

        F + (F_lin + 2 F_attn of the blocks from the lowest adapter up) + F_head + 6 N_adapter per position: frozen
        weights need no gradient of their own, and nothing below the lowest adapter needs any. The block of the lowest
        adapter is counted whole, which is too much by less than that block. Adapters in the encoder are reached through
        the keys and values of every decoder block.

        Args:
            adapter_work: Parameters of each adapter times the positions that it sees, summed over the adapters.
            lowest_block: Index of the lowest decoder block with an adapter, from 0.
            cached_encoder: Whether the encoder's output is read rather than computed.
            lowest_encoder_block: Index of the lowest encoder block with an adapter; None where the encoder is frozen.
        """
        if not 0 <= lowest_block < len(self.decoder):
            raise ValueError(f"lowest_block is {lowest_block}; the decoder has {len(self.decoder)} blocks")
        forward = self.decoder_forward if cached_encoder else self.forward
        if lowest_encoder_block is None:
            reached = self.decoder[lowest_block:]
            through = 0.0
        else:
            if cached_encoder or not 0 <= lowest_encoder_block < len(self.encoder):
                raise ValueError("an encoder with adapters is run, and its lowest adapter is in one of its blocks")
            reached = self.decoder + self.encoder[lowest_encoder_block:]
            through = sum(block.memory for block in self.decoder)
        through += sum(block.linear + 2.0 * block.attention for block in reached)
        return forward + through + self.head + 6.0 * adapter_work


def count_flops(config: Mapping[str, Any], tokens: int, encoder_positions: int | None = None) -> ModelFlops:
    """Count the forward FLOPs of one sequence from a model's configuration.

    Args:
        config: The configuration as a mapping (`config.json`, or `config.to_dict()`).
        tokens: Positions of the decoder, or of the language model.
        encoder_positions: Positions of the encoder's output; None for its whole window.

    Raises:
        InputError: A model type that is not counted here, or a size that the configuration lacks.

    Example:
        >>> whisper = {"model_type": "whisper", "d_model": 4, "encoder_layers": 1, "decoder_layers": 1,
        ...            "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "vocab_size": 10, "num_mel_bins": 2,
        ...            "max_source_positions": 6}
        >>> count_flops(whisper, tokens=3).head
        240.0
    """
    kind = config.get("model_type")
    try:
        if kind == "whisper":
            return _whisper(config, tokens, encoder_positions or int(config["max_source_positions"]))
        if kind in _GATED:
            return _gated(config, tokens)
        if kind in _PLAIN:
            return _plain(config, tokens, _PLAIN[str(kind)])
    except KeyError as error:
        raise InputError(f"the configuration of this {kind} model lacks {error.args[0]}") from error
    raise InputError(
        f"FLOPs of model type {kind!r} are not counted; known are whisper, {', '.join((*_PLAIN, *_GATED))}"
    )


def _whisper(config: Mapping[str, Any], tokens: int, positions: int) -> ModelFlops:
    width = int(config["d_model"])
    square = 2.0 * width * width
    encoder = BlockFlops(
        linear=positions * (4.0 * square + 4.0 * width * int(config["encoder_ffn_dim"])),
        attention=4.0 * positions * positions * width,
    )
    decoder = BlockFlops(
        linear=tokens * (6.0 * square + 4.0 * width * int(config["decoder_ffn_dim"])),
        attention=4.0 * tokens * (tokens + positions) * width,
        memory=positions * 2.0 * square,
    )
    # Two convolutions of width 3; the second halves the frames.
    kernel = 3
    stem = 2.0 * kernel * width * (2 * positions * int(config["num_mel_bins"]) + positions * width)
    return ModelFlops(
        decoder=(decoder,) * int(config["decoder_layers"]),
        head=2.0 * tokens * width * int(config["vocab_size"]),
        encoder=(encoder,) * int(config["encoder_layers"]),
        stem=stem,
    )


def _gated(config: Mapping[str, Any], tokens: int) -> ModelFlops:
    width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    head_width = int(config.get("head_dim") or width // heads)
    inner = heads * head_width
    keys = int(config.get("num_key_value_heads") or heads) * head_width
    weights = 2 * width * inner + 2 * width * keys + 3 * width * int(config["intermediate_size"])
    block = BlockFlops(linear=2.0 * tokens * weights, attention=4.0 * tokens * tokens * inner)
    head = 2.0 * tokens * width * int(config["vocab_size"])
    return ModelFlops(decoder=(block,) * int(config["num_hidden_layers"]), head=head)


def _plain(config: Mapping[str, Any], tokens: int, names: tuple[str, str, str]) -> ModelFlops:
    width = int(config[names[0]])
    inner = int(config.get(names[1]) or 4 * width)
    block = BlockFlops(
        linear=2.0 * tokens * (4 * width * width + 2 * width * inner), attention=4.0 * tokens * tokens * width
    )
    head = 2.0 * tokens * width * int(config["vocab_size"])
    return ModelFlops(decoder=(block,) * int(config[names[2]]), head=head)
