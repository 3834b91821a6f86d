"""Documents of text and conversations, from text files, JSON lines or Parquet, with every fault of a file at once.

    corpus.txt  corpus.txt.gz     one document
    corpus/                       one document a .txt file in it
    corpus.jsonl  corpus.jsonl.gz one document a line: {"text": ...} or {"messages": [...]}, with an "id" and a "group"
                                  (documents that belong together, for intervals) where wanted
    corpus.parquet                the same as columns
    {dataset: ..., text: column}  a column of a dataset (`tasks.sources`)

Covers reading, content hashes, and what is in two sets at once. Does not cover tokens (`codec`). Nothing here imports
torch; pyarrow is imported when a Parquet file is read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError, MissingExtraError
from tutelage.tasks.sources import DatasetSource, read_rows

ROLES = ("system", "user", "assistant")
_SHOWN = 10  # faults of one file that are written out
_ID = "id"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `role` is one of `ROLES`."""

    role: str
    content: str


@dataclass(frozen=True)
class TextDocument:
    """One document: a text, or a conversation.

    Args:
        id: Unique in its corpus.
        text: The text; empty for a conversation.
        messages: The turns of a conversation; none for a text.
        group: Documents of one group are resampled together; the id where nothing else is said.
    """

    id: str
    text: str
    messages: tuple[Message, ...] = ()
    group: str = ""

    @property
    def sha256(self) -> str:
        """Hash of what is said, white space counting as one space: a text wrapped differently is the same text."""
        parts = [self.text, *(part for message in self.messages for part in (message.role, message.content))]
        return hashlib.sha256("\0".join(" ".join(part.split()) for part in parts).encode()).hexdigest()


@dataclass(frozen=True)
class Corpus:
    """Documents in the order of their file.

    Args:
        documents: At least one.
        sha256: Hash of ids, groups and contents, in order.
    """

    documents: tuple[TextDocument, ...]
    sha256: str

    @property
    def conversations(self) -> int:
        """How many documents are conversations."""
        return sum(bool(document.messages) for document in self.documents)

    @property
    def repeated(self) -> int:
        """How many documents say what an earlier one says."""
        return len(self.documents) - len({document.sha256 for document in self.documents})

    def spread(self, count: int) -> tuple[TextDocument, ...]:
        """`count` documents, evenly spread over the corpus."""
        total = len(self.documents)
        wanted = min(count, total)
        return tuple(self.documents[index * total // wanted] for index in range(wanted))


def read_documents(path: Path | DatasetSource) -> Corpus:
    """Read a corpus: a file, a folder, or a dataset's column of texts.

    Raises:
        InputError: The file is missing, of an unknown kind, empty or faulty; every fault with its line.
        MissingExtraError: pyarrow is not installed and the file is Parquet.
    """
    documents: list[TextDocument] = []
    faults: list[str] = []
    first: dict[str, str] = {}
    for place, row in _dataset_rows(path) if isinstance(path, DatasetSource) else _rows(path):
        found = _fault_of(row)
        document = None if found else _document(row, place)
        if document is not None and (earlier := first.setdefault(document.id, place)) != place:
            found = f"the id {document.id!r} was used already ({earlier})"
        if found:
            faults.append(f"{path} {place}: {found}.")
        elif document is not None:
            documents.append(document)
    if faults:
        more = [f"{path}: {len(faults) - _SHOWN} more faults."] if len(faults) > _SHOWN else []
        raise InputError([*faults[:_SHOWN], *more])
    if not documents:
        raise InputError(f"{path} holds no document.")
    digest = hashlib.sha256()
    for document in documents:
        turns = [[message.role, message.content] for message in document.messages]
        digest.update(json.dumps([document.id, document.group, document.text, turns]).encode() + b"\n")
    return Corpus(tuple(documents), digest.hexdigest())


def shared_documents(train: Corpus, held_out: Corpus) -> list[str]:
    """Held-out documents that say what a training document says, as "ID (also ID)"."""
    learned = {document.sha256: document.id for document in train.documents}
    return [f"{d.id} (also {learned[d.sha256]})" for d in held_out.documents if d.sha256 in learned]


def _dataset_rows(source: DatasetSource) -> Iterator[tuple[str, Any]]:
    for number, row in read_rows(source):
        yield f"row {number}", row


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, row) of every row of a file; a row is what stands there, checked or not."""
    kinds = {".jsonl": _json_rows, ".txt": _text_rows, ".parquet": _parquet_rows}
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.endswith((".txt", ".txt.gz")))
        if not files:
            raise InputError(f"The folder {path} holds no .txt file.")
        for file in files:
            yield from _text_rows(file)
        return
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    kind = kinds.get(suffixes[-1] if suffixes else "")
    if kind is None:
        raise InputError(f"{path} is none of .txt, .jsonl (both also .gz), .parquet or a folder of .txt files.")
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    yield from kind(path)


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start} cannot be read); save it as UTF-8.") from error
    except (OSError, EOFError) as error:  # gzip's errors are OSErrors, a file cut off ends too early
        raise InputError(f"{path} cannot be read: {error}.") from error


def _text_rows(path: Path) -> Iterator[tuple[str, Any]]:
    yield path.name, {_ID: path.name.removesuffix(".gz").removesuffix(".txt"), "text": _read_text(path)}


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            yield f"line {number}", row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "fit") from error
    try:
        rows = parquet.read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from error
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", {name: value for name, value in row.items() if value is not None}


def _fault_of(row: Any) -> str:
    """What is wrong with a row, or nothing."""
    if not isinstance(row, Mapping):
        return "not a JSON object"
    unknown = sorted({*map(str, row)} - {_ID, "group", "text", "messages"})
    if unknown:
        return f"unknown key {', '.join(unknown)}; known are id, group, text and messages"
    if ("text" in row) == ("messages" in row):
        return "a document has either text or messages"
    for name in (_ID, "group"):
        if name in row and not (isinstance(row[name], str | int) and str(row[name])):
            return f"{name} is {row[name]!r}; it must be a text or a whole number"
    if "text" in row:
        return "" if isinstance(row["text"], str) and row["text"].strip() else "text is empty or no text"
    return _fault_of_messages(row["messages"])


def _fault_of_messages(messages: Any) -> str:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        return "messages must be a list of {role, content}"
    for message in messages:
        proper = isinstance(message, Mapping) and {*message} == {"role", "content"}
        if not proper or message["role"] not in ROLES or not isinstance(message["content"], str):
            return f"a message is {{role, content}} with a role of {', '.join(ROLES)}, not {message!r}"[:200]
    if not any(message["role"] == "assistant" for message in messages):
        return "no message is the assistant's, so nothing could be learned"
    return ""


def _document(row: Mapping[str, Any], place: str) -> TextDocument:
    name = str(row.get(_ID, place.replace(" ", "-")))
    messages = tuple(Message(str(turn["role"]), str(turn["content"])) for turn in row.get("messages", ()))
    return TextDocument(name, str(row.get("text", "")), messages, str(row.get("group", name)))
