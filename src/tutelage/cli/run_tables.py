"""The tables of a finished run for a terminal, from its result document alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tutelage.cli.scores import comparison_lines, percent, score_table
from tutelage.runs.ending import describe_ending

_CORNERS = {
    "stock": "stock teacher",
    "window_only": "teacher, student's window",
    "layers_only": "student's layers, teacher's window",
    "both": "student",
}


def result_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Ending, scores, comparisons, what a law predicted, a cohort's members, size, speed and a few transcripts."""
    ending = describe_ending(document["training"], document["recipe"]["resolved"]["training"]["steps"])
    if ending:
        yield f"{ending}\n"
    yield score_table(document["systems"])
    yield ""
    yield from comparison_lines(document["comparisons"])
    if document.get("prediction"):
        yield from _prediction_lines(document["prediction"])
    if document.get("cohort"):
        yield from _cohort_lines(document["cohort"])
    yield from _size_lines(document)
    if document.get("speed"):
        yield from _speed_lines(document["speed"])
    for sample in document["samples"]:
        yield from _sample_lines(sample)
    yield ""


def _prediction_lines(prediction: Mapping[str, Any]) -> Iterator[str]:
    """What the recipe's law predicted, and what is to be minded about it."""
    yield f"law: {prediction['text']}"
    for warning in prediction["warnings"]:
        if warning["text"] not in prediction["text"]:
            yield f"  mind: {warning['text']}"


def _cohort_lines(cohort: Mapping[str, Any]) -> Iterator[str]:
    """The ensemble against the mean member, how far the members are apart, and who did not finish."""
    yield from comparison_lines(cohort["comparisons"])
    loss = cohort["spread"]["nats_per_token"]
    yield f"members: {loss['lowest']:.4f} to {loss['highest']:.4f} nats per token; exported: {cohort['best']}"
    for member in cohort["members"]:
        if member["stopped"]:
            yield f"member {member['name']} was stopped. {member['stopped']['reason']}"


def _sample_lines(sample: Mapping[str, Any]) -> Iterator[str]:
    """What the models wrote; of a text its beginning first."""
    yield ""
    if "prompt" in sample:
        yield f"{sample['id']}: {_one_line(sample['prompt'])} ..."
        yield f"  text:    {_one_line(sample['reference'])}"
    else:
        yield f"{sample['id']}: {sample['reference']}"
    if sample["teacher"] is not None:
        yield f"  teacher: {_one_line(sample['teacher'])}"
    yield f"  student: {_one_line(sample['student'])}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _size_lines(document: Mapping[str, Any]) -> Iterator[str]:
    trained, student = document["trainable"], document["student"]
    of_teacher = ""
    if trained["share"] is not None:
        of_teacher = f" = {trained['share']:.3%} of the teacher's {trained['teacher_params']:,}"
    if "lora_share" in trained:
        of_teacher += f" ({trained['lora_share']:.3%} without the projectors)"
    yield f"trained: {trained['params']:,} parameters{of_teacher}"
    if student["share_of_teacher_params"] is None:
        yield f"student: {student['params']:,} parameters, {student['bytes'] / 1e6:.1f} MB on disk"
        return
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
