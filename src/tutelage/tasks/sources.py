"""Data of the `datasets` library as a source of clips or documents: where it is, and which columns mean what.

    train: {dataset: FOLDER_OR_NAME, split: train, audio: audio, text: sentence}

A folder is one that `save_to_disk` wrote, of one split or of several; anything else is a hub's name. Covers the
settings, opening, the columns and their faults. Does not cover what rows mean (`speech.dataset`, `text.documents`).
Nothing here imports torch; `datasets` is imported when a source is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError, MissingExtraError


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """A split of a dataset, and its columns.

    Args:
        dataset: Folder that `save_to_disk` wrote, or a hub's name.
        split: Which split; None where the folder holds one alone.
        text: Column of the transcripts or documents.
        id: Column of names; None counts rows from 0.
        group: Column of what belongs together; None as a file without groups.
        config: Configuration of a hub's dataset, such as a language.
        revision: Commit of a hub's dataset; None for the newest.
    """

    dataset: str
    split: str | None = None
    text: str = "text"
    id: str | None = None
    group: str | None = None
    config: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return self.dataset if self.split is None else f"{self.dataset} [{self.split}]"

    @property
    def name(self) -> str:
        """For messages, as a file's name."""
        return Path(self.dataset).name if self.split is None else f"{Path(self.dataset).name} [{self.split}]"

    @property
    def columns(self) -> dict[str, str]:
        """The dataset's columns that are read, by their meaning here."""
        named = {"id": self.id, "text": self.text, "group": self.group}
        return {meaning: column for meaning, column in named.items() if column is not None}


@dataclass(frozen=True, kw_only=True)
class AudioSource(DatasetSource):
    """A split of a dataset of recordings.

    Args:
        audio: Column of the recordings.
    """

    audio: str = "audio"

    @property
    def columns(self) -> dict[str, str]:
        """With the recordings."""
        return {**super().columns, "audio": self.audio}


def require_source(source: Path | DatasetSource) -> None:
    """Refuse data that is not there, before anything heavy is loaded.

    Raises:
        InputError: There is no such file, dataset, split or column.
        MissingExtraError: `datasets` is not installed.
    """
    if isinstance(source, DatasetSource):
        next(read_rows(source), None)
    elif not source.exists():
        raise InputError(f"There is no held-out data {source}.")


def read_rows(source: DatasetSource, optional: tuple[str, ...] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 0, row) of every row: the columns that have a meaning, by their meaning; absent values left out.

    Recordings are not decoded: they come as `{"bytes", "path"}`.

    Args:
        source: Which.
        optional: Meanings whose column may be absent.

    Raises:
        InputError: There is no such dataset, split or column.
        MissingExtraError: `datasets` is not installed.
    """
    dataset = _open(source)
    present: list[str] = list(dataset.column_names)
    wanted = source.columns
    faults = [
        f"{source} has no column {column!r} for {meaning}; it has {', '.join(present)}."
        for meaning, column in wanted.items()
        if column not in present and meaning not in optional
    ]
    if faults:
        raise InputError(faults)
    columns = {meaning: column for meaning, column in wanted.items() if column in present}
    dataset = _undecoded(dataset.select_columns(list(dict.fromkeys(columns.values()))), source)
    for number, row in enumerate(dataset):
        yield (
            number,
            {meaning: row[column] for meaning, column in columns.items() if row[column] is not None},
        )


def _undecoded(dataset: Any, source: DatasetSource) -> Any:
    """The same with recordings as bytes: decoding is ours, by soundfile, as it is for files."""
    from datasets import Audio

    if isinstance(source, AudioSource) and isinstance(dataset.features[source.audio], Audio):
        return dataset.cast_column(source.audio, Audio(decode=False))
    return dataset


def _open(source: DatasetSource) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "datasets") from error
    folder = Path(source.dataset)
    try:
        if folder.is_dir():
            found = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(
                source.dataset, source.config, split=source.split, revision=source.revision, streaming=False
            )
    except Exception as error:  # the library raises what its readers and its network raise, of no common kind
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"The dataset {source.dataset} cannot be opened: {reason[:300]} Name a folder that save_to_disk wrote, or "
            "a hub's dataset that can be reached."
        ) from error
    return _split_of(found, source)


def _split_of(found: Any, source: DatasetSource) -> Any:
    if not isinstance(found, Mapping):
        return found
    splits = sorted(found)
    if source.split is None and len(splits) == 1:
        return found[splits[0]]
    if source.split not in found:
        asked = "names no split" if source.split is None else f"has no split {source.split!r}"
        raise InputError(f"{source.dataset} {asked}; choose one with split: {', '.join(splits)}.")
    return found[source.split]
