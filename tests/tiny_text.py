"""Tiny random causal language models for tests: config, safetensors weights and a small but real byte-level tokenizer.

Covers the layouts Llama, Qwen2, Qwen3, GPT-NeoX and GPT-2 with four blocks of width 32, a vocabulary of 300, and a chat
template. Does not cover weights that say anything; they are random, from a seed.

    from tiny_text import tiny_text
    folder = tiny_text(tmp_path / "teacher", "qwen3")
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

LAYOUTS = ("llama", "qwen2", "qwen3", "gpt_neox", "gpt2")
BLOCKS = 4
WIDTH = 32
POSITIONS = 128
VOCABULARY = 300  # 256 bytes, three special tokens and 41 merges
TEXT = (
    "In the beginning was the word, and the word was with the people. A blue train passes the green house; the dog "
    "runs through the garden and the children sing. "
) * 3
CHAT = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|stop|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)


def tiny_tokenizer(chat: str | None = CHAT) -> Any:
    """A byte-level BPE tokenizer of 300 tokens; `<|endoftext|>` begins, ends and pads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|start|>", "<|stop|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator([TEXT], trainer)
    end = special[0]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=end, eos_token=end, pad_token=end, additional_special_tokens=special[1:]
    )
    tokenizer.chat_template = chat
    return tokenizer


def tiny_config(layout: str, blocks: int = BLOCKS, width: int = WIDTH, *, tied: bool = True) -> Any:
    """The configuration of one layout."""
    from transformers import AutoConfig

    shared: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "tie_word_embeddings": tied,
    }
    if layout == "gpt2":
        sizes = {"n_embd": width, "n_layer": blocks, "n_head": 4, "n_positions": POSITIONS}
        quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return AutoConfig.for_model(layout, **shared, **sizes, **quiet)
    sizes = {
        "hidden_size": width,
        "num_hidden_layers": blocks,
        "num_attention_heads": 4,
        "intermediate_size": 2 * width,
    }
    if layout != "gpt_neox":
        sizes["num_key_value_heads"] = 2
    if layout == "qwen3":
        sizes["head_dim"] = width // 4
    return AutoConfig.for_model(layout, **shared, **sizes, max_position_embeddings=POSITIONS, initializer_range=0.1)


def tiny_text(
    folder: Path,
    layout: str = "llama",
    *,
    seed: int = 0,
    blocks: int = BLOCKS,
    width: int = WIDTH,
    tied: bool = True,
    weights: bool = True,
    chat: str | None = CHAT,
) -> Path:
    """Write a tiny random model into `folder` and return it; `weights=False` writes the configuration only."""
    import torch
    from transformers import AutoModelForCausalLM

    config = tiny_config(layout, blocks, width, tied=tied)
    folder.mkdir(parents=True, exist_ok=True)
    if weights:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    else:
        config.save_pretrained(folder)
    tiny_tokenizer(chat).save_pretrained(folder)
    return folder


def shared_tiny_text(layout: str = "llama", **settings: Any) -> Path:
    """One tiny folder a process for tests that only read; `settings` as in `tiny_text`."""
    return _shared(layout, **settings)


@functools.cache
def _shared(layout: str, **settings: Any) -> Path:
    return tiny_text(Path(tempfile.mkdtemp(prefix=f"tiny-{layout}-")), layout, **settings)
