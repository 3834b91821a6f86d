"""The ledger: every finished run in one SQLite file that survives crashes, full disks and several readers.

A run is identified by `(recipe_hash, seed)`: recording it again replaces the older row (the newer numbers, folder and
time win; `record` says "replaced"), so that a repeated run never counts twice in a fit. Not here: what a run's folder
holds, and fits over runs. The file needs a local disk: write-ahead logging does not work over network file systems.
"""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tutelage.errors import InputError, TutelageError
from tutelage.records.estimate import Estimate
from tutelage.records.run import LAW_COLUMNS, LawColumns, Run

SCHEMA_VERSION = 1
APPLICATION_ID = 0x54555445  # "TUTE": tells our file from any other SQLite database
BUSY_SECONDS = 30.0

_PLAIN_COLUMNS = ("name", "task", "created", "recipe_hash", "seed", "folder")
_COLUMNS = (*_PLAIN_COLUMNS, *LAW_COLUMNS, "scores", "provenance")
_SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    task TEXT NOT NULL,
    created TEXT NOT NULL,
    recipe_hash TEXT NOT NULL,
    seed INTEGER NOT NULL,
    folder TEXT NOT NULL,
    N_S REAL, D_S REAL, N_T REAL, D_T REAL, L_T REAL, L_S REAL, FLOPs REAL,
    held_out_sha256 TEXT,
    scores TEXT NOT NULL,
    provenance TEXT NOT NULL,
    UNIQUE (recipe_hash, seed)
)
"""
_UPSERT = (
    f"INSERT INTO runs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    "ON CONFLICT (recipe_hash, seed) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS if column not in ("recipe_hash", "seed"))
)


class Ledger:
    """The runs kept in one file. Nothing is opened or made until a method needs it.

    Args:
        path: The file; `tutelage.records.locations.ledger_path` finds the default one.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def record(self, run: Run) -> Literal["added", "replaced"]:
        """Keep a run; when this returns the row is on the disk.

        Returns:
            "replaced" when a run of the same recipe hash and seed was there, whose row is now this one.

        Raises:
            InputError: The file is not a ledger, is of a newer version, cannot be written, or the disk is full.
        """
        with self._writing() as connection:
            known = connection.execute(
                "SELECT 1 FROM runs WHERE recipe_hash = ? AND seed = ?", (run.recipe_hash, run.seed)
            ).fetchone()
            connection.execute(_UPSERT, _row(run))
        return "replaced" if known else "added"

    def check_writable(self) -> None:
        """Find out before hours of work that `record` would fail; the file is made if it is not there.

        Raises:
            InputError: As `record` does.
        """
        with self._writing():
            pass

    def runs(self) -> tuple[Run, ...]:
        """Every run, newest first; none where the file does not exist (it is not made).

        Raises:
            InputError: The file is not a ledger, is of a newer version, or cannot be read.
        """
        if not self.path.exists():
            self._explain_missing()
            return ()
        with self._reading() as connection:
            rows = connection.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM runs ORDER BY created DESC, id DESC"
            ).fetchall()
        try:
            return tuple(_run(row) for row in rows)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self.path} holds a row that cannot be read ({error}); restore a copy of it") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, committed at the end or not at all."""
        with self._explained():
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"the ledger {self.path} cannot be made: {error.strerror}. {_WAY_OUT}") from error
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                # FULL: a recorded run survives a power cut, not only a crash of this process.
                connection.execute("PRAGMA synchronous = FULL")
                if not self._is_ours(connection):
                    _write_ahead(connection)
                connection.execute("BEGIN IMMEDIATE")
                if not self._is_ours(connection):  # again: another process may have made it in between
                    connection.execute(_SCHEMA)
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                yield connection
                connection.execute("COMMIT")
            finally:
                connection.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            connection = self._open_to_read()
            try:
                if not self._is_ours(connection):
                    raise InputError(f"{self.path} is an empty file, not a ledger of runs. {_WAY_OUT}")
                yield connection
            finally:
                connection.close()

    def _open_to_read(self) -> sqlite3.Connection:
        address = self.path.absolute().as_uri()
        # Not mode=ro: the last reader could then not clear away the log and leave one file.
        connection = sqlite3.connect(f"{address}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError:
            # A folder that we may not write to has no room for the shared-memory file that reading a WAL needs. With
            # no log beside it the file is complete, and can be read as it stands.
            connection.close()
            if self.path.with_name(self.path.name + "-wal").exists():
                raise
            connection = sqlite3.connect(f"{address}?immutable=1", uri=True, isolation_level=None)
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        """True for a ledger of this version, False for a new file; anything else is an `InputError`."""
        # One statement, so that a file which another process is making is seen before or after, never in between.
        application, version, tables = connection.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if not tables and not version and application in (0, APPLICATION_ID):
            return False
        if application != APPLICATION_ID:
            raise InputError(f"{self.path} is another program's database, not a ledger of runs. {_WAY_OUT}")
        if version > SCHEMA_VERSION:
            raise InputError(
                f"the ledger {self.path} has schema version {version}, and this tutelage knows {SCHEMA_VERSION}. "
                f"Upgrade tutelage, or name another file with --ledger."
            )
        return True

    def _explain_missing(self) -> None:
        """A ledger that is not there is empty, unless it could never be there."""
        blocking = next((part for part in self.path.absolute().parents if part.exists() and not part.is_dir()), None)
        if blocking is not None:
            raise InputError(f"there can be no ledger {self.path}: {blocking} is not a folder. {_WAY_OUT}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """SQLite's errors as ours, each with the way out."""
        if self.path.is_dir():
            raise InputError(f"the ledger {self.path} is a folder, and a ledger is a file. {_WAY_OUT}")
        try:
            yield
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def _explain(self, error: sqlite3.Error) -> TutelageError:
        name = getattr(error, "sqlite_errorname", "") or ""
        if name.startswith("SQLITE_FULL"):
            return InputError(f"the disk is full: the run was not recorded in {self.path}. Free space, run again.")
        if name.startswith("SQLITE_NOTADB"):
            return InputError(f"{self.path} is not a ledger of runs (nor any SQLite file). {_WAY_OUT}")
        if name.startswith("SQLITE_CORRUPT"):
            return InputError(f"the ledger {self.path} is damaged ({error}). Restore a copy, or name another file.")
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
            return InputError(f"the ledger {self.path} cannot be opened for this: {error}. {_WAY_OUT}")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return TutelageError(f"the ledger {self.path} has been locked for {BUSY_SECONDS:.0f} s; try again later")
        return TutelageError(f"the ledger {self.path} failed: {error}")


_WAY_OUT = "Name another file with --ledger or $TUTELAGE_LEDGER."


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch a new file to write-ahead logging.

    SQLite's own waiting does not cover the switch: it fails at once while another process makes the same file.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def runs_to_csv(runs: Sequence[Run]) -> str:
    """The runs as CSV with a header: plain columns, the law's letters, then each score's value, low and high."""
    scores = sorted({name for run in runs for name in run.scores})
    ends = ("value", "low", "high")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    header = [f"{name}.{end}" if end != "value" else name for name in scores for end in ends]
    writer.writerow([*_PLAIN_COLUMNS, *LAW_COLUMNS, *header])
    for run in runs:
        row = run.to_dict()
        measured = [getattr(run.scores[name], end) if name in run.scores else None for name in scores for end in ends]
        writer.writerow([*(row[column] for column in (*_PLAIN_COLUMNS, *LAW_COLUMNS)), *measured])
    return stream.getvalue()


def _row(run: Run) -> list[Any]:
    row = run.to_dict()
    return [
        json.dumps(row[column], allow_nan=False) if column in ("scores", "provenance") else row[column]
        for column in _COLUMNS
    ]


def _run(row: Sequence[Any]) -> Run:
    values = dict(zip(_COLUMNS, row, strict=True))
    return Run(
        **{column: values[column] for column in _PLAIN_COLUMNS},
        law=LawColumns(**{column: values[column] for column in LAW_COLUMNS}),
        scores={name: Estimate(**estimate) for name, estimate in json.loads(values["scores"]).items()},
        provenance=json.loads(values["provenance"]),
    )
