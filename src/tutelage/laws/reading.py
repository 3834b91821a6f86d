"""Reading runs into the table that a law of some family is fitted on, with every doubt about them said.

Covers: which column is which letter, units, what was counted, which runs of a ledger belong together. Does not cover:
parsing files (`tutelage.laws.run_files`), the numbers of the rows (`tutelage.laws.row_faults`), nor whether the runs
determine a law (`tutelage.laws.fitting`).

Runs of equal inputs and different losses are no fault: reruns say how large the noise is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tutelage.errors import InputError
from tutelage.laws.family import Column, Family
from tutelage.laws.row_faults import Chosen, listed, read_numbers
from tutelage.laws.run_files import Rows, open_runs
from tutelage.laws.table import RunTable

LOSS = "loss"
"""The word that stands for the family's own loss letter in a column map."""

_COUNTS = {
    "parameters": 1.0,
    "tokens": 1.0,
    "thousands": 1e3,
    "millions": 1e6,
    "billions": 1e9,
    "trillions": 1e12,
}
_LOSSES = {"nats": 1.0, "bits": math.log(2.0)}
_HINTS = {"params": ("param",), "tokens": ("token",), LOSS: ("loss", "entropy", "_ce")}
_LEDGER_LETTERS = {"N": "N_S", "D": "D_S", "L": "L_S"}
_HELD_OUT = "held_out_sha256"
_COUNTED = ("params", "tokens")


@dataclass(frozen=True)
class Reading:
    """How a file of runs is to be read.

    Args:
        columns: The column that holds each letter ("loss" for the family's loss); a letter that is not here is looked
            for under its own name.
        units: The unit of each letter: parameters, tokens, thousands, millions, billions or trillions; nats or bits for
            a loss; or the number that a value is multiplied by. What is not here is taken as plain counts and nats.
        counting: What was counted as "params" and as "tokens", in the user's words.
        held_out: The first digits of the hash of the held-out set whose losses are wanted, where runs have several.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    counting: Mapping[str, str] = field(default_factory=dict)
    held_out: str | None = None


def read_runs(path: Path, family: Family, reading: Reading | None = None) -> RunTable:
    """The runs of a file (CSV, Parquet, JSON lines, a ledger) that a law of `family` is fitted on.

    Args:
        path: The file; its kind is told by its suffix and content.
        family: Which columns are needed.
        reading: Columns, units and what was counted.

    Returns:
        Plain counts and nats per token; `source` states where each column came from and which unit was assumed.

    Raises:
        InputError: With every fault of the file; those of rows list them by their number in the file.
        MissingExtraError: The file is Parquet and pyarrow is not installed.
    """
    asked = reading or Reading()
    letters = {column.letter: column for column in (*family.inputs, Column(family.loss, LOSS, "nats per token"))}
    faults = _faults_of(asked, letters, family)
    rows = open_runs(path)
    if not rows.cells:
        raise InputError([*faults, f"{path}: holds no runs"])
    columns, missing = _choose(rows, {_letter(k, family): v for k, v in asked.columns.items()}, letters)
    faults += missing
    if faults:
        raise InputError(faults)
    chosen = _chosen(columns, {_letter(k, family): v for k, v in asked.units.items()}, letters)
    rows, left_out = _of_family(rows, chosen) if rows.kind == "a ledger" else (rows, "")
    rows = _of_one_held_out_set(rows, asked.held_out)
    numbers, found = read_numbers(rows, chosen)
    if found:
        raise InputError(f"{path}: {fault}" for fault in found)
    source = f"{path}{left_out}: " + ", ".join(map(_statement, chosen))
    return RunTable(numbers, source, asked.counting)


def _letter(word: str, family: Family) -> str:
    return family.loss if word == LOSS else word


def _kind(column: Column) -> str:
    """Params, tokens or loss."""
    return column.name.rpartition("_")[2]


def _faults_of(asked: Reading, letters: Mapping[str, Column], family: Family) -> list[str]:
    faults = []
    for option, given in (("--columns", asked.columns), ("--units", asked.units)):
        unknown = [word for word in given if word not in (*letters, LOSS)]
        if unknown:
            faults.append(
                f"{option} names {', '.join(map(repr, unknown))}; the letters of family {family.name} are "
                f"{', '.join(letters)} ({LOSS} stands for {family.loss})"
            )
        if LOSS in given and family.loss in given:
            faults.append(f"{option} names {LOSS} and {family.loss}, which are one; give one of them")
    for word, unit in asked.units.items():
        column = letters.get(_letter(word, family))
        if column is not None and _scale(unit, _kind(column)) is None:
            known = _LOSSES if _kind(column) == LOSS else _COUNTS
            faults.append(f"--units {word}={unit}: no such unit; write {', '.join(known)}, or a number to multiply by")
    faults += [
        f"--counting names {name!r}; it says what was counted as {' and as '.join(_COUNTED)}"
        for name in asked.counting
        if name not in _COUNTED
    ]
    return faults


def _scale(unit: str, kind: str) -> float | None:
    """What a value in this unit is multiplied by; None where there is no such unit."""
    known = _LOSSES if kind == LOSS else _COUNTS
    if unit in known:
        return known[unit]
    try:
        scale = float(unit)
    except ValueError:
        return None
    return scale if math.isfinite(scale) and scale > 0 else None


def _choose(rows: Rows, asked: Mapping[str, str], letters: Mapping[str, Column]) -> tuple[dict[str, str], list[str]]:
    """The name of each letter's column, and a fault for each that is not there or not clear."""
    chosen, faults = {}, []
    for letter, column in letters.items():
        names = [asked[letter]] if letter in asked else _own_names(rows, column)
        there = [name for name in names if name in rows.columns]
        if len(there) == 1:
            chosen[letter] = there[0]
        elif there:
            faults.append(f"{rows.source}: {' and '.join(there)} could both be {letter}; {_say(column, there[0])}")
        elif letter in asked:
            faults.append(f"{rows.source}: there is no column {asked[letter]!r} for {letter}; {_all_columns(rows)}")
        else:
            faults.append(f"{rows.source}: {_not_there(rows, column)}")
    twice = [name for name, count in Counter(chosen.values()).items() if count > 1]
    faults += [
        f"{rows.source}: column {name!r} cannot be {' and '.join(k for k, v in chosen.items() if v == name)} at once"
        for name in twice
    ]
    return chosen, faults


def _own_names(rows: Rows, column: Column) -> list[str]:
    if rows.kind == "a ledger":
        return [_LEDGER_LETTERS.get(column.letter, column.letter)]
    return [column.letter, LOSS] if column.name == LOSS else [column.letter]


def _not_there(rows: Rows, column: Column) -> str:
    what = f"no column is called {column.letter} ({column.name.replace('_', ' ')})"
    likely = [name for name in rows.columns if any(hint in name.lower() for hint in _HINTS[_kind(column)])]
    if len(likely) > 1:
        return f"{what}, and {listed(likely)} could be it; {_say(column, likely[0])}"
    return f"{what}; {_all_columns(rows)}; {_say(column, likely[0] if likely else 'NAME')}"


def _all_columns(rows: Rows) -> str:
    return f"its columns are {listed(rows.columns)}"


def _say(column: Column, name: str) -> str:
    return f"say which one with --columns {LOSS if column.name == LOSS else column.letter}={name}"


def _chosen(columns: Mapping[str, str], units: Mapping[str, str], letters: Mapping[str, Column]) -> list[Chosen]:
    chosen = []
    for letter, column in columns.items():
        kind, unit = _kind(letters[letter]), units.get(letter)
        scale = None if unit is None else _scale(unit, kind)
        chosen.append(Chosen(letter, column, kind, 1.0 if scale is None else scale, unit))
    return chosen


def _statement(chosen: Chosen) -> str:
    """Where a column came from and its unit, in words."""
    plain = {"params": "parameters", "tokens": "tokens", LOSS: "nats per token"}[chosen.kind]
    if chosen.unit is None:
        unit = f"{plain} (assumed)"
    elif chosen.unit in _LOSSES:
        unit = f"{chosen.unit} per token"
    elif chosen.unit in _COUNTS:
        unit = plain if chosen.scale == 1.0 else f"{chosen.unit} of {plain}"
    else:
        unit = f"{chosen.scale:g} {plain}"
    return f"{chosen.said} in {unit}"


def _of_family(rows: Rows, chosen: Iterable[Chosen]) -> tuple[Rows, str]:
    """The runs of a ledger that have what is asked for, and how many were left out, in words.

    A run with a teacher's loss is a distilled student, which a supervised law is not of.
    """
    wanted = [each.column for each in chosen]
    complete = [index for index, cells in enumerate(rows.cells) if all(cells[name] is not None for name in wanted)]
    kept = [index for index in complete if "L_T" in wanted or rows.cells[index]["L_T"] is None]
    if not kept:
        why = [f"{len(rows.cells) - len(complete)} lack one of {', '.join(wanted)}"]
        if complete:
            why.append(f"{len(complete)} have a teacher, and a supervised law is of runs without one")
        raise InputError(f"{rows.source}: none of its {len(rows.cells)} runs can be used: {'; '.join(why)}")
    left_out = len(rows.cells) - len(kept)
    return _only(rows, kept), f" (without {left_out} runs of another kind)" if left_out else ""


def _of_one_held_out_set(rows: Rows, wanted: str | None) -> Rows:
    """The runs whose losses are of one held-out set.

    Raises:
        InputError: There are several, and none or no one of them is wanted.
    """
    if _HELD_OUT not in rows.columns:
        if wanted is not None:
            raise InputError(f"--held-out {wanted}: {rows.source} has no column {_HELD_OUT}; leave the option out")
        return rows
    hashes = [str(cells.get(_HELD_OUT) or "") for cells in rows.cells]
    known = ", ".join(f"{name[:12] or 'not stated'} ({count} runs)" for name, count in sorted(Counter(hashes).items()))
    fitting = {name for name in hashes if wanted is None or (name and name.startswith(wanted))}
    if len(fitting) == 1:
        return _only(rows, [index for index, name in enumerate(hashes) if name in fitting])
    if wanted is None:
        raise InputError(
            f"{rows.source}: losses on different held-out sets do not belong into one law: {known}; choose one with "
            f"--held-out {max(fitting)[:12]}"
        )
    many = "are several of" if fitting else "is none of"
    raise InputError(f"--held-out {wanted} {many} the held-out sets of {rows.source}: {known}")


def _only(rows: Rows, indices: list[int]) -> Rows:
    return replace(
        rows,
        cells=tuple(rows.cells[index] for index in indices),
        numbers=tuple(rows.numbers[index] for index in indices),
    )
