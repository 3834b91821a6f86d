"""The tables of a finished run for a terminal, from its result document alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tutelage.cli.scores import comparison_lines, percent, score_table

_CORNERS = {
    "stock": "stock teacher",
    "window_only": "teacher, student's window",
    "layers_only": "student's layers, teacher's window",
    "both": "student",
}


def result_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Scores, comparisons, size, speed and a few transcripts."""
    yield score_table(document["systems"])
    yield ""
    yield from comparison_lines(document["comparisons"])
    yield from _size_lines(document)
    if document["speed"]:
        yield from _speed_lines(document["speed"])
    for sample in document["samples"]:
        yield ""
        yield f"{sample['id']}: {sample['reference']}"
        yield f"  teacher: {sample['teacher']}"
        yield f"  student: {sample['student']}"
    yield ""


def _size_lines(document: Mapping[str, Any]) -> Iterator[str]:
    trained, student = document["trainable"], document["student"]
    yield (
        f"trained: {trained['params']:,} parameters = {trained['share']:.3%} of the teacher's "
        f"{trained['teacher_params']:,} ({trained['lora_share']:.3%} without the projectors)"
    )
    yield (
        f"student: {student['params']:,} parameters ({student['share_of_teacher_params']:.0%} of the teacher's), "
        f"{student['bytes'] / 1e6:.0f} MB on disk ({student['share_of_teacher_bytes']:.0%})"
    )


def _speed_lines(speed: Mapping[str, Any]) -> Iterator[str]:
    for name, title in _CORNERS.items():
        factor = speed["real_time_factor"][name]
        share = speed["share_of_stock_time"].get(name)
        of_stock = f", {percent(share, 0)} % of the stock teacher's time" if share else ""
        yield f"real-time factor, {title}: {factor['value']:.2f}{of_stock}"
    yield (
        f"processing time saved: {percent(speed['saving'], 0)} %; of that the window {percent(speed['window'], 0)} %, "
        f"the layers {percent(speed['layers'], 0)} %"
    )
    if speed["status"]["kind"] != "done":
        yield f"{speed['status']['kind']}: {speed['status']['text']} {speed['status']['remedy']}"
