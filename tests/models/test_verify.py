"""Bad model folders end in one clear line, before torch loads."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tiny import shared_tiny_whisper, tiny_whisper
from tutelage.errors import InputError
from tutelage.models.verify import read_header, verify_model_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared_tiny_whisper(), tmp_path / "model"))


def refused(folder: Path, **settings: bool) -> str:
    with pytest.raises(InputError) as caught:
        verify_model_folder(folder, **settings)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_sound_folder_passes_and_names_its_weights(folder: Path) -> None:
    found = verify_model_folder(folder)
    assert [file.name for file in found.weights] == ["model.safetensors"]
    assert found.config["model_type"] == "whisper"


def test_a_folder_that_is_not_there_or_is_a_file(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused(tmp_path / "file")


def test_no_config_broken_config_and_another_kind_of_model(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text('{"model_type": "llama"}')
    assert "'llama'" in refused(folder)
    config.write_bytes(b"\xff{")
    assert "not valid JSON" in refused(folder)
    config.write_text("[]")
    assert "no JSON object" in refused(folder)
    config.unlink()
    assert "no config.json" in refused(folder)


def test_no_weights_and_pickled_weights_are_told_apart(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no weights" in refused(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04never read")
    message = refused(folder)
    assert "pytorch_model.bin" in message
    assert "could run code" in message


def test_a_configuration_alone_passes_where_weights_are_not_needed(tmp_path: Path) -> None:
    assert verify_model_folder(tiny_whisper(tmp_path, weights=False), require_weights=False).weights == ()


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1, -4096])
def test_weights_cut_off_anywhere_are_refused(folder: Path, kept: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert "cut off" in refused(folder)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(struct.pack("<Q", 4) + b"null", id="no object"),
        pytest.param(struct.pack("<Q", 9) + b"{not json", id="no json"),
        pytest.param(struct.pack("<Q", 12) + b'{"a": [1,2]}', id="no tensors"),
        pytest.param(struct.pack("<Q", 1 << 60) + b"{}", id="endless header"),
    ],
)
def test_a_header_that_safetensors_would_not_write(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert "damaged" in refused(folder)


def test_bytes_behind_the_last_tensor_are_refused(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as stream:
        stream.write(b"\0" * 16)
    assert "damaged" in refused(folder)


def test_shards_must_be_there_and_inside_the_folder(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}))
    assert len(verify_model_folder(folder).weights) == 1
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors", "b": "gone.safetensors"}}))
    assert "lacks gone.safetensors" in refused(folder)
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    assert "outside its folder" in refused(folder)
    index.write_text(json.dumps({"weight_map": {}}))
    assert "names no weight files" in refused(folder)


def test_the_header_lists_every_tensor_with_its_shape(folder: Path) -> None:
    entries = read_header(folder / "model.safetensors")
    assert entries["model.decoder.embed_tokens.weight"].shape[1] == 32
    assert not any("proj_out" in name for name in entries)


def test_nothing_of_it_imports_torch() -> None:
    modules = "resolve, verify, mirror, ctranslate2, layout, manifest, compute"
    code = f"import sys; from tutelage.models import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
