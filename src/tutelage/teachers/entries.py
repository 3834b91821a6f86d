"""A store of tensors by key, on disk: one verified file an entry, or memory where the disk takes no more.

Covers writing so that no partial file is ever taken for an entry, and checking whatever is read. Does not cover what a
key is made of (`prefix_cache`, `block_cache`), or throwing old entries away (the folder may be deleted at any time).

One safetensors file an entry, in folders by the first two digits of the key: a run that is killed keeps what it had,
data sets that share samples share entries, and damage costs one entry. Shards would save little at half a megabyte.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tutelage.progress import Talk
from tutelage.records.files import nearest_folder

SPARE_BYTES = 256 << 20
"""Bytes left free on the disk: a cache must not take the room that a checkpoint needs."""


class MissingEntryError(Exception):
    """There is no usable entry: none at all, or a damaged one."""

    def __init__(self, path: Path, fault: str, damaged: bool) -> None:
        super().__init__(f"{path} {fault}")
        self.path, self.damaged = path, damaged


class EntryStore:
    """Entries by key: files, or memory where the disk takes no more.

    Args:
        folder: Where the files are; made when the first is written.
        what: What entries are, in the plural, for messages.
        talk: Told, once, of a disk that takes no more.
    """

    def __init__(self, folder: Path, what: str, talk: Talk) -> None:
        self.memory: dict[str, Tensor] = {}
        self.bytes_written = 0
        self._folder, self._what, self._talk = folder, what, talk
        self._writable = True

    def path(self, key: str) -> Path:
        """The file that holds, or would hold, an entry."""
        return self._folder / key[:2] / f"{key}.safetensors"

    def read(self, key: str) -> tuple[Tensor, int]:
        """The verified tensor and the bytes read for it.

        Raises:
            MissingEntryError: There is none, or it is damaged.
        """
        if key in self.memory:
            return self.memory[key], 0
        path = self.path(key)
        try:
            with safe_open(path, framework="pt") as file:
                claims = file.metadata() or {}
                tensor: Tensor = file.get_tensor("output")
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise MissingEntryError(path, "is not there", damaged=False) from error
        except (SafetensorError, OSError) as error:
            raise MissingEntryError(path, f"is damaged ({error})", damaged=True) from error
        if claims.get("key") != key:
            raise MissingEntryError(path, "is damaged (it is another entry's file)", damaged=True)
        if claims.get("sha256") != _hash_tensor(tensor):
            raise MissingEntryError(path, "is damaged (its content does not have the hash it names)", damaged=True)
        return tensor, size

    def write(self, key: str, tensor: Tensor) -> None:
        """Keep a tensor of the CPU, on disk if it can be."""
        stored = tensor.contiguous()
        if self._writable:
            content = save({"output": stored}, metadata={"key": key, "sha256": _hash_tensor(stored)})
            try:
                self._write_file(self.path(key), content)
                return
            except OSError as error:
                self._writable = False
                self._talk(
                    f"{self._what} are not cached from here on, they are kept in memory: {self._folder} "
                    f"takes no more ({error.strerror or error})."
                )
        self.memory[key] = stored

    def _write_file(self, path: Path, content: bytes) -> None:
        """Rename a finished file into place. Not flushed to the disk: a torn entry is found when it is read."""
        if shutil.disk_usage(nearest_folder(path)).free < len(content) + SPARE_BYTES:
            raise OSError(f"less than {SPARE_BYTES >> 20} MiB would be left on the disk")
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
        try:
            scratch.write_bytes(content)
            scratch.replace(path)
        finally:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
        self.bytes_written += len(content)


def _hash_tensor(tensor: Tensor) -> str:
    header = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
    return hashlib.sha256(header + tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
