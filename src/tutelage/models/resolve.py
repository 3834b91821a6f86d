"""From what the user calls a model to a verified folder: a local folder, the hub, or the pinned mirror.

In this order, and the first that exists is used: a folder of that name; a snapshot already in the hub's own cache; for
a mirrored checkpoint, its conversion in our cache; the hub (one short attempt); the mirror. Covers known models in
safetensors. Does not cover loading (`load`). Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tutelage.errors import InputError, MissingExtraError, TutelageError
from tutelage.models.architectures import Task
from tutelage.models.manifest import hash_folder
from tutelage.models.mirror import MIRRORS, Mirror, cached_mirror, fetch_mirror
from tutelage.models.verify import verify_model_folder
from tutelage.progress import Talk, say_nothing
from tutelage.records.locations import cache_folder

PINNED_REVISIONS: Mapping[str, str] = {"openai/whisper-base": "e37978b90ca9030d5170a5c07aadb050351a65bb"}
"""Commits that are used when the user names none, so that a demo means the same next year."""
HUB_SECONDS = 5.0
"""How long the hub may take to answer the one attempt."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PATTERNS = ["*.json", "merges.txt", "*.jinja", "model*.safetensors"]
_READ = (".json", ".txt", ".jinja", ".safetensors")
"""What is read of a folder; the pickles that some carry beside it are neither read nor hashed."""

Kind = Literal["folder", "hub", "mirror"]


@dataclass(frozen=True)
class ResolvedModel:
    """A folder with a model, and where it came from.

    Args:
        path: The folder.
        kind: Which way it was found.
        reference: What the user called it.
        revision: Commit on the hub; None for a folder of the user's.
        sha256: Hash of every file that is read of it, by name.
    """

    path: Path
    kind: Kind
    reference: str
    revision: str | None
    sha256: Mapping[str, str]

    def describe(self) -> str:
        """One line that says which model is used and where it was found."""
        where = {
            "folder": f"the folder {self.path}",
            "hub": f"the hub (revision {(self.revision or '')[:12]})",
            "mirror": "the pinned mirror, verified by SHA-256",
        }
        return f"model {self.reference}: {where[self.kind]}"


class _Unreachable(Exception):  # noqa: N818 - not an error of ours: the mirror may still have the model
    """The hub did not answer; the text says why."""


def resolve_model(
    reference: str,
    revision: str | None = None,
    cache_dir: Path | None = None,
    talk: Talk = say_nothing,
    *,
    task: Task = "speech",
    require_weights: bool = True,
) -> ResolvedModel:
    """Find a model and check that it can be loaded safely.

    Args:
        reference: A folder, or a name on the hub such as "openai/whisper-base".
        revision: Commit on the hub; None takes the pinned one where there is a pin, else the newest.
        cache_dir: Our cache, for mirrored checkpoints; None is the usual place. The hub keeps its own.
        talk: Told which one was used.
        task: What the model must be for.
        require_weights: False accepts a folder of configuration alone, for counting.

    Raises:
        InputError: No such folder or hub name, or the folder is no usable model of the task.
        TutelageError: Neither hub nor mirror could be reached, or what they sent is wrong.
    """
    folder, wanted = Path(reference).expanduser(), _Wanted(task, require_weights)
    if folder.is_dir():
        found = _described(folder, "folder", reference, None, wanted)
    elif _HUB_NAME.fullmatch(reference):
        found = _from_elsewhere(reference, revision, cache_dir or cache_folder(), talk, wanted)
    else:
        raise InputError(f"The model {reference} is neither a folder nor a hub name such as openai/whisper-base.")
    talk(found.describe())
    return found


@dataclass(frozen=True)
class _Wanted:
    """What a folder must be: a model of this task, with its weights or without."""

    task: Task
    weights: bool

    def verify(self, folder: Path) -> None:
        verify_model_folder(folder, task=self.task, require_weights=self.weights)


def _from_elsewhere(reference: str, revision: str | None, cache: Path, talk: Talk, wanted: _Wanted) -> ResolvedModel:
    pin = PINNED_REVISIONS.get(reference)
    commit = revision or pin
    # The mirror holds one commit; it cannot stand for another one.
    mirror = MIRRORS.get(reference) if commit == pin else None
    kept = _cached_snapshot(reference, commit, wanted)
    if kept is not None:
        return _described(kept, "hub", reference, commit or kept.name, wanted)
    if mirror is not None and (folder := cached_mirror(mirror, cache)) is not None:
        return _described(folder, "mirror", reference, commit, wanted)
    try:
        snapshot = _download_snapshot(reference, commit)
    except _Unreachable as reason:
        return _from_mirror(reference, mirror, cache, talk, str(reason))
    return _described(snapshot, "hub", reference, commit or snapshot.name, wanted)


def _from_mirror(reference: str, mirror: Mirror | None, cache: Path, talk: Talk, reason: str) -> ResolvedModel:
    if mirror is None:
        raise TutelageError(
            f"The hub could not be reached for {reference} ({reason}). Name the folder of a downloaded copy instead."
        )
    talk(f"the hub could not be reached ({reason})")
    folder = fetch_mirror(mirror, cache, talk)
    return _described(folder, "mirror", reference, PINNED_REVISIONS.get(reference), _Wanted("speech", True))


def _described(folder: Path, kind: Kind, reference: str, revision: str | None, wanted: _Wanted) -> ResolvedModel:
    wanted.verify(folder)
    return ResolvedModel(folder, kind, reference, revision, hash_folder(folder, _READ))


def _cached_snapshot(reference: str, revision: str | None, wanted: _Wanted) -> Path | None:
    """A complete snapshot in the hub's own cache, without asking the network."""
    hub = _hub()
    try:
        folder = Path(hub.snapshot_download(reference, revision=revision, local_files_only=True))
        wanted.verify(folder)
    except (hub.errors.LocalEntryNotFoundError, InputError):
        # Nothing there, or the rest of an interrupted download.
        return None
    return folder


def _download_snapshot(reference: str, revision: str | None) -> Path:
    """One attempt at the hub; the files come only after it has answered in time."""
    hub = _hub()
    try:
        answer = hub.HfApi().model_info(reference, revision=revision, timeout=HUB_SECONDS)
        folder = hub.snapshot_download(
            reference, revision=answer.sha, allow_patterns=_PATTERNS, etag_timeout=HUB_SECONDS
        )
    except hub.errors.RevisionNotFoundError as error:
        raise InputError(f"The hub has no revision {revision} of {reference}.") from error
    except hub.errors.GatedRepoError as error:
        raise InputError(f"The hub wants you to accept the terms of {reference} first, and a token.") from error
    except hub.errors.RepositoryNotFoundError as error:
        raise InputError(f"The hub has no model {reference}, or it is private.") from error
    except Exception as error:
        # The client raises errors of whichever network library it was built on, which changed three times.
        raise _Unreachable(_first_line(error)) from error
    return Path(folder)


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "speech") from error
    return huggingface_hub


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__
