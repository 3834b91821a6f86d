"""Reading runs: columns, units, what is refused and how the rows are named."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tutelage.errors import InputError
from tutelage.laws.families import find_family
from tutelage.laws.reading import Reading, read_runs
from tutelage.laws.table import RunTable
from tutelage.records.ledger import Ledger
from tutelage.records.run import LawColumns, Run

GAMMA, DISTILLATION = find_family("gamma"), find_family("distillation")
DOUBLE = "the same run is there more than once and would count double:"
GOOD = "N,D,loss\n1e8,2e9,3.1\n2e8,4e9,2.9\n4e8,8e9,2.7\n"


def written(folder: Path, text: str, name: str = "runs.csv") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def faults(path: Path, reading: Reading | None = None, family: str = "gamma") -> list[str]:
    with pytest.raises(InputError) as caught:
        read_runs(path, find_family(family), reading)
    return [fault.removeprefix(f"{path}: ") for fault in caught.value.faults]


def test_letters_are_columns_and_loss_is_the_fitted_letter(tmp_path: Path) -> None:
    table = read_runs(written(tmp_path, GOOD), GAMMA)
    assert dict(table.columns) == {"N": (1e8, 2e8, 4e8), "D": (2e9, 4e9, 8e9), "L": (3.1, 2.9, 2.7)}
    assert table.source == (
        f"{tmp_path / 'runs.csv'}: N in parameters (assumed), D in tokens (assumed), "
        "L (loss) in nats per token (assumed)"
    )
    assert table.counting == {}


def test_columns_units_and_counting_are_stated(tmp_path: Path) -> None:
    path = written(tmp_path, "size,tokens,bits,note\n70,1.4,4.6,a\n160,3.2,4.2,b\n")
    counting = {"params": "non-embedding", "tokens": "with repeats"}
    columns = {"N": "size", "D": "tokens", "loss": "bits"}
    table = read_runs(path, GAMMA, Reading(columns, {"N": "millions", "D": "1e9", "loss": "bits"}, counting))
    assert table.columns["N"] == (70e6, 160e6)
    assert table.columns["D"] == (1.4e9, 3.2e9)
    assert table.columns["L"] == pytest.approx([4.6 * math.log(2), 4.2 * math.log(2)])
    assert table.counting == counting
    assert table.source.endswith(
        "N (size) in millions of parameters, D (tokens) in 1e+09 tokens, L (bits) in bits per token"
    )


def test_rows_at_fault_are_listed_by_line_all_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "run,N,D,loss\na,1e8,2e9,3.1\nb,,2e9,3.0\n\nc,2e8,-4e9,nan\nd,4e8,0,diverged\ne,4e8,8e9,2.7\nf,4e8,8e9,2.7\n",
    )
    assert faults(path) == [
        "N is missing in line 3; fill it in, or remove these runs",
        "D is not greater than 0 in lines 5 (-4e9), 6 (0); correct it, or remove these runs",
        "L (loss) is not a finite number in lines 5 (nan), 6 (diverged); write plain numbers, or remove these runs",
        f"{DOUBLE} lines 7, 8 (N=4e+08, D=8e+09, L=2.7); keep one of each",
    ]


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    path = written(tmp_path, "N,D,loss\n" + "".join(f"{i}e8,1e9,\n" for i in range(1, 16)))
    (fault,) = faults(path)
    assert fault.startswith("L (loss) is missing in lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, and 5 more; ")


def test_reruns_are_information(tmp_path: Path) -> None:
    assert len(read_runs(written(tmp_path, GOOD + "4e8,8e9,2.71\n"), GAMMA)) == 4


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("a,1e8,1e9,3\nb,2e8,2e9,2.9\nc,400,4e9,2.8\n", "N is in two units: a factor of 2.5e+05 lies between line 4"),
        ("a,1e8,1e9,3\nb,2e8,2.5,2.9\n", "D is in two units: a factor of 4e+08 lies between line 3 (2.5)"),
        ("a,0.07,1e9,3\nb,0.16,2e9,2.9\n", "N is at most 0.16, which cannot be a count of parameters; state its unit"),
        ("a,1e8,1.4,3\nb,2e8,3,2.9\n", "D is at most 3, which cannot be a count of tokens; state its unit"),
        (
            "a,1e8,1e9,3\na,1.3e8,2e9,2.9\nb,3e8,4e9,2.8\n",
            "N is counted in two ways for one run: a has 1e+08 (line 2) and 1.3e+08 (line 3)",
        ),
    ],
)
def test_mixed_units_and_counts(tmp_path: Path, rows: str, fault: str) -> None:
    (found,) = faults(written(tmp_path, f"run,N,D,loss\n{rows}"))
    assert found.startswith(fault)


def test_a_stated_plain_unit_is_believed(tmp_path: Path) -> None:
    path = written(tmp_path, "N,D,loss\n70,1e9,3\n1e6,2e9,2.9\n")
    assert faults(path)[0].startswith("N is in two units")
    assert read_runs(path, GAMMA, Reading(units={"N": "parameters"})).columns["N"] == (70.0, 1e6)


@pytest.mark.parametrize("sizes", [["1e8", "1e9"], ["1e8", "2e8", "3e8", "4e8"]])
def test_a_name_that_is_an_experiment_is_no_mixed_count(tmp_path: Path, sizes: list[str]) -> None:
    path = written(tmp_path, "name,N,D,loss\n" + "".join(f"sweep,{size},1e9,3\n" for size in sizes))
    assert len(read_runs(path, GAMMA)) == len(sizes)


def test_columns_that_are_not_there_or_not_clear(tmp_path: Path) -> None:
    path = written(tmp_path, "params_total,params_body,tokens,loss,L\n1e8,9e7,1e9,3,3\n")
    columns = "params_total, params_body, tokens, loss, L"
    say = "say which one with --columns"
    assert faults(path) == [
        f"no column is called N (student params), and params_total, params_body could be it; {say} N=params_total",
        f"no column is called D (student tokens); its columns are {columns}; {say} D=tokens",
        f"L and loss could both be L; {say} loss=L",
    ]
    assert faults(path, Reading({"N": "size", "D": "tokens", "loss": "tokens"})) == [
        f"there is no column 'size' for N; its columns are {columns}",
        "column 'tokens' cannot be D and L at once",
    ]


def test_faults_of_the_options(tmp_path: Path) -> None:
    reading = Reading({"M": "x", "loss": "loss", "L": "loss"}, {"N": "dozens", "loss": "millions"}, {"param": "all"})
    found = faults(written(tmp_path, GOOD), reading)
    assert [fault.partition(";")[0] for fault in found] == [
        "--columns names 'M'",
        "--columns names loss and L, which are one",
        "--units N=dozens: no such unit",
        "--units loss=millions: no such unit",
        "--counting names 'param'",
    ]


def test_a_teachers_loss_is_not_the_fitted_loss(tmp_path: Path) -> None:
    (fault,) = faults(written(tmp_path, "N_S,D_S,loss\n1e8,2e9,3\n"), family="distillation")
    assert fault.startswith("no column is called L_T (teacher loss)")


def test_losses_of_several_held_out_sets(tmp_path: Path) -> None:
    path = written(
        tmp_path, "N,D,loss,held_out_sha256\n1e8,2e9,3.1,abc1\n2e8,4e9,2.9,abc1\n4e8,8e9,2.7,def2\n5e8,9e9,2.6,\n"
    )
    (fault,) = faults(path)
    assert "not stated (1 runs), abc1 (2 runs), def2 (1 runs); choose one with --held-out" in fault
    assert len(read_runs(path, GAMMA, Reading(held_out="ab"))) == 2
    assert faults(path, Reading(held_out="9"))[0].startswith("--held-out 9 is none of the held-out sets")
    assert "has no column held_out_sha256" in faults(written(tmp_path, GOOD, "b.csv"), Reading(held_out="ab"))[0]


def ledger(folder: Path, *rows: Mapping[str, float | str]) -> Path:
    kept = Ledger(folder / "ledger.sqlite3")
    for seed, row in enumerate(rows):
        law = replace(LawColumns(held_out_sha256="abc"), **row)  # type: ignore[arg-type]
        kept.record(Run(name="run", task="text", recipe_hash="recipe", seed=seed, folder=folder, law=law))
    return kept.path


STUDENT: dict[str, float | str] = {"N_S": 1e8, "D_S": 2e9, "L_S": 2.9}


def test_the_ledger(tmp_path: Path) -> None:
    path = ledger(tmp_path, STUDENT, {**STUDENT, "L_T": 2.5}, {**STUDENT, "D_S": 4e9, "L_S": 2.8}, {"N_S": 1e8})
    plain = read_runs(path, GAMMA)
    assert sorted(plain.columns["D"]) == [2e9, 4e9]
    assert " (without 2 runs of another kind): N (N_S) in" in plain.source
    assert dict(read_runs(path, DISTILLATION).columns) == {
        "N_S": (1e8,), "D_S": (2e9,), "L_T": (2.5,), "L_S": (2.9,)
    }  # fmt: skip
    assert "no column is called U" in faults(path, family="data-constrained")[0]


def test_a_ledger_without_runs_of_the_kind(tmp_path: Path) -> None:
    path = ledger(tmp_path, {**STUDENT, "L_T": 2.5}, {"N_S": 1e8})
    (fault,) = faults(path)
    assert fault == (
        "none of its 2 runs can be used: 1 lack one of N_S, D_S, L_S; 1 have a teacher, and a supervised law is of "
        "runs without one"
    )


def test_ledger_rows_are_named(tmp_path: Path) -> None:
    path = ledger(tmp_path, STUDENT, {**STUDENT, "held_out_sha256": "def"})
    assert "abc (1 runs), def (1 runs)" in faults(path)[0]
    path = ledger(tmp_path / "b", STUDENT, STUDENT)
    assert "runs 'run' seed 1, 'run' seed 0 (N=1e+08" in faults(path)[0].replace(";", ",")


reference = os.environ.get("TUTELAGE_REFERENCE_DATA")


@pytest.mark.skipif(not reference, reason="TUTELAGE_REFERENCE_DATA is not set")
@pytest.mark.parametrize(
    ("name", "family", "columns", "runs"),
    [
        ("chinchilla_figure.csv", "gamma", {}, 234),
        ("gemstones_hot.jsonl", "gamma", {"N": "params_active_precise", "D": "tokens", "loss": "final_loss"}, 220),
        ("olmo_ladder.csv", "hoffmann", {"loss": "c4_en-validation_ce"}, 30),
        ("datablations_182.csv", "data-constrained", {}, 182),
    ],
)
def test_real_tables_are_read_without_a_false_alarm(name: str, family: str, columns: dict[str, str], runs: int) -> None:
    table = read_runs(Path(str(reference)) / name, find_family(family), Reading(columns))
    assert isinstance(table, RunTable)
    assert len(table) == runs


def test_a_row_keeps_the_number_of_its_file(tmp_path: Path) -> None:
    lines = [json.dumps({"N": 1e8, "D": 1e9, "loss": 3.0}), "", json.dumps({"N": 10**400, "D": True, "loss": 2.8})]
    size, tokens = faults(written(tmp_path, "\n".join(lines), "runs.jsonl"))
    assert size.startswith("N is not a finite number in line 3 (1000")
    assert tokens.startswith("D is not a finite number in line 3 (True)")
