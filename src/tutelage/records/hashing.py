"""SHA-256 of files and of JSON values: what caches, recipes and held-out sets are keyed by.

Not here: hashes of tensors (a checkpoint hashes its file) and of audio samples (the manifest hashes its clips).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 1 << 20


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in blocks.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value in one canonical form.

    Keys are sorted, there is no white space, non-ASCII is escaped, tuples count as lists. `1` and `1.0` are different
    values: hash what a typed parser returned, not what the user typed.

    Raises:
        TypeError: The value, or a key in it, is not JSON (keys must be strings: 1 and "1" would collide).
        ValueError: It holds NaN or an infinity.
    """
    _check_keys(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _check_keys(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not a string, so this is not a JSON value")
            _check_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_keys(item)
