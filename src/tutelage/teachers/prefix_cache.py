"""Outputs of a frozen encoder, computed once and found again by content.

Covers: an on-disk cache under `<cache>/encoder_outputs`, verified whenever an entry is read. Does not cover: files
(`entries`), teacher targets (logits), features, or the frozen blocks of a language model (`block_cache`).

An entry's key is a SHA-256 over the samples of the clip and everything else that the output depends on: the encoder's
weights, its window, its type, and the feature settings. Names of files and ids play no part, so another language's
clip with the same name, a retrained encoder or a cut window can never be taken for this one.

An entry a clip: half a megabyte for Whisper base at 10 s. Values are stored as float16, which is exact to 2^-11 of a
value; an output that float16 cannot hold keeps float32. What is computed now is handed out as it is stored, so a first
run and a later one see the same numbers.

When the disk is nearly full or the folder cannot be written the work goes on: outputs are kept in memory, and the
caller is told once.

Shape letters: B batch, S encoder positions, H hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.progress import Advance, Progress, Talk, no_progress, say_nothing
from tutelage.records.hashing import sha256_json
from tutelage.records.locations import cache_folder
from tutelage.tasks.speech.audio import Samples, content_hash, read_audio
from tutelage.tasks.speech.manifest import Utterance
from tutelage.teachers.entries import EntryStore, MissingEntryError

LAYOUT = "1"
"""Part of every key; raised when the meaning of an entry changes."""


class Encoder(Protocol):
    """A frozen encoder (`tasks.speech.features.FrozenEncoder`)."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Everything that the output depends on beside the samples."""

    def __call__(self, clips: Sequence[Samples]) -> Tensor:
        """Output (B, S, H) of clips at 16 kHz."""


@dataclass(frozen=True)
class CacheUse:
    """What one call found and made.

    Args:
        hits: Distinct recordings whose output was there.
        misses: Distinct recordings that were encoded.
        damaged: Files that were there but cut off or changed; each was computed again.
        bytes_read: Bytes of the hits' files.
        bytes_written: Bytes of the files that were written.
        in_memory: Recordings kept in memory because they could not be written.
    """

    hits: int
    misses: int
    damaged: tuple[Path, ...]
    bytes_read: int
    bytes_written: int
    in_memory: int


class EncoderOutputs(Mapping[str, Tensor]):
    """Encoder outputs by utterance id, (S, H) float32 on the CPU, read from disk when asked for.

    Reading verifies the entry; half a megabyte takes about a millisecond, and memory stays flat however many clips
    there are.
    """

    def __init__(self, keys: Mapping[str, str], store: EntryStore, use: CacheUse) -> None:
        self.use = use
        self._keys, self._store = keys, store

    def __getitem__(self, name: str) -> Tensor:
        """The output of one utterance.

        Raises:
            KeyError: No such utterance.
            TutelageError: The entry was damaged or deleted since it was made.
        """
        try:
            return self._store.read(self._keys[name])[0].float()
        except MissingEntryError as error:
            raise TutelageError(f"{error}. It was there when this run began; run again to compute it anew.") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class PrefixCache:
    """Computes the outputs of one frozen encoder, or finds them.

    Args:
        encoder: The encoder and its identity.
        folder: Where entries are; None for `$TUTELAGE_CACHE` or else the user's cache folder.
        talk: Told, once each, of damaged entries and of a disk that takes no more.
    """

    def __init__(self, encoder: Encoder, folder: Path | None = None, talk: Talk = say_nothing) -> None:
        self._encoder = encoder
        self._identity = {"layout": LAYOUT, **encoder.identity}
        self._store = EntryStore((folder or cache_folder()) / "encoder_outputs", "encoder outputs", talk)
        self._talk = talk

    def key(self, samples: Samples) -> str:
        """The name of a clip's output: SHA-256 (hex) of its samples and the encoder's identity."""
        return sha256_json({**self._identity, "samples": content_hash(samples)})

    def path(self, samples: Samples) -> Path:
        """The file that holds, or would hold, a clip's output."""
        return self._store.path(self.key(samples))

    def get_or_compute(
        self, utterances: Sequence[Utterance], batch_size: int = 8, progress: Progress = no_progress
    ) -> EncoderOutputs:
        """The outputs of all utterances; what is not in the cache is encoded, a recording that comes twice once.

        Args:
            utterances: Clips of at most the encoder's window.
            batch_size: Clips an encoder pass.
            progress: Told of each utterance.

        Raises:
            InputError: A clip cannot be read.
            ValueError: A clip is longer than the window.
        """
        keys: dict[str, str] = {}
        seen: set[str] = set()
        waiting: dict[str, Samples] = {}
        damaged: list[Path] = []
        hits = misses = bytes_read = 0
        written_before, memory_before = self._store.bytes_written, len(self._store.memory)
        with progress("encode", total=len(utterances), unit="clip") as advance:
            for utterance in utterances:
                samples = read_audio(utterance.audio)
                key = self.key(samples)
                keys[utterance.id] = key
                if key in seen:
                    advance(1)
                    continue
                seen.add(key)
                try:
                    bytes_read += self._store.read(key)[1]
                    hits += 1
                    advance(1)
                except MissingEntryError as error:
                    if error.damaged:
                        damaged.append(error.path)
                        self._talk(f"{error}; it is computed again.")
                    misses += 1
                    waiting[key] = samples
                if len(waiting) == batch_size:
                    self._encode(waiting, advance)
            self._encode(waiting, advance)
        use = CacheUse(
            hits=hits,
            misses=misses,
            damaged=tuple(damaged),
            bytes_read=bytes_read,
            bytes_written=self._store.bytes_written - written_before,
            in_memory=len(self._store.memory) - memory_before,
        )
        return EncoderOutputs(keys, self._store, use)

    def _encode(self, waiting: dict[str, Samples], advance: Advance) -> None:
        """Encode and keep what waits, and empty it."""
        if not waiting:
            return
        output_BSH = self._encoder(list(waiting.values())).cpu()
        for key, output_SH in zip(waiting, output_BSH, strict=True):
            half_SH = output_SH.half()
            self._store.write(key, half_SH if bool(half_SH.isfinite().all()) else output_SH.float())
            advance(1)
        waiting.clear()
