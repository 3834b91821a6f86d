"""Score tables for people, from the rows of a result document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.cli.output import table

_COLUMNS = (("wer", "WER %"), ("cer", "CER %"), ("capped_wer", "capped WER %"), ("loop_rate", "loops %"))


def score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a system, each share in per cent with its interval."""
    lines = [
        [row["name"], row["utterances"], *(percent(row["metrics"].get(key)) for key, _ in _COLUMNS)] for row in rows
    ]
    return table(lines, ["system", "clips", *(title for _, title in _COLUMNS)])


def comparison_lines(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence a comparison."""
    return [
        f"{row['candidate_name']} against {row['baseline_name']}: {points(row['difference'])} points of "
        f"{row['metric'].upper()}, {row['verdict']}"
        for row in comparisons
    ]


def percent(estimate: Mapping[str, Any] | None, digits: int = 1) -> str:
    """A share as per cent with its interval; "-" where it was not measured."""
    return _scaled(estimate, digits, "")


def points(estimate: Mapping[str, Any]) -> str:
    """A difference of shares as signed points with its interval."""
    return _scaled(estimate, 1, "+")


def _scaled(estimate: Mapping[str, Any] | None, digits: int, sign: str) -> str:
    if estimate is None or estimate["value"] is None:
        return "-"
    value = f"{100 * estimate['value']:{sign}.{digits}f}"
    if estimate["low"] is None:
        return value
    return f"{value} [{100 * estimate['low']:{sign}.{digits}f}, {100 * estimate['high']:{sign}.{digits}f}]"
