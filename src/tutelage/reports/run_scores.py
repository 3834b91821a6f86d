"""What a run reached: every system's scores with intervals, comparisons, calibration, predicted against achieved loss.

Covers: one table with a row a metric and a column a system, a figure of the task's metric, the reliability diagram.
Does not cover: the verdict in words (`run_report`), how the run went (`run_curves`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.records.estimate import Estimate
from tutelage.reports import words
from tutelage.reports.canvas import Canvas
from tutelage.reports.content import Figure, Section, Table
from tutelage.reports.palette import HUES, colour
from tutelage.reports.plan_document import Part
from tutelage.reports.run_words import METRICS, in_sentence, metric_of

_MOST_DRAWN = 3
"""Reliability curves that can be told apart in one figure."""


def estimates_of(system: Part) -> dict[str, Estimate]:
    """Every estimate of a system's row by the keys of `METRICS`, and those that are not among them."""
    found: dict[str, Estimate] = {}
    for part in ("kinds", "metrics"):
        inner = system.part(part) if system.has(part) else Part({}, part)
        for name in inner.value:
            estimate = inner.estimate(str(name))
            if estimate is not None:
                found[str(name)] = estimate
    if "substitutions" not in found and system.has("words"):  # before kinds had intervals
        counts = system.part("words")
        for kind in ("substitutions", "deletions", "insertions"):
            if counts.has(kind) and counts.has("reference") and counts.number("reference"):
                found[kind] = Estimate(counts.number(kind) / counts.number("reference"))
    if system.has("calibration"):
        calibration = system.part("calibration")
        for name in ("ece", "ece_null", "brier"):
            estimate = calibration.estimate(name)
            if estimate is not None:
                found[name] = estimate
    return found


def score_section(document: Part) -> Section:
    """The figure of the task's metric and the table of all."""
    systems = document.rows("systems")
    found = {system.text("name"): estimates_of(system) for system in systems}
    if not found:
        return Section("Scores")
    rows = []
    for label, key in (("Parameters", "params"), ("Held-out clips", "utterances"), ("Held-out documents", "documents")):
        if any(system.has(key) for system in systems):
            rows.append((label, *(_count(system, key) for system in systems)))
    for name, metric in METRICS.items():
        if any(name in each for each in found.values()):
            rows.append((metric.label, *(metric.write(each.get(name)) for each in found.values())))
    levels = {each.level for row in found.values() for each in row.values() if each.level is not None}
    below = f"below each number its {words.listed([f'{100 * level:g} %' for level in sorted(levels)])} interval"
    title = f"Every system on the held-out data; {below if levels else 'without intervals'}"
    return Section(
        "Scores",
        figures=_score_figure(document, found),
        tables=(Table(("", *found), tuple(rows), title),) if rows else (),
        items=_remarks(systems),
    )


def main_metric(document: Part) -> str:
    """What the run's comparisons are in: WER for speech, the loss for text."""
    for row in document.rows("comparisons"):
        return row.text("metric")
    return "wer" if any("wer" in estimates_of(each) for each in document.rows("systems")) else "nats_per_token"


def _count(system: Part, key: str) -> str:
    return f"{system.number(key):,.0f}" if system.has(key) else words.NONE


def _remarks(systems: Sequence[Part]) -> tuple[str, ...]:
    """What the judge said of samples that are too small."""
    found = []
    for system in systems:
        status = system.part("status") if system.has("status") else Part({}, "status")
        if status.text("text"):
            found.append(
                f"{words.sentence(system.text('name'))}: {status.text('text')} {status.text('remedy')}".rstrip()
            )
    return tuple(found)


def _score_figure(document: Part, found: Mapping[str, Mapping[str, Estimate]]) -> tuple[Figure, ...]:
    name = main_metric(document)
    metric = metric_of(name)
    shown = {system: each[name] for system, each in found.items() if name in each}
    if not shown:
        return ()
    names = list(shown)
    last = names[-1]
    judged = {system.text("name"): _sample(system) for system in document.rows("systems")}

    def draw(canvas: Canvas) -> None:
        axes = canvas.axes
        height = np.arange(len(names))[::-1].astype(float)
        for place, system in zip(height, names, strict=True):
            one = shown[system]
            hue = "hue2" if system == last else "hue1"
            if one.low is not None and one.high is not None:
                axes.plot(
                    [metric.scale * one.low, metric.scale * one.high], [place, place], color=colour(hue), linewidth=2.2
                )
            canvas.points(np.array([metric.scale * one.value]), np.array([place]), hue, size=8.0)
            axes.annotate(
                system, (0.0, place), (0, 9), ("axes fraction", "data"), "offset points", color=colour("soft")
            )
        axes.set_ylim(-0.6, len(names) - 0.25)
        ends = [end for one in shown.values() for end in (one.value, one.low, one.high) if end is not None]
        pad = 0.05 * metric.scale * (max(ends) - min(ends)) or 1.0
        axes.set_xlim(metric.scale * min(ends) - pad, metric.scale * max(ends) + pad)
        axes.set_yticks([])
        axes.grid(visible=True, axis="x")
        canvas.few_x()
        axes.set_xlabel(metric.label, labelpad=6.0)

    alike = [system for system in names if judged[system] == judged[last]]
    best = min(alike, key=lambda system: shown[system].value)
    finding = f"{words.sentence(best)} has the lowest {in_sentence(metric.label)}: {metric.said(shown[best])}"
    if best != last:
        finding += f"; {last} has {metric.said(shown[last])}"
    fewer = [f"{system} on {judged[system]}" for system in names if system not in alike]
    reading = "A point a system with its interval; further left is better."
    if fewer:
        reading += f" Not on the same {judged[last]}, so not compared: {words.listed(fewer)}."
    rows = tuple((system, metric.number(one.value), _ends(name, one)) for system, one in shown.items())
    return (
        Figure(
            "scores",
            metric.label,
            f"{finding}.",
            reading,
            Table(("system", metric.label, "interval"), rows, metric.label),
            draw,
            0.1 + 0.075 * len(names),
        ),
    )


def _sample(system: Part) -> str:
    """What a system was judged on, as far as its row says."""
    for key, noun in (("utterances", "clip"), ("documents", "document")):
        if system.has(key):
            return words.plural(round(system.number(key)), noun)
    return "held-out data"


def _ends(name: str, found: Estimate) -> str:
    return words.between(found.low, found.high, metric_of(name).number)


def comparison_table(document: Part) -> Table | None:
    """One row a comparison, those of a cohort too; None without any."""
    compared = document.rows("comparisons")
    if document.has("cohort"):
        compared += document.part("cohort").rows("comparisons")
    rows = []
    for row in compared:
        metric, difference = metric_of(row.text("metric")), row.needed("difference")
        rows.append(
            (
                f"{row.text('candidate_name')} less {row.text('baseline_name')}",
                metric.difference(Estimate(difference.value)),
                words.between(difference.low, difference.high, lambda end, kind=metric: kind.number(end)),  # type: ignore[misc]
                row.text("verdict"),
            )
        )
    title = "Paired differences on the same held-out data; negative is better for rates and losses"
    return Table(("compared", "difference", "interval", "verdict"), tuple(rows), title) if rows else None


def prediction_section(document: Part) -> Section:
    """What the recipe's law predicted, beside what was reached; empty where the recipe names no law."""
    title = "Predicted against achieved loss"
    if not document.has("prediction"):
        return Section(title)
    found = document.part("prediction")
    rows = []
    for key, label in (("predicted", f"Predicted by {found.text('law')}"), ("achieved", "Achieved on held-out data")):
        one = found.estimate(key)
        if one is not None and (key == "achieved" or found.has("predicted")):
            rows.append((label, words.nats(one.value), words.between(one.low, one.high, words.nats), one.method))
    table = Table(("loss", "nats per token", "interval", "what the interval is"), tuple(rows), "Losses")
    told = tuple(_minded(each, found.text("law")) for each in found.rows("warnings"))
    shown = (table,) if found.has("predicted") and rows else ()
    text = words.prose(found.text("text"))
    return Section(
        title, (text,), shown, items=tuple(item for item in told if item.rstrip(".").lower() not in text.lower())
    )


def _minded(warning: Part, law: str) -> str:
    """A caution as a sentence, without the key of its input before it."""
    text = words.prose(warning.text("text").removeprefix(f"{warning.text('input')}: "))
    return f"{text if text.startswith(law) else words.sentence(text)}."


def calibration_figure(document: Part) -> tuple[Figure, ...]:
    """Confidence against accuracy of the last systems that have bins; none where no row has them."""
    binned: dict[str, list[Part]] = {}
    for system in document.rows("systems"):
        if system.has("calibration"):
            bins = [each for each in system.part("calibration").rows("bins") if each.number("count") > 0]
            if bins:
                binned[system.text("name")] = bins
    shown = dict(list(binned.items())[-_MOST_DRAWN:])
    if not shown:
        return ()

    def draw(canvas: Canvas) -> None:
        axes, line = canvas.axes, np.array([0.0, 1.0])
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        canvas.curve(line, line, "soft", width=1.0)
        for number, bins in enumerate(shown.values()):
            x = np.array([each.number("confidence") for each in bins])
            y = np.array([each.number("accuracy") for each in bins])
            hue = HUES[number]
            canvas.curve(x, y, hue, dash=number)
            canvas.points(x, y, hue, marker=number, size=6.0)
        canvas.few_x()
        canvas.few_y()
        for number, name in enumerate(shown):
            axes.plot([], [], color=colour(HUES[number]), marker="os^"[number], label=name)
        axes.legend(loc="best", frameon=False, labelcolor=colour("ink"))
        canvas.label("Confidence in the guess", "Share of guesses that are right")

    rows = tuple(
        (
            name,
            f"{each.number('low'):.2f} to {each.number('high'):.2f}",
            f"{each.number('count'):,.0f}",
            f"{each.number('confidence'):.3f}",
            f"{each.number('accuracy'):.3f}",
        )
        for name, bins in shown.items()
        for each in bins
    )
    table = Table(("system", "confidence from, to", "positions", "mean confidence", "accuracy"), rows, "Every bin")
    reading = "On the grey line a model is as sure as it is right; below it, too sure. Points are bins of confidence."
    return (Figure("calibration", "Reliability", _sureness(document, shown), reading, table, draw, 0.62),)


def _sureness(document: Part, shown: Mapping[str, Any]) -> str:
    """The calibration error of the last system that is shown, beside what a calibrated model would have."""
    name = list(shown)[-1]
    row = next(system for system in document.rows("systems") if system.text("name") == name).part("calibration")
    error, null = row.estimate("ece"), row.estimate("ece_null")
    if error is None:
        return f"Confidence of {name} beside how often it is right."
    said = f"The expected calibration error of {name} is {METRICS['ece'].number(error.value)} %"
    if null is not None:
        said += f"; a calibrated model of the same confidences would show {METRICS['ece'].said(null)} %"
    return f"{said}."
