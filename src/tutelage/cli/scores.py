"""Score tables for people, from the rows of a result document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.cli.output import table

_COLUMNS = (("wer", "WER %"), ("cer", "CER %"), ("capped_wer", "capped WER %"), ("loop_rate", "loops %"))
_OWN_UNIT = {"nats_per_token": "nats per token", "bits_per_byte": "bits per byte", "brier": "Brier score"}
_TEXT_COLUMNS = (("nats_per_token", "nats/token"), ("perplexity", "perplexity"), ("bits_per_byte", "bits/byte"))


def score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a system, each number with its interval: error rates in per cent for speech, losses for text."""
    if any("bits_per_byte" in row["metrics"] for row in rows):
        return _text_table(rows)
    lines = [
        [row["name"], row["utterances"], *(percent(row["metrics"].get(key)) for key, _ in _COLUMNS)] for row in rows
    ]
    return table(lines, ["system", "clips", *(title for _, title in _COLUMNS)])


def comparison_lines(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence a comparison: points of an error rate, or the difference of a loss in its unit."""
    return [
        f"{row['candidate_name']} against {row['baseline_name']}: {_difference(row)}, {row['verdict']}"
        for row in comparisons
    ]


def comparison_table(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """One line a comparison: what was compared, the difference with its interval and what it says."""
    lines = [
        [
            row["candidate_name"],
            row["baseline_name"],
            _signed(row),
            _unit(row["metric"]),
            row["verdict"],
        ]
        for row in comparisons
    ]
    return table(lines, ["candidate", "baseline", "difference", "in", "verdict"])


def number(estimate: Mapping[str, Any] | None, digits: int) -> str:
    """A number in its own unit with its interval; "-" where it was not measured."""
    return _scaled(estimate, digits, "", 1.0)


def percent(estimate: Mapping[str, Any] | None, digits: int = 1) -> str:
    """A share as per cent with its interval; "-" where it was not measured."""
    return _scaled(estimate, digits, "")


def points(estimate: Mapping[str, Any]) -> str:
    """A difference of shares as signed points with its interval."""
    return _scaled(estimate, 1, "+")


def _text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [
            row["name"],
            f"{row['params']:,}",
            row["documents"],
            *(_scaled(row["metrics"][key], 3, "", 1.0) for key, _ in _TEXT_COLUMNS),
            percent(row["metrics"].get("agreement")),
        ]
        for row in rows
    ]
    titles = ["system", "parameters", "documents", *(title for _, title in _TEXT_COLUMNS), "agreement %"]
    return table(lines, titles)


def _difference(row: Mapping[str, Any]) -> str:
    return f"{_signed(row)} {_unit(row['metric'])}"


def _signed(row: Mapping[str, Any]) -> str:
    if row["metric"] in _OWN_UNIT:
        return _scaled(row["difference"], 4, "+", 1.0)
    return points(row["difference"])


def _unit(metric: str) -> str:
    if metric in _OWN_UNIT:
        return _OWN_UNIT[metric]
    return f"points of {metric.replace('_', ' ').replace('wer', 'WER').replace('cer', 'CER')}"


def _scaled(estimate: Mapping[str, Any] | None, digits: int, sign: str, scale: float = 100.0) -> str:
    if estimate is None or estimate["value"] is None:
        return "-"
    value = f"{scale * estimate['value']:{sign}.{digits}f}"
    if estimate["low"] is None:
        return value
    return f"{value} [{scale * estimate['low']:{sign}.{digits}f}, {scale * estimate['high']:{sign}.{digits}f}]"
