"""Files of runs: kinds, content against suffix, what cannot be parsed, writing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tutelage.errors import InputError, MissingExtraError
from tutelage.laws.run_files import check_writable_kind, open_runs, write_runs
from tutelage.laws.table import RunTable

TABLE = RunTable({"N": (1e8, 2e8), "D": (1e9, 0.1 + 2e9), "L": (3.0, 2.9)})


def written(folder: Path, content: bytes, name: str) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_survives_its_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"runs.{suffix}"
    write_runs(TABLE, path)
    rows = open_runs(path)
    assert rows.columns == ("N", "D", "L")
    assert [tuple(map(float, row.values())) for row in rows.cells] == list(zip(*TABLE.columns.values(), strict=True))
    assert rows.numbers == {"csv": ("2", "3"), "jsonl": ("1", "2"), "parquet": ("1", "2")}[suffix]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfN,D\r\n1,2\r\n", b"N;D\n1;2\n", b"N\tD\n1\t2\n", b'\n"N", D\n1,2\n'])
def test_spellings_of_csv(tmp_path: Path, content: bytes) -> None:
    rows = open_runs(written(tmp_path, content, "runs.csv"))
    assert rows.columns == ("N", "D")
    assert list(rows.cells) == [{"N": "1", "D": "2"}]


def test_the_line_number_counts_lines_within_quotes(tmp_path: Path) -> None:
    rows = open_runs(written(tmp_path, b'name,N\n"a\nb",1\n\nc,2\n', "runs.csv"))
    assert rows.numbers == ("3", "5")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("runs.csv", b"", "is empty"),
        ("runs.csv", b"PAR1xxxx", "its suffix says CSV and its content is Parquet; rename it"),
        ("runs.parquet", b"N,D\n1,2\n", "its suffix says Parquet and its content is CSV"),
        ("runs.jsonl", b"N,D\n1,2\n", "its suffix says JSON lines and its content is CSV"),
        ("runs.csv", b"N,D\n1,\xff\n", "is not UTF-8 text (byte 6)"),
        ("runs.csv", b"N,D\n1,\0\n", "is not text, Parquet or a ledger"),
        ("runs.csv", b"N,D,N\n1,2,3\n", "two columns are called 'N'"),
        ("runs.csv", b"N,D\n1,2\n1,2,3\n", "line 3 has 3 cells and the header 2"),
        ("runs.json", b'[{"N": 1}]', "holds one JSON array; write one object a line"),
        ("runs.jsonl", b'{"N": 1}\n{"N": \n', "line 2 is not JSON"),
        ("runs.jsonl", b'{"N": 1}\n7\n', "line 2 is not a JSON object"),
        ("runs.parquet", b"PAR1 and no more", "cannot be read as Parquet"),
        ("runs.db", b"SQLite format 3\0 and no more", "a ledger"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, content: bytes, fault: str) -> None:
    with pytest.raises(InputError) as caught:
        open_runs(written(tmp_path, content, name))
    assert fault in caught.value.faults[0]


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        open_runs(tmp_path / "missing.csv")
    with pytest.raises(InputError, match="is a folder"):
        open_runs(tmp_path)


def test_parquet_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tutelage\[fit\]'"):
        open_runs(written(tmp_path, b"PAR1xxxx", "runs.parquet"))
    with pytest.raises(MissingExtraError):
        check_writable_kind(tmp_path / "new.parquet")


@pytest.mark.parametrize("name", ["runs.xlsx", "runs", "ledger.sqlite3"])
def test_what_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="its suffix must say what to write"):
        write_runs(TABLE, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
