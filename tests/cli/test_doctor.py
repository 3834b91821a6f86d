from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tutelage.cli import doctor
from tutelage.cli.main import main


@pytest.fixture(autouse=True)
def roomy_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the doctor finds must not depend on the disk that the tests run on."""
    monkeypatch.setattr(doctor, "free_bytes", lambda _: 50_000_000_000)
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUTELAGE_LEDGER", str(tmp_path / "data" / "l.sqlite3"))


def examine(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["doctor", "--json"])
    return code, json.loads(capsys.readouterr().out)


def faults(document: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["remedy"] for check in document["checks"] if not check["ok"]}


def test_a_whole_installation_is_well(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, document = examine(capsys)
    assert faults(document) == {}
    assert code == 0
    assert document["schema"]["name"] == "tutelage.doctor"
    assert document["extras"]["speech"]["missing"] == []
    assert document["environment"]["packages"]["torch"] == metadata.version("torch")
    assert {"Python", "torch", "device", "cache", "ledger", "disk space"} <= {c["name"] for c in document["checks"]}
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"


def test_every_package_of_the_extra_is_examined() -> None:
    declared = {"torch", "transformers", "peft", "accelerate", "safetensors", "soundfile", "soxr", "jiwer"}
    assert declared <= set(doctor.extras()["speech"])
    assert set(doctor.LOADED) <= declared


def test_a_missing_package_ends_in_the_command_that_brings_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    present = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: None if name == "peft" else present(name))
    code, document = examine(capsys)
    assert code == 1
    assert faults(document) == {"peft": "Run pip install 'tutelage[speech]'."}
    assert document["extras"]["speech"]["missing"] == ["peft"]
    assert document["status"] == {
        "kind": "incomplete",
        "text": "not working: peft.",
        "remedy": "Run pip install 'tutelage[speech]'.",
    }


def test_without_torch_nothing_imports_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    present = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: None if name == "torch" else present(name))
    monkeypatch.setitem(sys.modules, "torch", None)
    code, document = examine(capsys)
    assert code == 1
    assert set(faults(document)) == {"torch", "device"}


def test_a_library_that_is_there_and_does_not_load(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = doctor.importlib.import_module

    def broken(name: str) -> object:
        if name == "soundfile":
            raise OSError("cannot load library 'libsndfile.so'")
        return load(name)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    code, document = examine(capsys)
    assert code == 1
    assert list(faults(document)) == ["soundfile"]
    finding = next(check["finding"] for check in document["checks"] if check["name"] == "soundfile")
    assert "does not load: cannot load library" in finding


def test_places_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("just a note, and long enough for a header of a file")
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv("TUTELAGE_LEDGER", str(tmp_path / "file"))
    code, document = examine(capsys)
    assert code == 1
    assert set(faults(document)) == {"cache", "ledger"}
    assert "$TUTELAGE_CACHE" in faults(document)["cache"]
    assert "--ledger" in faults(document)["ledger"]


def test_a_small_disk(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_bytes", lambda _: 1_000_000)
    code, document = examine(capsys)
    assert (code, set(faults(document))) == (1, {"disk space"})


def test_run_from_files_that_are_not_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "extras", dict)
    code, document = examine(capsys)
    assert code == 1
    assert "tutelage" in faults(document)


def test_the_table_shows_faults_and_stderr_the_remedies(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "free_bytes", lambda _: 0)
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert "FAULT  disk space" in out
    assert "incomplete: not working: disk space. Free 2 GB" in err


def test_extras_that_one_may_do_without_are_shown_and_are_no_fault(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    present = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: None if name == "ray" else present(name))
    assert main(["doctor"]) == 0
    lines = {
        line.split("extra ")[1].split()[0]: line for line in capsys.readouterr().out.splitlines() if "extra " in line
    }
    assert {"text", "fit", "cache", "report", "ctranslate2", "datasets", "trackers", "engines", "ray"} <= set(lines)
    assert "dev" not in lines
    assert lines["ray"].endswith("optional, lacks ray: pip install 'tutelage[ray]'")
    assert f"loky {metadata.version('loky')}" in lines["engines"]
