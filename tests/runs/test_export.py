"""Exports: what is copied is what the run wrote, and a converted student computes what the student does."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from tiny_finished import HELD_OUT, finished_speech, finished_text, hashes
from tiny_text import LAYOUTS
from tutelage.errors import InputError, MissingExtraError, TutelageError
from tutelage.models.load import load_speech_model
from tutelage.runs import export as export_module
from tutelage.runs.export import RECORD, ExportOrder, export_run, plan_export
from tutelage.students.ctranslate2_export import convert_student, require_ctranslate2
from tutelage.tasks.speech.features import FrozenEncoder
from tutelage.tasks.speech.generate import from_audio, transcribe
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.tasks.speech.manifest import read_manifest

FLOAT32 = 1e-5
"""Differences of float32 arithmetic in another order, of the largest value; 3e-7 was seen."""
ROUGH = 0.2
"""What 8-bit weights of random models of width 32 may change, of the largest value; 0.015 was seen."""


def export(run: Path, to: str, out: Path, **more: Any) -> dict[str, Any]:
    return export_run(plan_export(ExportOrder(run, to, out, **more))).to_dict()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def converted(speech: Path) -> tuple[Path, dict[str, Any]]:
    out = speech.parent / "converted"
    return out, export(speech, "ctranslate2", out)


@pytest.mark.parametrize(("to", "part"), [("hf", "student"), ("adapter", "adapter")])
def test_a_copy_is_the_run_s_files_and_a_record(speech: Path, tmp_path: Path, to: str, part: str) -> None:
    document = export(speech, to, tmp_path / "out")
    copied = hashes(tmp_path / "out")
    record = json.loads((tmp_path / "out" / RECORD).read_bytes())
    del copied[RECORD]
    assert copied == hashes(speech / part) == document["sha256"] == record["source"]
    assert str(tmp_path) not in (tmp_path / "out" / RECORD).read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"other"), "not the file that the run wrote"),
        (lambda folder: (folder / "vocab.json").unlink(), "vocab.json is missing"),
        (lambda folder: (folder / "model.bin").touch(), "model.bin is not of the run"),
    ],
    ids=["changed", "missing", "added"],
)
def test_a_student_that_is_not_the_run_s_is_refused(speech: Path, tmp_path: Path, change: Any, said: str) -> None:
    run = Path(shutil.copytree(speech, tmp_path / "run"))
    change(run / "student")
    for to in ("hf", "ctranslate2"):
        with pytest.raises(InputError, match=said):
            export(run, to, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_a_card_may_be_edited(speech: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(speech, tmp_path / "run"))
    (run / "student" / "README.md").write_text("# mine\n")
    export(run, "hf", tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == "# mine\n"


def test_a_converted_whisper_agrees_and_has_what_readers_look_for(converted: tuple[Path, dict[str, Any]]) -> None:
    out, document = converted
    found = document["agreement"]
    assert (found["clips"], found["same_transcripts"], found["differing"]) == (HELD_OUT, HELD_OUT, [])
    assert found["encoder_difference"] < FLOAT32
    assert found["wer"]["difference"]["value"] == 0
    assert found["wer"]["baseline"]["value"] > 0
    assert "beam search" in found["not_compared"]
    names = {"model.bin", "config.json", "vocabulary.json", "tokenizer.json", "preprocessor_config.json"}
    assert {file.name for file in out.iterdir()} == names | {"README.md", RECORD}
    assert json.loads((out / "preprocessor_config.json").read_bytes())["chunk_length"] == 2


def test_the_card_s_example_transcribes(converted: tuple[Path, dict[str, Any]], capsys: Any) -> None:
    out, _ = converted
    example = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)[0]
    clip = read_manifest(out.parent / "held_out.jsonl").utterances[2]
    code = example.replace('"."', repr(str(out))).replace('"clip.wav"', repr(str(clip.audio)))
    exec(code, {})  # noqa: S102 - the example of the card that was just written
    said = capsys.readouterr().out.strip()
    student = load_speech_model(out.parent / "run" / "student")
    encode = from_audio(FrozenEncoder(student.model, student.processor.feature_extractor))
    codec = LabelCodec(student.processor.tokenizer, "es")
    (heard,) = transcribe(student.model, [clip], encode, codec)
    wanted = Tokenizer.from_file(str(out / "tokenizer.json")).decode(list(heard.tokens)).strip()
    assert wanted
    assert said.startswith(wanted)  # the example's cap is later


def test_a_short_window_is_said_with_the_way_out(converted: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    import ctranslate2

    out, document = converted
    (warning,) = document["warnings"]
    assert (warning["code"], warning["value"]) == ("short-window", 2.0)
    assert "200 frames" in warning["text"]
    assert "length=200" in (out / "README.md").read_text()
    model = ctranslate2.models.Whisper(str(out), device="cpu")
    with pytest.raises(ValueError, match=r"\(1, 80, 200\)"):  # so the warning is still true
        model.encode(ctranslate2.StorageView.from_array(np.zeros((1, 80, 3000), np.float32)))


def test_a_student_of_thirty_seconds_needs_no_warning(tmp_path: Path) -> None:
    run = finished_speech(tmp_path, window_seconds=30.0)
    document = export(run, "ctranslate2", tmp_path / "out", samples=2)
    assert document["warnings"] == []
    assert document["agreement"]["clips"] == 2
    assert "faster-whisper" not in (tmp_path / "out" / "README.md").read_text()


def test_eight_bits_are_smaller_and_compared(converted: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, _ = converted
    document = export(out.parent / "run", "ctranslate2", tmp_path / "out", quantization="int8")
    assert document["agreement"]["compute_type"].startswith("int8")
    assert FLOAT32 < document["agreement"]["encoder_difference"] < ROUGH
    assert (tmp_path / "out" / "model.bin").stat().st_size < 0.5 * (out / "model.bin").stat().st_size


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_a_wrong_conversion_is_refused_or_shown(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str
) -> None:
    other = Path(shutil.copytree(speech / "student", tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    generator = np.random.default_rng(0)
    weights = {
        name: value + generator.normal(scale=0.1, size=value.shape).astype("f4") for name, value in weights.items()
    }
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(export_module, "convert_student", lambda _, *rest: convert_student(other, *rest))
    if quantization == "float32":
        with pytest.raises(TutelageError, match="the conversion is wrong"):
            export(speech, "ctranslate2", tmp_path / "out", quantization=quantization)
        assert not (tmp_path / "out").exists()
        return
    found = export(speech, "ctranslate2", tmp_path / "out", quantization=quantization)["agreement"]
    assert found["encoder_difference"] > ROUGH
    assert len(found["differing"]) == found["clips"] - found["same_transcripts"] > 0


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "gpt_neox"])
def test_a_converted_language_model_agrees(tmp_path: Path, layout: str) -> None:
    run = finished_text(tmp_path, layout)
    found = export(run, "ctranslate2", tmp_path / "out")["agreement"]
    assert found["same_most_likely"] == found["positions"] > found["documents"]
    assert found["logit_difference"] < FLOAT32
    assert abs(found["nats_per_token"]["difference"]["value"]) < FLOAT32
    assert found["nats_per_token"]["baseline"]["value"] > 1
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_a_layout_that_the_converter_fails_on_is_refused_by_version(tmp_path: Path) -> None:
    run = finished_text(tmp_path, "gpt_neox")  # CTranslate2 4.8.5 beside transformers 5
    with pytest.raises(InputError, match=r"CTranslate2 [\d.]+ with transformers [\d.]+ cannot convert.*rotary_pct"):
        export(run, "ctranslate2", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_data_the_document_says_that_nothing_was_compared(speech: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(speech, tmp_path / "run"))
    result = json.loads((run / "result.json").read_bytes())
    result["recipe"]["resolved"]["data"]["held_out"] = str(tmp_path / "gone.jsonl")
    (run / "result.json").write_text(json.dumps(result))
    document = export(run, "ctranslate2", tmp_path / "out")
    assert document["agreement"] is None
    assert [warning["code"] for warning in document["warnings"]] == ["short-window", "not-compared"]
    given = export(run, "ctranslate2", tmp_path / "given", data=speech.parent / "held_out.jsonl", samples=1)
    assert given["agreement"]["clips"] == 1


def test_changed_data_is_said(speech: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(speech, tmp_path / "run"))
    result = json.loads((run / "result.json").read_bytes())
    result["data"]["held_out"]["sha256"] = "of other data"
    (run / "result.json").write_text(json.dumps(result))
    plan = plan_export(ExportOrder(run, "ctranslate2", tmp_path / "out"))
    assert [caution.code for caution in plan.cautions] == ["short-window", "other-data"]


def test_force_replaces_exports_alone(speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(speech, "hf", out)
    with pytest.raises(InputError, match="Replace it with --force"):
        export(speech, "adapter", out)
    export(speech, "adapter", out, force=True)
    assert {file.name for file in out.iterdir()} == {"adapter_config.json", RECORD}
    (out / RECORD).unlink()
    with pytest.raises(InputError, match="no earlier export"):
        export(speech, "hf", out, force=True)
    for place in (speech, speech.parent):
        with pytest.raises(InputError, match="holds the run itself"):
            export(speech, "hf", place, force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_an_earlier_export_comes_back_where_the_new_one_cannot_be_put(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(speech, "adapter", out)
    rename = Path.rename

    def fail_for_new(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(InputError, match="cannot write"):
        export(speech, "hf", out, force=True)
    assert {file.name for file in out.iterdir()} == {"adapter_config.json", RECORD}


def test_an_adapter_that_is_not_there_or_cannot_be_checked_is_refused(speech: Path, tmp_path: Path) -> None:
    text = finished_text(tmp_path)
    with pytest.raises(InputError, match="has no adapter"):
        export(text, "adapter", tmp_path / "out")
    run = Path(shutil.copytree(speech, tmp_path / "earlier"))
    result = json.loads((run / "result.json").read_bytes())
    del result["adapter"]
    (run / "result.json").write_text(json.dumps(result))
    with pytest.raises(InputError, match="by an earlier version"):
        export(run, "adapter", tmp_path / "out")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"ctranslate2 is not installed.*tutelage\[ctranslate2\]"):
        require_ctranslate2()
