"""Models load strictly and safely, count once what is shared, and cost nothing on the meta device."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import shared_tiny_whisper, tiny_whisper
from tutelage.errors import InputError
from tutelage.models.load import count_non_embedding_params, count_params, load_meta, load_speech_model

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared_tiny_whisper(), tmp_path / "model"))


def change_weights(folder: Path, **tensors: torch.Tensor | None) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    for name, tensor in tensors.items():
        key = name.replace("__", ".")
        if tensor is None:
            del state[key]
        else:
            state[key] = tensor
    save_file(state, path, metadata={"format": "pt"})


def test_a_loaded_model_is_in_eval_mode_with_its_processor(folder: Path) -> None:
    speech = load_speech_model(folder)
    assert not speech.model.training
    assert speech.window_seconds == 4
    assert speech.processor.feature_extractor.n_samples == 64_000
    assert speech.model.generation_config.alignment_heads


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_type_is_the_one_asked_for(folder: Path, dtype: str) -> None:
    model = load_speech_model(folder, dtype=dtype).model  # type: ignore[arg-type]
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model__decoder__layers__3__fc1__weight": None}, "lacks model.decoder.layers.3.fc1.weight"),
        ({"model__decoder__layers__4__fc1__weight": torch.zeros(64, 32)}, "has no place for model.decoder.layers.4"),
        ({"model__decoder__layers__3__fc1__weight": torch.zeros(8, 32)}, "model.decoder.layers.3.fc1.weight|ignore"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(folder: Path, change: dict[str, torch.Tensor | None], words: str) -> None:
    change_weights(folder, **change)
    with pytest.raises(InputError, match=words) as caught:
        load_speech_model(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_without_tokenizer_is_one_line(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / name).unlink()
    with pytest.raises(InputError, match="no usable tokenizer"):
        load_speech_model(folder)


def test_the_tokenizer_of_another_model_is_one_line(folder: Path, tmp_path: Path) -> None:
    other = tiny_whisper(tmp_path / "other", extra_languages=1)
    config = json.loads((folder / "config.json").read_bytes())
    shutil.copytree(other, folder, dirs_exist_ok=True)
    shutil.copy(shared_tiny_whisper() / "model.safetensors", folder)
    (folder / "config.json").write_text(json.dumps({**config, "decoder_start_token_id": 0}))
    with pytest.raises(InputError, match="is not the model's"):
        load_speech_model(folder)


def test_code_in_the_folder_is_not_run(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    config["auto_map"] = {"AutoModelForSpeechSeq2Seq": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('run')")
    assert type(load_speech_model(folder).model).__module__.startswith("transformers.")


def test_the_meta_model_counts_what_the_loaded_one_counts(folder: Path) -> None:
    meta, real = load_meta(folder), load_speech_model(folder).model
    assert all(parameter.is_meta for parameter in meta.parameters())
    assert count_params(meta) == count_params(real)
    assert count_non_embedding_params(meta) == count_non_embedding_params(real)


def test_the_tied_head_is_counted_once_and_embeddings_are_all_left_out(folder: Path) -> None:
    model = load_speech_model(folder).model
    stored = load_file(folder / "model.safetensors")
    assert count_params(model) == sum(tensor.numel() for tensor in stored.values())
    embeddings = sum(tensor.numel() for name, tensor in stored.items() if "embed_" in name)
    assert count_params(model) - count_non_embedding_params(model) == embeddings


@pytest.mark.parametrize(
    ("name", "params"), [("whisper-large-v3-config", 1_543_490_560), ("whisper-medium-config", 763_857_920)]
)
def test_the_shipped_configurations_are_the_published_sizes(name: str, params: int) -> None:
    assert count_params(load_meta(EXAMPLES / name)) == params


def test_the_factory_leaves_the_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    tiny_whisper(tmp_path / "other", seed=3)
    assert torch.equal(torch.rand(3), expected)
