from __future__ import annotations

import csv
import functools
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.errors import InputError, TutelageError
from tutelage.records import ledger as ledger_module
from tutelage.records.estimate import Estimate
from tutelage.records.ledger import SCHEMA_VERSION, Ledger, runs_to_csv
from tutelage.records.run import LAW_COLUMNS, LawColumns, Run

MakeRun = Callable[..., Run]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "deep" / "runs.sqlite3")


def python(program: str, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_goes_in_comes_out(ledger: Ledger, make_run: MakeRun) -> None:
    run = make_run()
    assert ledger.record(run) == "added"
    assert ledger.runs() == (run,)
    assert ledger.runs()[0].law == run.law


def test_every_column_may_be_unknown(ledger: Ledger, make_run: MakeRun) -> None:
    run = make_run(law=LawColumns(), scores={}, provenance={})
    ledger.record(run)
    assert ledger.runs() == (run,)
    assert all(getattr(ledger.runs()[0].law, column) is None for column in LAW_COLUMNS)


def test_the_file_has_the_columns_that_a_law_needs(ledger: Ledger, make_run: MakeRun) -> None:
    """Other programs read the file: its columns are a contract."""
    ledger.record(make_run())
    with sqlite3.connect(ledger.path) as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(runs)")}
        assert {"N_S", "D_S", "N_T", "D_T", "L_T", "L_S", "FLOPs", "held_out_sha256", "recipe_hash", "seed"} <= columns
        assert connection.execute("SELECT N_S, L_T, D_T FROM runs").fetchall() == [(2e7, 0.9, None)]
    connection.close()


def test_a_rerun_replaces_its_row(ledger: Ledger, make_run: MakeRun) -> None:
    ledger.record(make_run(seed=1, wer=0.5))
    ledger.record(make_run(seed=2, wer=0.4))
    again = make_run(seed=1, wer=0.3, folder=Path("/runs/two"))
    assert ledger.record(again) == "replaced"
    assert [run.seed for run in ledger.runs()] == [1, 2]
    assert ledger.runs()[0] == again


def test_another_recipe_is_another_run(ledger: Ledger, make_run: MakeRun) -> None:
    assert [ledger.record(make_run(recipe_hash=h)) for h in ("a", "b")] == ["added", "added"]
    assert len(ledger.runs()) == 2


def test_newest_first(ledger: Ledger, make_run: MakeRun) -> None:
    days = [3, 1, 2]
    for day in days:
        ledger.record(make_run(seed=day, created=f"2026-01-0{day}T00:00:00.000000+00:00"))
    assert [run.seed for run in ledger.runs()] == [3, 2, 1]


def test_reading_makes_nothing(ledger: Ledger) -> None:
    assert ledger.runs() == ()
    assert not ledger.path.parent.exists()


def test_one_file_is_left_when_all_is_closed(ledger: Ledger, make_run: MakeRun) -> None:
    ledger.record(make_run())
    ledger.runs()
    assert list(ledger.path.parent.iterdir()) == [ledger.path]
    with sqlite3.connect(ledger.path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_writer_killed_inside_its_transaction_leaves_the_ledger_as_it_was(ledger: Ledger, make_run: MakeRun) -> None:
    ledger.record(make_run(seed=1))
    before = ledger.runs()
    writer = python(
        """
        import sys, time
        from pathlib import Path
        from tutelage.records.ledger import Ledger
        with Ledger(Path(sys.argv[1]))._writing() as connection:
            connection.execute("UPDATE runs SET seed = 99")
            connection.execute("DELETE FROM runs WHERE seed = 99")
            print("inside", flush=True)
            time.sleep(60)
        """,
        ledger.path,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "inside\n"
    assert ledger.runs() == before, "a reader does not see, nor wait for, an open transaction"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert writer.stderr is not None
    writer.stderr.close()
    assert ledger.runs() == before
    assert ledger.record(make_run(seed=2)) == "added"
    assert [run.seed for run in ledger.runs()] == [2, 1]


def test_a_run_recorded_before_a_kill_is_kept(ledger: Ledger, make_run: MakeRun) -> None:
    """`os._exit` right after `record`: no handler, no close at the end of the process."""
    program = """
        import os, sys
        from pathlib import Path
        from tutelage.records.ledger import Ledger
        from tutelage.records.run import Run
        Ledger(Path(sys.argv[1])).record(Run("killed", "speech", "h", 7, Path("f")))
        os._exit(9)
    """
    assert python(program, ledger.path).wait() == 9
    assert [run.name for run in ledger.runs()] == ["killed"]


def test_many_processes_make_and_fill_one_ledger(ledger: Ledger) -> None:
    program = """
        import sys
        from pathlib import Path
        from tutelage.records.ledger import Ledger
        from tutelage.records.run import Run
        for i in range(5):
            Ledger(Path(sys.argv[1])).record(Run("n", "speech", "h", int(sys.argv[2]) * 100 + i, Path("f")))
    """
    writers = [python(program, ledger.path, number) for number in range(6)]
    failures = [writer.communicate()[1] for writer in writers]
    assert failures == [""] * 6
    assert len(ledger.runs()) == 30


def test_a_new_file_that_another_process_is_making_is_waited_for(ledger: Ledger, make_run: MakeRun) -> None:
    ledger.path.parent.mkdir()
    other = sqlite3.connect(ledger.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")  # readers may pass, the switch to write-ahead logging may not
    release = threading.Timer(0.1, other.close)
    release.start()
    try:
        assert ledger.record(make_run()) == "added"
    finally:
        release.join()


def test_a_new_file_is_never_seen_half_made(ledger: Ledger, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> Any:
            found = super().execute(sql, *values)
            if "application_id" not in sql or looks:
                return found
            looks.append(sql)
            rows = iter(found.fetchall())
            Ledger(ledger.path).record(make_run(seed=2))  # another process makes the file right after the first look
            return SimpleNamespace(fetchone=lambda: next(rows))

    monkeypatch.setattr("sqlite3.connect", functools.partial(sqlite3.connect, factory=Watched))
    ledger.record(make_run(seed=1))
    assert sorted(run.seed for run in ledger.runs()) == [1, 2]


def test_readers_beside_a_writer_see_whole_runs(ledger: Ledger, make_run: MakeRun) -> None:
    ledger.record(make_run(seed=0))
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(len(ledger.runs()))

    reader = threading.Thread(target=read)
    reader.start()
    for seed in range(1, 30):
        ledger.record(make_run(seed=seed))
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert len(ledger.runs()) == 30


@pytest.mark.parametrize("method", ["record", "runs"])
class TestWhatIsNotALedger:
    def use(self, path: Path, method: str, make_run: MakeRun) -> None:
        ledger = Ledger(path)
        ledger.record(make_run()) if method == "record" else ledger.runs()

    def test_text(self, tmp_path: Path, method: str, make_run: MakeRun) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("a shopping list, long enough to be taken for a header of a file " * 4)
        before = path.read_bytes()
        with pytest.raises(InputError, match=r"notes\.txt is not a ledger.*--ledger"):
            self.use(path, method, make_run)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_another_programs_database(self, tmp_path: Path, method: str, make_run: MakeRun) -> None:
        path = tmp_path / "bookmarks.sqlite"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE runs (mine TEXT)")
        connection.close()
        before = path.read_bytes()
        with pytest.raises(InputError, match="another program's database"):
            self.use(path, method, make_run)
        assert path.read_bytes() == before

    def test_a_newer_schema(self, tmp_path: Path, method: str, make_run: MakeRun) -> None:
        path = tmp_path / "l.sqlite3"
        Ledger(path).record(make_run())
        with sqlite3.connect(path) as connection:
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        connection.close()
        with pytest.raises(InputError, match=f"schema version {SCHEMA_VERSION + 1}.*knows {SCHEMA_VERSION}.*Upgrade"):
            self.use(path, method, make_run)

    def test_a_folder(self, tmp_path: Path, method: str, make_run: MakeRun) -> None:
        with pytest.raises(InputError, match="is a folder"):
            self.use(tmp_path, method, make_run)

    def test_below_a_file(self, tmp_path: Path, method: str, make_run: MakeRun) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="ledger"):
            self.use(tmp_path / "file" / "sub" / "l.sqlite3", method, make_run)

    def test_a_ledger_cut_in_the_middle(self, tmp_path: Path, method: str, make_run: MakeRun) -> None:
        path = tmp_path / "l.sqlite3"
        for seed in range(60):
            Ledger(path).record(make_run(seed=seed))
        os.truncate(path, 8192)
        with pytest.raises(InputError, match="damaged"):
            self.use(path, method, make_run)


def test_an_empty_file_becomes_a_ledger(tmp_path: Path, make_run: MakeRun) -> None:
    """As after `touch`, or mktemp: there is nothing to lose in it."""
    path = tmp_path / "l"
    path.touch()
    with pytest.raises(InputError, match="empty file"):
        Ledger(path).runs()
    Ledger(path).record(make_run())
    assert len(Ledger(path).runs()) == 1


def test_a_full_disk_is_said_and_loses_nothing(
    ledger: Ledger, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.record(make_run(seed=1))
    connect = sqlite3.connect

    def small(*words: object, **options: object) -> sqlite3.Connection:
        connection = connect(*words, **options)  # type: ignore[call-overload]
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(ledger_module.sqlite3, "connect", small)
        with pytest.raises(InputError, match="the disk is full: the run was not recorded"):
            ledger.record(make_run(seed=2, provenance={"long": "x" * 100_000}))
    assert [run.seed for run in ledger.runs()] == [1]


def test_a_long_lock_is_a_failure_that_names_the_file(
    ledger: Ledger, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.record(make_run())
    monkeypatch.setattr(ledger_module, "BUSY_SECONDS", 0.05)
    with ledger._writing(), pytest.raises(TutelageError, match="locked") as caught:
        Ledger(ledger.path).record(make_run(seed=5))
    assert caught.value.exit_code == 1


def test_a_ledger_in_a_folder_without_room_for_sqlites_own_files(
    ledger: Ledger, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared, read-only folder: the plain way of opening is refused, and the complete file is read as it stands."""
    ledger.record(make_run())
    connect = sqlite3.connect

    def refuse(address: str, *words: object, **options: object) -> sqlite3.Connection:
        if "mode=rw" not in str(address):
            return connect(address, *words, **options)  # type: ignore[call-overload]

        class Refusing(sqlite3.Connection):
            def execute(self, *_: object) -> sqlite3.Cursor:
                raise sqlite3.OperationalError("unable to open database file")

        return connect(":memory:", factory=Refusing)

    with monkeypatch.context() as patch:
        patch.setattr(ledger_module.sqlite3, "connect", refuse)
        assert len(ledger.runs()) == 1


def test_check_writable_keeps_what_is_there(ledger: Ledger, make_run: MakeRun) -> None:
    ledger.check_writable()
    assert ledger.runs() == ()
    ledger.record(make_run())
    ledger.check_writable()
    assert len(ledger.runs()) == 1


def test_csv_has_one_row_a_run_and_scores_with_intervals(make_run: MakeRun) -> None:
    other = make_run(seed=3, scores={"speed": Estimate(0.5)}, law=LawColumns())
    rows = list(csv.DictReader(runs_to_csv([make_run(), other]).splitlines()))
    assert [row["seed"] for row in rows] == ["0", "3"]
    assert rows[0]["student.wer"] == "0.25"
    assert rows[0]["student.wer.high"] == "0.32"
    assert rows[0]["N_S"] == "20000000.0"
    assert rows[0]["speed"] == ""
    assert (rows[1]["student.wer"], rows[1]["N_S"], rows[1]["speed"], rows[1]["speed.low"]) == ("", "", "0.5", "")


@pytest.mark.parametrize("column", ["N_S", "D_T", "L_S", "FLOPs"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_no_impossible_number_gets_in(column: str, value: float) -> None:
    with pytest.raises(ValueError, match=column):
        LawColumns(**{column: value})  # type: ignore[arg-type]


def test_a_run_without_an_identity_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(ValueError, match="hash of its recipe"):
        make_run(recipe_hash="")
    with pytest.raises(ValueError, match=r"student\.wer"):
        make_run(scores={"student.wer": Estimate(float("nan"))})


def test_a_run_is_frozen(make_run: MakeRun) -> None:
    scores = {"wer": Estimate(0.5)}
    run = make_run(scores=scores)
    scores["cer"] = Estimate(0.1)
    assert set(run.scores) == {"wer"}
    with pytest.raises(TypeError):
        run.scores["x"] = Estimate(1.0)  # type: ignore[index]
    with pytest.raises(AttributeError):
        run.seed = 3  # type: ignore[misc]
