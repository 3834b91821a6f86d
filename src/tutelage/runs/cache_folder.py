"""The folder of a cache: which one a build may use, and emptying it.

Covers what may be there before a build. Does not cover what a build finds in its own shards (`caching`).
"""

from __future__ import annotations

from pathlib import Path

from tutelage.errors import InputError
from tutelage.teachers.target_cache.manifest import MANIFEST
from tutelage.teachers.target_cache.shards import PARTIAL, find_shards


def check_cache_folder(path: Path) -> None:
    """Refuse a folder that holds anything but a cache; asked before a model is fetched or loaded.

    Raises:
        InputError: What is there, and what to do.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path} exists and is not a folder. Choose another --out.")
    others = sorted({entry.name for entry in path.iterdir()} - {file.name for file in _files(path)})
    if others:
        raise InputError(f"{path} holds {others[0]}, which is not of a cache. Choose another --out.")


def clear_cache(path: Path) -> None:
    """Remove a cache; the folder stays."""
    for file in _files(path):
        file.unlink(missing_ok=True)


def _files(path: Path) -> list[Path]:
    return [path / MANIFEST, *find_shards(path), *path.glob(f".*{PARTIAL}")]
