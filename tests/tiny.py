"""Tiny random Whisper folders for tests: config, safetensors weights, a small but real tokenizer, and a processor.

Covers: a multilingual Whisper of two encoder and four decoder layers, d_model 32, with the special tokens at the end of
the vocabulary in Whisper's own order. Does not cover: weights that transcribe anything; they are random, from a seed.

    from tiny import tiny_whisper
    folder = tiny_whisper(tmp_path / "teacher")                       # 4 s window, vocabulary of 520
    other = tiny_whisper(tmp_path / "other", seed=1, decoder_layers=2, mel_bins=128)
    session = shared_tiny_whisper()                                   # made once a process, treat as read-only
"""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

LANGUAGES = ("en", "zh", "de", "es", "ru", "ko", "fr")  # the order of the library, which counts ids by it
TEXT = (
    "el perro corre por la casa. la niña come una manzana roja y el gato duerme en la silla. un tren azul, "
    "dos árboles verdes, tres flores amarillas. the dog runs through the house; a blue train and two green trees. "
) * 3
MERGED_VOCABULARY = 304  # 256 bytes and 48 merges
FRAMES_PER_SECOND = 50  # encoder positions in a second of audio (hop 10 ms, stride 2)


def special_tokens(window_seconds: float, extra_languages: int = 0) -> list[str]:
    """Whisper's special tokens in Whisper's order, with timestamps every 20 ms up to the window."""
    languages = [*LANGUAGES, *("ja", "pt", "tr", "pl")[:extra_languages]]
    return [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{language}|>" for language in languages),
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
        *(f"<|{step * 0.02:.2f}|>" for step in range(int(window_seconds * FRAMES_PER_SECOND) + 1)),
    ]


@functools.cache
def _merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=MERGED_VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def write_tiny_tokenizer(folder: Path, window_seconds: float = 4.0, extra_languages: int = 0) -> dict[str, int]:
    """Write the files that every supported transformers opens as a WhisperTokenizer; returns the special ids."""
    vocab, merges = _merges()
    specials = special_tokens(window_seconds, extra_languages)
    ids = {token: len(vocab) + index for index, token in enumerate(specials)}
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    is_special = {token: token.strip("<|>")[0].isalpha() for token in specials}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": ids[token], "content": token, "special": is_special[token], **flags} for token in specials
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [" ".join(pair) for pair in merges],
        },
    }
    end = "<|endoftext|>"
    names = {f"{name}_token": end for name in ("bos", "eos", "pad", "unk")}
    decoder = {str(ids[token]): {"content": token, "special": is_special[token], **flags} for token in specials}
    additional = [token for token in specials if is_special[token]]
    settings = {
        "tokenizer_class": "WhisperTokenizer",
        "processor_class": "WhisperProcessor",
        "model_max_length": 448,
        "add_prefix_space": False,
        "errors": "replace",
        "return_attention_mask": False,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": additional,
        **names,
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "tokenizer.json", document)
    _write(folder / "tokenizer_config.json", settings)
    _write(folder / "special_tokens_map.json", {**names, "additional_special_tokens": additional})
    _write(folder / "added_tokens.json", ids)
    _write(folder / "vocab.json", vocab)
    _write(folder / "normalizer.json", {"colour": "color"})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ids


def tiny_whisper(
    folder: Path,
    *,
    seed: int = 0,
    encoder_layers: int = 2,
    decoder_layers: int = 4,
    d_model: int = 32,
    heads: int = 4,
    mel_bins: int = 80,
    window_seconds: float = 4.0,
    extra_languages: int = 0,
    init_std: float = 0.1,
    weights: bool = True,
) -> Path:
    """Write a tiny random Whisper into `folder` and return it.

    Args:
        folder: Where; made if it does not exist.
        seed: Seed of the weights; the global random state is left as it was.
        encoder_layers: Encoder blocks.
        decoder_layers: Decoder blocks.
        d_model: Hidden width; the feed-forward width is twice that.
        heads: Attention heads, in both halves.
        mel_bins: 80 or 128, as real checkpoints have.
        window_seconds: Whole seconds of audio the model takes (real Whisper: 30).
        extra_languages: Further language tokens, which shift every later id (as large-v3 does).
        init_std: Spread of the random weights; large enough that logits differ between inputs.
        weights: False writes the configuration only.
    """
    import torch
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    ids = write_tiny_tokenizer(folder, window_seconds, extra_languages)
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    config = WhisperConfig(
        vocab_size=max(ids.values()) + 1,
        num_mel_bins=mel_bins,
        d_model=d_model,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=2 * d_model,
        decoder_ffn_dim=2 * d_model,
        max_source_positions=int(window_seconds * FRAMES_PER_SECOND),
        max_target_positions=64,
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        begin_suppress_tokens=None,
        suppress_tokens=None,
        init_std=init_std,
        architectures=["WhisperForConditionalGeneration"],
    )
    generation = GenerationConfig(
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
        begin_suppress_tokens=[end],
        suppress_tokens=[start, ids["<|startoflm|>"], ids["<|startofprev|>"], ids["<|nospeech|>"]],
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        max_length=64,
        max_initial_timestamp_index=50,
        return_timestamps=False,
        is_multilingual=True,
        lang_to_id={token: i for token, i in ids.items() if 2 <= len(token.strip("<|>")) <= 3 and token[2].isalpha()},
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        alignment_heads=[[layer, layer % heads] for layer in range(decoder_layers // 2, decoder_layers)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    WhisperFeatureExtractor(feature_size=mel_bins, chunk_length=int(window_seconds)).save_pretrained(folder)
    if weights:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = WhisperForConditionalGeneration(config)
        model.generation_config = generation
        model.save_pretrained(folder)
    else:
        config.save_pretrained(folder)
    return folder


@functools.cache
def shared_tiny_whisper(**settings: int) -> Path:
    """One tiny folder a process for tests that only read; `settings` as in `tiny_whisper`."""
    return tiny_whisper(Path(tempfile.mkdtemp(prefix="tiny-whisper-")), **settings)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
