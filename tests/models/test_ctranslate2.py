"""The flat file is read to its last byte or refused, and its conversion is the model that it was made from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flat_model import flat_arrays, flat_bytes
from tutelage.errors import InputError
from tutelage.models.ctranslate2 import convert_whisper, read_flat_model
from tutelage.models.layout import complete_timestamps, token_ids
from tutelage.models.load import load_speech_model

Write = Callable[..., Path]


def convert(files: Path, out: Path) -> Path:
    return convert_whisper(files / "model.bin", files / "config.json", files / "tokenizer.json", out)


@pytest.fixture
def damaged(tiny_model: Any, tmp_path: Path) -> Write:
    """Writes the tiny model's file with some arrays replaced."""

    def write(replace: dict[str, Any] | None = None, drop: str = "", **settings: Any) -> Path:
        arrays = {**flat_arrays(tiny_model), **(replace or {})}
        arrays.pop(drop, None)
        path = tmp_path / "model.bin"
        path.write_bytes(flat_bytes(arrays, **settings))
        return path

    return write


def test_the_converted_model_is_the_source_weight_for_weight(flat_files: Path, tiny_model: Any, tmp_path: Path) -> None:
    speech = load_speech_model(convert(flat_files, tmp_path / "out"))
    expected, found = tiny_model.state_dict(), speech.model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert speech.window_seconds == 4


def test_what_generation_needs_is_carried_over(flat_files: Path, tiny_model: Any, tmp_path: Path) -> None:
    speech = load_speech_model(convert(flat_files, tmp_path / "out"))
    for name in (
        "alignment_heads",
        "begin_suppress_tokens",
        "decoder_start_token_id",
        "eos_token_id",
        "is_multilingual",
        "lang_to_id",
        "no_timestamps_token_id",
        "pad_token_id",
        "prev_sot_token_id",
        "suppress_tokens",
        "task_to_id",
    ):
        expected, found = getattr(tiny_model.generation_config, name), getattr(speech.model.generation_config, name)
        assert found == expected, name
    tokenizer = speech.processor.tokenizer
    tokenizer.set_prefix_tokens(language="es", task="transcribe")
    text = "la niña come"
    ids = tokenizer(text).input_ids
    prompt = ["<|startoftranscript|>", "<|es|>", "<|transcribe|>", "<|notimestamps|>"]
    assert tokenizer.convert_ids_to_tokens(ids[:4]) == prompt
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    # The library counts timestamps from behind the last special token.
    assert tokenizer.all_special_ids[-1] + 1 == tokenizer.convert_tokens_to_ids("<|0.00|>")


def test_half_precision_becomes_the_same_numbers_in_float32(flat_files: Path, tiny_model: Any, tmp_path: Path) -> None:
    arrays = {name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in flat_arrays(tiny_model).items()}
    files = Path(shutil.copytree(flat_files, tmp_path / "half"))
    (files / "model.bin").write_bytes(flat_bytes(arrays))
    found = load_speech_model(convert(files, tmp_path / "out")).model.state_dict()
    for name, tensor in tiny_model.state_dict().items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor.half().float()), name


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_off_anywhere_is_refused(flat_files: Path, tmp_path: Path, share: float) -> None:
    content = (flat_files / "model.bin").read_bytes()
    path = tmp_path / "cut.bin"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="cut off or damaged"):
        read_flat_model(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_noise_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "noise.bin"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_flat_model(path)


def test_another_version_architecture_or_trailing_bytes(damaged: Write) -> None:
    with pytest.raises(InputError, match="begins with 5"):
        read_flat_model(damaged(version=5))
    with pytest.raises(InputError, match="TransformerSpec"):
        read_flat_model(damaged(spec="TransformerSpec"))
    path = damaged()
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match="1 bytes follow"):
        read_flat_model(path)


def test_what_is_no_plain_whisper_is_refused_by_name(damaged: Write, flat_files: Path, tmp_path: Path) -> None:
    fused = "decoder/layer_0/self_attention/linear_0"
    for replace, drop, words in (
        ({f"{fused}/weight": np.zeros((96, 32), np.int8)}, "", "quantised"),
        ({f"{fused}/bias": np.ones(96, np.float32)}, "", "bias on its keys"),
        (None, "encoder/layer_1/ffn/linear_0/bias", "lacks an array"),
    ):
        path = damaged(replace, drop)
        with pytest.raises(InputError, match=words):
            convert_whisper(path, flat_files / "config.json", flat_files / "tokenizer.json", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_another_size_is_refused(flat_files: Path, tmp_path: Path) -> None:
    document = json.loads((flat_files / "tokenizer.json").read_bytes())
    document["added_tokens"].pop()
    other = tmp_path / "tokenizer.json"
    other.write_text(json.dumps(document))
    with pytest.raises(InputError, match="tokens; the model has"):
        convert_whisper(flat_files / "model.bin", flat_files / "config.json", other, tmp_path / "out")


def test_missing_timestamps_are_added_behind_the_last_token(flat_files: Path) -> None:
    document = json.loads((flat_files / "tokenizer.json").read_bytes())
    assert complete_timestamps(document) == document
    document["added_tokens"] = [token for token in document["added_tokens"] if not token["content"][2].isdigit()]
    ids = token_ids(complete_timestamps(document))
    assert ids["<|0.00|>"] == ids["<|notimestamps|>"] + 1
    assert ids["<|30.00|>"] - ids["<|0.00|>"] == 1500
