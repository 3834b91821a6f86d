"""Writing a file so that readers see the old content or the new, never a part of either.

Not here: whole folders (a run folder or checkpoint is built beside its place and renamed by its owner).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from tutelage.errors import InputError, TutelageError
from tutelage.records.document import jsonable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOENT,
    errno.ENAMETOOLONG,
}


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) to `path`, replacing what is there in one step that survives a crash.

    The new file is written beside the old one, flushed to the disk and renamed over it, so that a full disk or a kill
    leaves the old file as it was. Parent folders are made. A symbolic link is followed.

    Raises:
        InputError: The disk is full, or the place cannot be written.
    """
    path = Path(os.path.realpath(path))
    data = content.encode("utf-8") if isinstance(content, str) else content
    scratch = path.with_name(f".{path.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    except OSError as error:
        raise explain_write_failure(error, path, needed_bytes=len(data)) from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()
    _flush_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, as `write_atomically` does; NaN and infinities become null."""
    write_atomically(path, json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def explain_write_failure(error: OSError, path: Path, needed_bytes: int | None = None) -> TutelageError:
    """The error of ours that says what an `OSError` while writing `path` means and what to do."""
    if error.errno in _FULL:
        need = f"{_megabytes(needed_bytes)} needed, " if needed_bytes else ""
        return InputError(
            f"the disk is full: {path} was not written ({need}{_megabytes(free_bytes(path))} free). "
            "Free some space or choose another place, then run again."
        )
    if error.errno in _REFUSED:
        return InputError(f"cannot write {path}: {error.strerror}. Choose a place that you may write to.")
    return TutelageError(f"cannot write {path}: {error.strerror or error}")


def free_bytes(path: Path) -> int:
    """Bytes free on the disk that holds `path`, or would hold it once its folders are made."""
    return shutil.disk_usage(nearest_folder(path)).free


def nearest_folder(path: Path) -> Path:
    """The deepest folder on the way to `path` that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def _megabytes(count: int | None) -> str:
    return "an unknown amount" if count is None else f"{count / 1e6:.1f} MB"


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable; a system that cannot flush folders (Windows) has done what it can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
