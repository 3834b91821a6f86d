"""What transformers 4 looks for is in the folder, beside what transformers 5 writes, with the same values.

That transformers 4.48.3 computes the same logits and ids from these files was seen once, outside the suite.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiny_text import CHAT, LAYOUTS, tiny_config, tiny_tokenizer
from tutelage.models.causal_layout import write_for_older_readers, write_tokenizer_settings

THETA = 500_000.0


def read(file: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return settings


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "gpt2"])
def test_rotary_settings_are_under_both_names(tmp_path: Path, layout: str) -> None:
    config = tiny_config(layout)
    config.rope_parameters["rope_theta"] = THETA
    config.dtype = "float32"
    config.save_pretrained(tmp_path)
    write_for_older_readers(tmp_path)
    written = read(tmp_path / "config.json")
    assert written["rope_parameters"]["rope_theta"] == THETA
    assert written["rotary_emb_base" if layout == "gpt_neox" else "rope_theta"] == THETA
    if layout == "gpt_neox":
        assert written["rotary_pct"] == written["rope_parameters"]["partial_rotary_factor"]
    assert written["torch_dtype"] == written["dtype"] == "float32"


def test_tokenizer_settings_are_as_both_read_them(tmp_path: Path) -> None:
    tiny_tokenizer(chat=None).save_pretrained(tmp_path)
    write_tokenizer_settings(tmp_path, CHAT)
    written = read(tmp_path / "tokenizer_config.json")
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert written["additional_special_tokens"] == ["<|start|>", "<|stop|>"]
    assert not {"backend", "extra_special_tokens"} & {*written}
    assert written["chat_template"] == (tmp_path / "chat_template.jinja").read_text(encoding="utf-8") == CHAT
