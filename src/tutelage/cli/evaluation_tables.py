"""The tables of `tutelage evaluate` for a terminal, from its document alone.

Covers scores, kinds of errors, loss and calibration, seeds, time and memory, differences. Does not cover a run's own
result (`run_tables`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tutelage.cli.output import table
from tutelage.cli.scores import comparison_table, number, percent, score_table

_ERRORS = (  # text, unit, rate, prefix of the kinds
    ("normalised", "words", "wer", ""),
    ("raw", "words", "raw_wer", "raw_"),
    ("normalised", "characters", "cer", "character_"),
    ("raw", "characters", "raw_cer", "raw_character_"),
)
_MEBI = 2**20


def evaluation_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Every table, a heading before each."""
    rows = document["models"]
    yield score_table(rows)
    if document["task"] == "speech":
        yield from _section("errors, % of the reference", _error_table(rows))
    yield from _section(_taught(document), _answer_table(rows))
    if any("runs" in row for row in rows):
        yield from _section("runs of one system, by seed", _seed_table(rows))
    if document["timing"] is not None:
        yield from _section(_how_timed(document), _time_table(rows))
    yield from _section("size", _size_table(rows))
    if document["comparisons"]:
        yield from _section("differences, candidate minus baseline", comparison_table(document["comparisons"]))


def _section(title: str, body: str) -> Iterator[str]:
    yield from ("", f"{title}:", body)


def _error_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [
            row["name"],
            f"{text} {unit}",
            percent(row["metrics"][rate]),
            *(percent(row["kinds"][prefix + kind]) for kind in ("substitutions", "deletions", "insertions")),
        ]
        for row in rows
        for text, unit, rate, prefix in _ERRORS
    ]
    return table(lines, ["system", "text", "errors", "substitutions", "deletions", "insertions"])


def _taught(document: Mapping[str, Any]) -> str:
    told = f"; agreement with {document['teacher']}" if document["teacher"] is not None else ""
    return f"loss and calibration, per token{told}"


def _answer_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the first table lacks: of text that has the loss and agreement already."""
    speech = _of_speech(rows)
    lines = []
    for row in rows:
        metrics, found = row["metrics"], row["calibration"]
        loss = [number(metrics.get("nats_per_token"), 3), number(metrics.get("perplexity"), 2)]
        lines.append(
            [
                row["name"],
                *(loss if speech else []),
                number(metrics.get("brier"), 3),
                percent(found["ece"]) if found else "-",
                percent(found["ece_null"]) if found else "-",
                percent(metrics.get("accuracy")),
                *([percent(metrics.get("agreement"))] if speech else []),
                number(metrics.get("teacher_kl"), 3),
            ]
        )
    loss_titles, agreement_title = (["nats", "perplexity"], ["agreement %"]) if speech else ([], [])
    titles = [*loss_titles, "Brier", "ECE %", "if calibrated", "right %", *agreement_title, "KL from the teacher"]
    return table(lines, ["system", *titles])


def _of_speech(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any("wer" in row["metrics"] for row in rows)


def _seed_table(rows: Sequence[Mapping[str, Any]]) -> str:
    speech = _of_speech(rows)
    lines = []
    for row in rows:
        for seed, one in zip(row.get("seeds", ()), row.get("runs", ()), strict=True):
            metrics = one["metrics"]
            first = percent(metrics["wer"]) if speech else number(metrics["bits_per_byte"], 4)
            lines.append([row["name"], "-" if seed is None else seed, first, number(metrics["nats_per_token"], 4)])
    return table(lines, ["system", "seed", "WER %" if speech else "bits/byte", "nats/token"])


def _how_timed(document: Mapping[str, Any]) -> str:
    timing = document["timing"]
    items = "clips" if document["task"] == "speech" else f"documents, {timing['written_tokens']} tokens each"
    return (
        f"time on this machine ({timing['threads']} threads), {timing['items']} {items}, one at a time, "
        f"{timing['rounds']} rounds in alternation, as a share of {timing['baseline']}'s"
    )


def _time_table(rows: Sequence[Mapping[str, Any]]) -> str:
    speech = _of_speech(rows)
    lines = []
    for row in rows:
        found = row["latency"]
        lines.append(
            [
                row["name"],
                percent(row["share_of_baseline_time"], 0),
                *([number(found["real_time_factor"], 3)] if speech else []),
                number(found["tokens_per_second"], 1),
                *(f"{1000 * found[name]['value']:.0f}" for name in ("p50", "p90", "p99")),
            ]
        )
    factor = ["real-time factor"] if speech else []
    return table(lines, ["system", "time %", *factor, "tokens/s", "p50 ms", "p90 ms", "p99 ms"])


def _size_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [
            row["name"],
            f"{row['params']:,}",
            f"{row['size']['bytes'] / _MEBI:.1f}",
            _mebibytes(row["peak_memory"]),
            _mebibytes(row["gpu_peak_memory"]),
        ]
        for row in rows
    ]
    return table(lines, ["system", "parameters", "MiB on disk", "peak MiB in its own process", "peak MiB on the GPU"])


def _mebibytes(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return "-"
    return f"{estimate['value'] / _MEBI:.0f}"
