"""Hashes of a folder's files: written when a folder is made, compared whenever it is opened again.

Covers plain files directly inside one folder. Does not cover who made them; see `resolve`. Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tutelage.records.files import write_json
from tutelage.records.hashing import sha256_file

MANIFEST = "manifest.json"


def hash_folder(folder: Path, suffixes: tuple[str, ...] = ("",)) -> dict[str, str]:
    """SHA-256 of every file directly inside `folder`, by name; the manifest itself and hidden files left out.

    Args:
        folder: The folder.
        suffixes: Ends of the names that count.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    return {file.name: sha256_file(file) for file in files if file.name != MANIFEST and file.name.endswith(suffixes)}


def write_manifest(folder: Path, source: Mapping[str, str]) -> dict[str, str]:
    """Write the manifest of a folder just made; returns the hashes.

    Args:
        folder: The folder.
        source: Where its content came from, in words.
    """
    hashes = hash_folder(folder)
    write_json(folder / MANIFEST, {"source": dict(source), "sha256": hashes})
    return hashes


def changed_files(folder: Path) -> tuple[str, ...]:
    """Names of the files that are missing, added or other than the manifest says; none when all is as written.

    The manifest's own name alone when it is missing or cannot be read.
    """
    try:
        expected = json.loads((folder / MANIFEST).read_bytes())["sha256"]
        actual = hash_folder(folder)
        return tuple(sorted(name for name in {*expected, *actual} if expected.get(name) != actual.get(name)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return (MANIFEST,)
