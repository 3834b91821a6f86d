from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.errors import InputError, MissingExtraError
from tutelage.evaluation.normalisers import whisper_normaliser


@pytest.mark.parametrize(
    ("language", "name", "text", "normalised"),
    [
        ("es", "whisper-basic", "¡El niño, EN   la [risas] casa! (fin)", "el niño en la casa"),
        ("fr", "whisper-basic", "L'été", "l été"),
        ("ja", "whisper-basic-split-letters", "猫です。", "猫 で す"),
        (
            "en",
            "whisper-english-without-spellings",
            "Mr. Neil won't pay twenty dollars",
            "mister neil will not pay $20",
        ),
    ],
)
def test_each_language_has_its_named_normaliser(language: str, name: str, text: str, normalised: str) -> None:
    found = whisper_normaliser(language)
    assert (found.name, found(text)) == (name, normalised)


def test_accents_are_kept() -> None:
    """Whisper's default: an accent that is missing is an error."""
    normalise = whisper_normaliser("es")
    assert normalise("Papá") == "papá"
    assert normalise("papá") != normalise("papa")


def test_spellings_come_from_the_models_folder(tmp_path: Path) -> None:
    assert whisper_normaliser("en", tmp_path).name == "whisper-english-without-spellings"
    (tmp_path / "normalizer.json").write_text(json.dumps({"colour": "color"}))
    found = whisper_normaliser("en", tmp_path)
    assert (found.name, found("The Colour")) == ("whisper-english", "the color")
    assert whisper_normaliser("es", tmp_path)("colour") == "colour"


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_broken_spellings_are_one_clear_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "normalizer.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"normalizer\.json .*remove it to score without"):
        whisper_normaliser("en", tmp_path)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.models.whisper", None)
    with pytest.raises(MissingExtraError, match=r"tutelage\[speech\]"):
        whisper_normaliser("es")


def test_bad_transcripts_can_be_found_before_torch() -> None:
    program = (
        "import sys; from tutelage.evaluation.normalisers import whisper_normaliser; import tutelage.evaluation.wer;"
        "before = 'transformers' in sys.modules; whisper_normaliser('es')('Hola');"
        "print(before, 'torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False False"
