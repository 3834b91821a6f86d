"""Files of training runs as they stand: CSV, Parquet, JSON lines and the ledger, each as rows of named cells.

Covers: telling the kinds apart, by suffix and content, and parsing them; a row keeps the number that it has in its
file; writing a table of runs. Does not cover: what the columns mean and whether their values can be fitted
(`tutelage.laws.reading`).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError, MissingExtraError
from tutelage.laws.table import RunTable
from tutelage.records.files import write_atomically
from tutelage.records.ledger import Ledger

_SUFFIXES = {
    ".csv": "CSV",
    ".tsv": "CSV",
    ".txt": "CSV",
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".json": "JSON lines",
    ".parquet": "Parquet",
    ".pq": "Parquet",
    ".sqlite3": "a ledger",
    ".sqlite": "a ledger",
    ".db": "a ledger",
}
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Rows:
    """The rows of a file.

    Args:
        source: The file, for people.
        kind: "CSV", "JSON lines", "Parquet" or "a ledger".
        unit: What a row's number counts: "line" (from 1, a header included), "row" (from 1) or "run" (a name).
        columns: The names of the cells, in the file's order.
        cells: One mapping a row; a cell that is not there is missing.
        numbers: The number of each row, as the file counts.
    """

    source: str
    kind: str
    unit: str
    columns: tuple[str, ...]
    cells: tuple[Mapping[str, Any], ...]
    numbers: tuple[str, ...]


def open_runs(path: Path) -> Rows:
    """The rows of a file of runs.

    Raises:
        InputError: It cannot be read, or is not what its suffix says; lines that cannot be parsed are listed.
        MissingExtraError: It is Parquet and pyarrow is not installed.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file of runs (CSV, Parquet, JSON lines or a ledger)")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a file of runs") from error
    found, said = _kind_of(content, path), _SUFFIXES.get(path.suffix.lower())
    if said is not None and found != said:
        raise InputError(f"{path}: its suffix says {said} and its content is {found}; rename it, or name another file")
    return _READERS[found](path, content)


def _kind_of(content: bytes, path: Path) -> str:
    start = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    if content.startswith(b"PAR1"):
        return "Parquet"
    if content.startswith(b"SQLite format 3\0"):
        return "a ledger"
    if not start:
        raise InputError(f"{path}: is empty; name a file with runs")
    if b"\0" in content:
        raise InputError(f"{path}: is not text, Parquet or a ledger; give runs as CSV, Parquet or JSON lines")
    if start.startswith(b"["):
        raise InputError(f"{path}: holds one JSON array; write one object a line, such as {_EXAMPLE_LINE}")
    return "JSON lines" if start.startswith(b"{") else "CSV"


_EXAMPLE_LINE = '{"N": 1.5e8, "D": 3e9, "loss": 3.1}'


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _read_csv(path: Path, content: bytes) -> Rows:
    text = _text(path, content)
    header_line = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header: list[str] = []
    cells: list[Mapping[str, Any]] = []
    numbers: list[str] = []
    faults: list[str] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if not header:
                header = [name.strip() for name in row]
                continue
            if len(row) > len(header):
                faults.append(f"{path}: line {reader.line_num} has {len(row)} cells and the header {len(header)}")
            cells.append(dict(zip(header, row, strict=False)))
            numbers.append(str(reader.line_num))
    except csv.Error as error:
        faults.append(f"{path}: line {reader.line_num} cannot be parsed ({error})")
    faults += [
        f"{path}: two columns are called {name!r}" for name in sorted({n for n in header if header.count(n) > 1})
    ]
    if faults:
        raise InputError(shortened(faults))
    return Rows(str(path), "CSV", "line", tuple(header), tuple(cells), tuple(numbers))


def _read_json_lines(path: Path, content: bytes) -> Rows:
    cells: list[Mapping[str, Any]] = []
    numbers: list[str] = []
    faults: list[str] = []
    for number, line in enumerate(_text(path, content).splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            faults.append(f"{path}: line {number} is not JSON ({error})")
            continue
        if not isinstance(value, dict):
            faults.append(f"{path}: line {number} is not a JSON object such as {_EXAMPLE_LINE}")
            continue
        cells.append(value)
        numbers.append(str(number))
    if faults:
        raise InputError(shortened(faults))
    columns = dict.fromkeys(name for row in cells for name in row)
    return Rows(str(path), "JSON lines", "line", tuple(columns), tuple(cells), tuple(numbers))


def _read_parquet(path: Path, content: bytes) -> Rows:
    parquet = _parquet()
    import pyarrow

    try:
        read = parquet.read_table(pyarrow.BufferReader(content))
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    cells = tuple(read.to_pylist())
    numbers = tuple(str(number) for number in range(1, len(cells) + 1))
    return Rows(str(path), "Parquet", "row", tuple(read.column_names), cells, numbers)


def _read_ledger(path: Path, content: bytes) -> Rows:  # noqa: ARG001 - SQLite reads the file itself, and its log
    runs = Ledger(path).runs()
    cells = tuple(run.to_dict() for run in runs)
    names = tuple(f"{run.name!r} seed {run.seed}" for run in runs)
    return Rows(str(path), "a ledger", "run", tuple(dict.fromkeys(name for row in cells for name in row)), cells, names)


_READERS: dict[str, Callable[[Path, bytes], Rows]] = {
    "CSV": _read_csv,
    "JSON lines": _read_json_lines,
    "Parquet": _read_parquet,
    "a ledger": _read_ledger,
}


def check_writable_kind(path: Path) -> None:
    """Find out before the work that `write_runs` could not write a file of this suffix.

    Raises:
        InputError: Its suffix says no kind that can be written.
        MissingExtraError: It is Parquet and pyarrow is not installed.
    """
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind not in _WRITERS:
        raise InputError(f"{path}: its suffix must say what to write: .csv, .jsonl or .parquet")
    if kind == "Parquet":
        _parquet()


def write_runs(table: RunTable, path: Path) -> None:
    """Write runs as CSV, JSON lines or Parquet, as the suffix says, in one step; `open_runs` reads them again.

    Raises:
        InputError: The suffix says no such kind, or the place cannot be written.
        MissingExtraError: It is Parquet and pyarrow is not installed.
    """
    check_writable_kind(path)
    write_atomically(path, _WRITERS[_SUFFIXES[path.suffix.lower()]](table))


def _csv_bytes(table: RunTable) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(zip(*table.columns.values(), strict=True))
    return stream.getvalue().encode()


def _json_lines_bytes(table: RunTable) -> bytes:
    rows = zip(*table.columns.values(), strict=True)
    return "".join(json.dumps(dict(zip(table.columns, row, strict=True))) + "\n" for row in rows).encode()


def _parquet_bytes(table: RunTable) -> bytes:
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    _parquet().write_table(pyarrow.table({letter: list(values) for letter, values in table.columns.items()}), sink)
    return bytes(sink.getvalue().to_pybytes())


_WRITERS: dict[str, Callable[[RunTable], bytes]] = {
    "CSV": _csv_bytes,
    "JSON lines": _json_lines_bytes,
    "Parquet": _parquet_bytes,
}


def _parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "fit") from error
    return parquet


_MOST_LISTED = 10


def shortened(items: list[str]) -> list[str]:
    """The first ten items, and how many more there are."""
    left_out = len(items) - _MOST_LISTED
    return items if left_out <= 0 else [*items[:_MOST_LISTED], f"and {left_out} more"]
