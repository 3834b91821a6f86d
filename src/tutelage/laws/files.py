"""Law files: one JSON document per law, and finding a law by name or file.

Covers: reading, writing, checking. Does not cover: making the law (`tutelage fit`). The file's fields are those of
`tutelage.laws.law.Law`; coefficients of a distillation law include its frozen supervised law. Nothing is executed on
reading, and numbers are checked before they reach an equation.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tutelage.errors import InputError
from tutelage.laws.compute import ForwardCost
from tutelage.laws.families import families
from tutelage.laws.law import Counting, Law, Range
from tutelage.laws.published import PUBLISHED
from tutelage.laws.table import RunTable
from tutelage.records.document import Status, jsonable
from tutelage.records.files import write_json

SCHEMA = {"name": "tutelage.law", "version": 1}


def find_law(reference: str) -> Law:
    """The law that `reference` names: a published law by name, else a law file.

    Raises:
        InputError: No such law, with the nearest name; or the file is not a law file, with every fault.
    """
    if reference in PUBLISHED:
        return PUBLISHED[reference]
    path = Path(reference)
    if path.exists():
        return read_law(path)
    near = difflib.get_close_matches(reference, PUBLISHED, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    kind = "law file" if path.suffix or len(path.parts) > 1 else "law"
    raise InputError(f"no {kind} {reference!r}{hint} (published laws: {', '.join(PUBLISHED)}; or give a law file)")


def law_to_dict(law: Law) -> dict[str, Any]:
    """The document of a law, as plain JSON values."""
    return {
        "schema": SCHEMA,
        "name": law.name,
        "family": law.equation.family,
        "coefficients": law.equation.coefficients(),
        "source": law.source,
        "modality": law.modality,
        "counting": {"params": law.counting.params, "tokens": law.counting.tokens},
        "forward": {
            "context": law.forward.context,
            "vocabulary": law.forward.vocabulary,
            "aspect": law.forward.aspect,
            "omega": law.forward.omega,
        },
        "fitted": {name: list(ends) for name, ends in law.fitted.items()},
        "rounding": dict(law.rounding),
        "intervals": {name: list(ends) for name, ends in law.intervals.items()},
        "interval_level": law.interval_level,
        "draws": None if law.draws is None else {name: list(values) for name, values in law.draws.items()},
        "note": law.note,
        "status": asdict(law.status),
        "diagnostics": jsonable(law.diagnostics),
        "runs": None if law.runs is None else law.runs.to_dict(),
        "provenance": jsonable(law.provenance),
    }


def write_law(law: Law, path: Path) -> None:
    """Write a law file; a file in its place is replaced in one step."""
    write_json(path, law_to_dict(law))


def read_law(path: Path) -> Law:
    """Read a law file.

    Raises:
        InputError: The file cannot be read, is not JSON, or is not a law file; every fault is listed.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: not a readable law file ({error})") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f"{path}: not a law file of this version; its schema must be {json.dumps(SCHEMA)}")
    faults = _faults(document)
    if faults:
        raise InputError(f"{path}: {fault}" for fault in faults)
    counting, forward, draws = document.get("counting", {}), document.get("forward", {}), document.get("draws")
    return Law(
        name=str(document.get("name", path.stem)),
        equation=families()[document["family"]].build(
            {name: float(value) for name, value in document["coefficients"].items()}
        ),
        source=str(document.get("source", path.name)),
        counting=Counting(str(counting.get("params", "not stated")), str(counting.get("tokens", "not stated"))),
        forward=ForwardCost(**forward),
        fitted=_ranges(document.get("fitted", {})),
        modality=str(document.get("modality", "text")),
        rounding={name: float(half) for name, half in document.get("rounding", {}).items()},
        intervals=_ranges(document.get("intervals", {})),
        interval_level=document.get("interval_level"),
        draws=None if draws is None else {name: tuple(map(float, values)) for name, values in draws.items()},
        note=str(document.get("note", "")),
        status=Status(**document.get("status", {})),
        diagnostics=document.get("diagnostics", {}),
        runs=_runs(document.get("runs")),
        provenance=document.get("provenance", {}),
    )


def _runs(written: Mapping[str, Any] | None) -> RunTable | None:
    if written is None:
        return None
    columns = {letter: tuple(values) for letter, values in written["columns"].items()}
    return RunTable(columns, str(written.get("source", "")), written.get("counting", {}))


def _ranges(written: Mapping[str, Any]) -> dict[str, Range]:
    return {name: (float(ends[0]), float(ends[1])) for name, ends in written.items()}


def _faults(document: Mapping[str, Any]) -> list[str]:
    """Every reason why the document cannot be a law."""
    family = str(document.get("family"))
    if family not in families():
        return [f"family {family!r} is not known; it must be one of {', '.join(families())}"]
    parts = ("coefficients", "counting", "forward", "fitted", "rounding", "intervals", "diagnostics", "provenance")
    faults = [f"{part} must be an object" for part in parts if not isinstance(document.get(part, {}), dict)]
    if faults:
        return faults
    wanted, draws = families()[family].names, document.get("draws")
    faults = _coefficient_faults(family, document.get("coefficients", {}))
    faults += [
        f"{part}.{name} is {ends!r}; it must be two numbers, the lower first"
        for part in ("fitted", "intervals")
        for name, ends in document.get(part, {}).items()
        if not _is_range(ends)
    ]
    faults += [
        f"{part}.{name} is {value!r}; it must be a finite number of at least 0"
        for part in ("rounding", "forward")
        for name, value in document.get(part, {}).items()
        if not _is_number(value) or value < 0
    ]
    known = {"forward": ForwardCost.__dataclass_fields__, "rounding": wanted, "intervals": wanted}
    faults += [
        f"{part}.{name} is not known"
        for part, names in known.items()
        for name in document.get(part, {})
        if name not in names
    ]
    if draws is not None and not _are_draws(draws, wanted):
        faults.append("draws must be null or hold lists of numbers, all of one length, by coefficient")
    if not _is_status(document.get("status", {})):
        faults.append("status must hold kind, text and remedy, each a text")
    if not _is_table(document.get("runs")):
        faults.append("runs must be null or hold columns: lists of numbers, all of one length, by letter")
    return faults


def _coefficient_faults(family: str, coefficients: Mapping[str, Any]) -> list[str]:
    wanted, constants = families()[family].names, families()[family].constants
    faults = [f"coefficient {name} is missing" for name in wanted if name not in coefficients]
    faults += [f"coefficient {name} is not one of family {family}" for name in coefficients if name not in wanted]
    faults += [
        f"coefficient {name} is {value!r}; it must be a finite number greater than 0"
        for name, value in coefficients.items()
        if not _is_number(value) or value <= 0
    ]
    faults += [
        f"coefficient {name} is {coefficients[name]!r}; family {family} has {name} = {value:g}"
        for name, value in constants.items()
        if coefficients.get(name, value) != value
    ]
    return faults


def _is_range(ends: object) -> bool:
    return isinstance(ends, list) and len(ends) == 2 and all(map(_is_number, ends)) and ends[0] <= ends[1]


def _are_draws(draws: object, names: tuple[str, ...]) -> bool:
    return (
        isinstance(draws, dict)
        and set(draws) <= set(names)
        and all(isinstance(values, list) and all(map(_is_number, values)) for values in draws.values())
        and len({len(values) for values in draws.values()}) <= 1
    )


def _is_status(written: object) -> bool:
    return (
        isinstance(written, dict)
        and set(written) <= {"kind", "text", "remedy"}
        and all(isinstance(value, str) for value in written.values())
    )


def _is_table(written: object) -> bool:
    if written is None:
        return True
    columns = written.get("columns") if isinstance(written, dict) else None
    return (
        isinstance(columns, dict)
        and all(isinstance(values, list) and all(map(_is_number, values)) for values in columns.values())
        and len({len(values) for values in columns.values()}) == 1
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
