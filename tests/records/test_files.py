from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from tutelage.errors import InputError, TutelageError
from tutelage.records.files import free_bytes, nearest_folder, write_atomically, write_json


def test_new_folders_are_made_and_text_is_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    write_atomically(path, "años\n")
    assert path.read_bytes() == "años\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    """A scratch file made by tempfile would leave results that only their owner can read."""
    (tmp_path / "plain").write_text("x")
    write_atomically(tmp_path / "ours", "x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, code: int
) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")

    def fill(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill) if failing == "fsync" else patch.setattr(Path, "replace", fill)
        with pytest.raises(InputError, match=r"the disk is full.*result\.json was not written.*Free some space"):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_what_a_really_full_device_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The kernel's own error, not one that we made up: the scratch file is the device that is always full."""
    real_open = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: real_open(Path("/dev/full"), "wb"))
    with pytest.raises(InputError, match="the disk is full"):
        write_atomically(tmp_path / "x", "new")


def test_an_interrupt_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_text("old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_atomically(tmp_path / "file" / "x", "new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        write_atomically(tmp_path / "folder", "new")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_a_failing_disk_is_not_the_users_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(TutelageError) as caught:
        write_atomically(tmp_path / "x", "new")
    assert caught.value.exit_code == 1


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": (1, "ñ"), "c": Path("p")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": [1, "ñ"], "c": "p"}


def test_space_is_asked_of_the_nearest_folder(tmp_path: Path) -> None:
    assert nearest_folder(tmp_path / "no" / "such") == tmp_path
    assert free_bytes(tmp_path / "no" / "such") > 0
