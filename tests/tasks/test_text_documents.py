"""Documents from every kind of file; every fault of a file at once; what is in two sets is found."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.errors import InputError
from tutelage.tasks.text.documents import Corpus, TextDocument, read_documents, shared_documents

CHAT = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "me"}]


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_one_corpus_in_every_format_is_the_same_corpus(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "One text."}, {"id": "b", "text": "Otro, año."}]
    lines = write_lines(tmp_path / "c.jsonl", rows)
    packed = tmp_path / "c.jsonl.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    folder = tmp_path / "c"
    folder.mkdir()
    for row in rows:
        (folder / f"{row['id']}.txt").write_text(row["text"], encoding="utf-8")
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pyarrow.parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "c.parquet")
    found = [read_documents(path) for path in (lines, packed, folder, tmp_path / "c.parquet")]
    assert len({corpus.sha256 for corpus in found}) == 1
    assert [document.text for document in found[0].documents] == ["One text.", "Otro, año."]


def test_conversations_and_groups(tmp_path: Path) -> None:
    corpus = read_documents(write_lines(tmp_path / "c.jsonl", [{"messages": CHAT, "group": "g"}, {"text": "x"}]))
    assert corpus.conversations == 1
    assert [(document.id, document.group) for document in corpus.documents] == [("line-1", "g"), ("line-2", "line-2")]


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    bad_role = [{"role": "robot", "content": "x"}]
    rows = [{"text": "a", "id": 1}, {"text": "b", "id": 1}, {"text": " "}, {"txt": "c"}, {}, {"messages": bad_role}]
    write_lines(path, [*rows, {"messages": CHAT[:1]}, {"text": "a", "messages": CHAT}])
    path.write_text(path.read_text() + "not json\n")
    with pytest.raises(InputError) as refused:
        read_documents(path)
    assert [fault.split(": ", 1)[0].rsplit(" ", 1)[1] for fault in refused.value.faults] == list("23456789")
    for text in ("'1' was used already (line 1)", "unknown key txt", "not a JSON object", "nothing could be learned"):
        assert text in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", b"x", "is none of"),
        ("c.jsonl", b"\n", "holds no document"),
        ("c.txt", b"\xff", "not UTF-8"),
        ("c.txt.gz", gzip.compress(b"cut off", mtime=0)[:-9], "cannot be read"),
        ("c.parquet", b"no such thing", "cannot be read as Parquet"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_documents(tmp_path / name)


def test_a_missing_file_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        read_documents(tmp_path / "c.jsonl")
    with pytest.raises(InputError, match=r"holds no \.txt file"):
        read_documents(tmp_path)


def test_the_same_text_is_found_however_it_is_wrapped() -> None:
    def corpus(*texts: str) -> Corpus:
        return Corpus(tuple(TextDocument(f"{text[:2]}{number}", text) for number, text in enumerate(texts)), "")

    train, held_out = corpus("In the beginning", "was the word"), corpus("was  the\nword ", "another")
    assert shared_documents(train, held_out) == ["wa0 (also wa1)"]
    assert corpus("a b", "a  b", "c").repeated == 1
