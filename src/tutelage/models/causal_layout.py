"""The files of a language model's folder as older libraries look for them, beside what transformers 5 writes.

Transformers 4 reads the rotary settings under other names, knows no `TokenizersBackend`, wants lists of special tokens
under another key, and finds a chat template in tokenizer_config.json only. Both kinds of names are written, and version
5 prefers its own. Covers plain JSON in, plain JSON out. Does not cover Whisper (`layout`). Nothing here imports torch.
"""

from __future__ import annotations

import json
from pathlib import Path

from tutelage.records.files import write_json

_CLASS = "PreTrainedTokenizerFast"
"""What both read as "whatever tokenizer.json says"."""


def write_for_older_readers(folder: Path) -> None:
    """Add to config.json what transformers 4 reads the rotary settings and the type of the weights from."""
    file = folder / "config.json"
    config = json.loads(file.read_bytes())
    rotary = config.get("rope_parameters")
    if isinstance(rotary, dict) and rotary.get("rope_type", "default") == "default" and "rope_theta" in rotary:
        if config["model_type"] == "gpt_neox":
            config |= {"rotary_emb_base": rotary["rope_theta"], "rotary_pct": rotary.get("partial_rotary_factor", 1.0)}
        else:
            config["rope_theta"] = rotary["rope_theta"]
    if "dtype" in config:
        config["torch_dtype"] = config["dtype"]
    write_json(file, config)


def write_tokenizer_settings(folder: Path, template: str | None) -> None:
    """Rewrite tokenizer_config.json so that transformers 4 and 5 both read it, with the chat template inside.

    Args:
        folder: Holds what the tokenizer's `save_pretrained` wrote.
        template: The chat template, or None.
    """
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_bytes())
    settings.pop("backend", None)
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = _CLASS
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    if template is not None:
        settings["chat_template"] = template
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    write_json(file, settings)
