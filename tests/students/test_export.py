"""An exported student is an ordinary folder: strict, complete, equal to what was trained, and free of this package."""

from __future__ import annotations

import errno
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tiny import shared_tiny_whisper
from tutelage.errors import InputError, TutelageError
from tutelage.models.load import SpeechModel, load_speech_model
from tutelage.models.verify import read_header
from tutelage.students import export as export_module
from tutelage.students.design import Lora
from tutelage.students.export import AdapterBase, export_student, merged_model, save_adapter
from tutelage.students.lora import add_lora, trainable_parameters
from tutelage.students.shrink import shrink_speech_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_export.py"
MERGE_TOLERANCE = 2e-5
"""W x + s B A x against (W + s B A) x in float32, through two layers; logits here are of order 1."""
BASE = AdapterBase("openai/whisper-base", "abc", (0, 3), 2.0)


def trained_student() -> SpeechModel:
    """A shrunken student whose adapters are no longer zero."""
    shrunk = shrink_speech_model(load_speech_model(shared_tiny_whisper()), 2, 2)
    model = add_lora(shrunk.model, Lora(targets=("q_proj", "v_proj", "fc1")), 4, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in trainable_parameters(model):
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return SpeechModel(model.eval(), shrunk.processor)


@pytest.fixture(scope="module")
def student() -> SpeechModel:
    return trained_student()


@pytest.fixture(scope="module")
def exported(student: SpeechModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_student(student.model, student.processor, tmp_path_factory.mktemp("run") / "student", "es").path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "noise.wav"
    noise = np.random.default_rng(3).normal(scale=0.1, size=20_000)
    soundfile.write(path, noise, 16_000, subtype="FLOAT")
    return path


def logits(model: Any) -> torch.Tensor:
    encoded = torch.randn(1, 100, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[305, 309, 314, 318, 10, 20, 30]])
    with torch.no_grad():
        return torch.as_tensor(model(encoder_outputs=(encoded,), decoder_input_ids=ids).logits)


def check(*arguments: str | Path) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SCRIPT.anchor)
    assert done.returncode == 0, done.stderr[-2000:]
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def test_the_merged_student_says_what_the_adapters_say(student: SpeechModel, exported: Path) -> None:
    before = logits(student.model)
    with student.model.disable_adapter():
        assert (logits(student.model) - before).abs().max() > 100 * MERGE_TOLERANCE, "the adapters must matter"
    torch.testing.assert_close(logits(load_speech_model(exported).model), before, atol=MERGE_TOLERANCE, rtol=0)


def test_exporting_leaves_the_student_as_it_was(tmp_path: Path) -> None:
    student = trained_student()
    before = {name: tensor.clone() for name, tensor in student.model.state_dict().items()}
    export_student(student.model, student.processor, tmp_path / "student", "es")
    after = student.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert getattr(student.model.generation_config, "language", None) is None


@pytest.mark.slow
def test_a_process_that_imports_transformers_alone_transcribes(
    student: SpeechModel, exported: Path, clip: Path
) -> None:
    document = check(exported, clip, "--max-new-tokens", "6", "--word-timestamps")
    assert document["faults"] == []
    assert not document["tutelage_imported"]
    assert document["window_seconds"] == 2
    samples, rate = soundfile.read(clip, dtype="float32")
    features = student.processor.feature_extractor(samples, sampling_rate=rate, return_tensors="pt").input_features
    with torch.no_grad():
        merged = merged_model(student.model)
        expected = merged.generate(features, language="es", task="transcribe", max_new_tokens=6)
    (answer,) = document["clips"]
    assert answer["tokens"] == expected[0].tolist()
    assert len(answer["token_seconds"]) == len(answer["tokens"])
    assert max(answer["token_seconds"]) <= document["window_seconds"]


def test_a_folder_that_does_not_fit_fails_the_check(exported: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(exported, tmp_path / "broken"))
    config = json.loads((broken / "config.json").read_bytes())
    (broken / "config.json").write_text(json.dumps({**config, "decoder_layers": 3}))
    _, _, faults = runpy.run_path(str(SCRIPT))["load"](broken)
    assert faults
    assert all("decoder.layers.2" in fault for fault in faults)


def test_every_file_that_a_library_looks_for_is_there(exported: Path) -> None:
    names = {file.name for file in exported.iterdir()}
    assert names >= {
        "added_tokens.json",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "preprocessor_config.json",
        "processor_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    }
    # Transformers 4.48 cannot open a folder whose processor_config.json nests the feature extractor.
    assert json.loads((exported / "processor_config.json").read_bytes()) == {"processor_class": "WhisperProcessor"}
    assert json.loads((exported / "preprocessor_config.json").read_bytes())["chunk_length"] == 2
    modes = {file.stat().st_mode for file in exported.iterdir()}
    assert len(modes) == 1, "all files are as readable as the user's umask makes them"


def test_nothing_of_training_or_of_this_machine_is_in_the_folder(exported: Path) -> None:
    names = read_header(exported / "model.safetensors")
    assert not [name for name in names if "lora" in name or "projector" in name or not name.startswith("model.")]
    text = "".join(file.read_text() for file in exported.glob("*.json"))
    assert str(shared_tiny_whisper()) not in text


def test_language_and_task_are_the_defaults(exported: Path) -> None:
    speech = load_speech_model(exported)
    assert (speech.model.generation_config.language, speech.model.generation_config.task) == ("es", "transcribe")
    ids = speech.processor.tokenizer("la niña").input_ids
    prompt = ["<|startoftranscript|>", "<|es|>", "<|transcribe|>", "<|notimestamps|>"]
    assert speech.processor.tokenizer.convert_ids_to_tokens(ids[:4]) == prompt


def test_the_tokenizer_is_the_same_one(student: SpeechModel, exported: Path) -> None:
    original, copy = student.processor.tokenizer, load_speech_model(exported).processor.tokenizer
    assert copy.get_vocab() == original.get_vocab()
    assert copy.all_special_ids[-1] + 1 == copy.convert_tokens_to_ids("<|0.00|>")
    for text in ("la niña come", "¿qué? 東京 12", " dos  espacios ", "<|es|> no"):
        ids = original(text, add_special_tokens=False).input_ids
        assert copy(text, add_special_tokens=False).input_ids == ids
        assert copy.decode(ids) == original.decode(ids)


def test_an_unknown_language_or_task_is_refused(student: SpeechModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"knows no language 'xx'. It knows: de, en, es"):
        export_student(student.model, student.processor, tmp_path / "student", "xx")
    with pytest.raises(InputError, match="knows no task 'sing'"):
        export_student(student.model, student.processor, tmp_path / "student", "es", task="sing")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_not_touched(student: SpeechModel, tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    for write in (
        lambda out: export_student(student.model, student.processor, out, "es"),
        lambda out: save_adapter(student.model, out, BASE),
    ):
        with pytest.raises(InputError, match="exists already"):
            write(tmp_path / "student")
    assert list((tmp_path / "student").iterdir()) == []


def test_a_disk_that_fills_leaves_nothing(
    student: SpeechModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export_module, "write_tokenizer_files", fill)
    with pytest.raises(InputError, match="disk is full"):
        export_student(student.model, student.processor, tmp_path / "student", "es")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_training_alone_are_refused(tmp_path: Path) -> None:
    student = trained_student()
    student.model.get_base_model().projector = torch.nn.Linear(2, 2)
    with pytest.raises(TutelageError, match=r"training alone: projector\."):
        export_student(student.model, student.processor, tmp_path / "student", "es")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    student = trained_student()
    with torch.no_grad():
        trainable_parameters(student.model)[0][1].fill_(float("nan"))
    with pytest.raises(TutelageError, match="cannot be merged"):
        export_student(student.model, student.processor, tmp_path / "student", "es")


def test_the_adapter_by_itself_fits_the_model_that_it_names(student: SpeechModel, tmp_path: Path) -> None:
    from peft import PeftModel

    folder = save_adapter(student.model, tmp_path / "adapter", BASE)
    base = shrink_speech_model(load_speech_model(shared_tiny_whisper()), (0, 3), 2).model
    again = PeftModel.from_pretrained(base, folder).eval()
    assert torch.equal(logits(again), logits(student.model))
    assert json.loads((folder / "base.json").read_bytes()) == {
        "reference": "openai/whisper-base",
        "revision": "abc",
        "decoder_layers": [0, 3],
        "window_seconds": 2.0,
        "adapter": None,
    }
    settings = json.loads((folder / "adapter_config.json").read_bytes())
    assert settings["base_model_name_or_path"] == "openai/whisper-base"
    assert all("lora_" in name for name in read_header(folder / "adapter_model.safetensors"))
    assert {file.name for file in folder.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
    }


def test_a_student_without_adapters_is_exported_and_has_none_to_save(tmp_path: Path) -> None:
    plain = load_speech_model(shared_tiny_whisper())
    done = export_student(plain.model, plain.processor, tmp_path / "student")
    again = load_speech_model(done.path)
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), again.model.parameters(), strict=True))
    assert done.bytes == sum(file.stat().st_size for file in done.path.iterdir())
    with pytest.raises(InputError, match="no adapters"):
        save_adapter(plain.model, tmp_path / "adapter", BASE)
