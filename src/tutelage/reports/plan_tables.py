"""What a plan answers, in tables: the ways to distil, what each chooses, its cost, and what only some plans are asked.

Covers: one table a kind of answer, from the document alone; parts that a document leaves out are left out here. Does
not cover: figures (`plan_figures`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.records.estimate import Estimate
from tutelage.reports import words
from tutelage.reports.content import Section, Table
from tutelage.reports.plan_document import Part

_COST = {
    "flops": "compute, FLOPs",
    "gpu_hours": "device hours",
    "money": "money",
    "energy_kwh": "energy, kWh",
    "co2e_kg": "CO2e, kg",
}
_EXTRAS = {
    "sizes": "Which size?",
    "lifetime": "Over a lifetime of serving",
    "repetition": "When tokens are repeated",
    "lora": "As a LoRA student",
    "cache": "A cached teacher",
}
_ESTIMATE = set(Estimate.__dataclass_fields__)


def reached_table(document: Part) -> Table | None:
    """The loss of each way and its gain over ordinary training."""
    rows = []
    for name, scenario in document.parts("scenarios").items():
        gain = scenario.needed("gain")
        told = words.with_ends(words.signed(gain.value), gain.low, gain.high, words.signed)
        rows.append((_name(name, scenario), scenario.text("text"), _loss(scenario.needed("student_loss")), told))
    if document.has("supervised"):
        ordinary = document.part("supervised")
        tokens = words.count(ordinary.needed("tokens").value)
        rows.append(("train", f"ordinary training on {tokens} tokens", _loss(ordinary.needed("loss")), words.NONE))
        if ordinary.has("compute_optimal"):
            free = ordinary.part("compute_optimal")
            size, tokens = (words.count(free.needed(key).value) for key in ("params", "tokens"))
            text = f"ordinary training of {size} parameters on {tokens} tokens"
            rows.append(("train, any size", text, _loss(free.needed("loss")), words.NONE))
    title = "Losses in nats per token, with the interval below; the gain is over ordinary training of the same size"
    return Table(("way", "what is paid for", "loss", "gain"), tuple(rows), title) if rows else None


def _loss(found: Estimate) -> str:
    return words.with_ends(words.nats(found.value, 4), found.low, found.high, words.nats)


def chosen_table(document: Part) -> Table | None:
    """What each way chooses, with the range of choices that are as good."""
    rows = []
    within = 0.0
    for name, scenario in document.parts("scenarios").items():
        near = scenario.part("near_optimal") if scenario.has("near_optimal") else None
        within = near.number("within") if near is not None and near.has("within") else within
        shares = scenario.part("shares")
        rows.append(
            (
                _name(name, scenario),
                _choice(scenario, near, "student_tokens"),
                _choice(scenario, near, "teacher_params"),
                _choice(scenario, near, "teacher_tokens"),
                words.nats(scenario.needed("teacher_loss").value),
                words.power(scenario.needed("compute").value),
                " / ".join(f"{100 * shares.needed(part).value:.0f}" for part in ("student", "logits", "teacher")),
            )
        )
    headers = ("way", "student tokens", "teacher", "teacher tokens", "teacher loss", "FLOPs", "shares")
    title = "What each way chooses, and the shares of student, logits and teacher in per cent"
    if within:
        title += f"; below it the choices that lose at most {words.percent(within)} more"
    return Table(headers, tuple(rows), title) if rows else None


def teacher_table(document: Part) -> Table | None:
    """The given teachers, best first."""
    rows = []
    for teacher in document.rows("teachers"):
        loss, lost = teacher.estimate("student_loss"), teacher.estimate("lost")
        rows.append(
            (
                teacher.text("name"),
                words.count(teacher.number("params")),
                words.nats(teacher.number("loss")),
                _loss(loss) if loss else words.NONE,
                teacher.text("side") or words.NONE,
                f"{lost.value:.4f}" if lost else words.NONE,
            )
        )
    headers = ("teacher", "parameters", "its loss", "student's loss", "side", "nats lost")
    return (
        Table(
            headers, tuple(rows), "The teachers at hand, best first; nats lost to the best teacher for the same tokens"
        )
        if rows
        else None
    )


def crossover_table(document: Part) -> Table | None:
    """Where along compute each way beats ordinary training."""
    rows = tuple((name, words.prose(each.text("text"))) for name, each in document.parts("crossover").items())
    return Table(("way", "along compute"), rows, "Against ordinary training of the same size") if rows else None


def cost_section(document: Part) -> Section:
    """What the verdict's way costs, and on what assumptions."""
    if not document.has("cost"):
        return Section("Cost")
    cost = document.part("cost")
    rows = tuple(
        (label, words.named(key, found.value), words.named_ends(key, found), found.method)
        for key, label in _COST.items()
        if (found := cost.estimate(key)) is not None
    )
    tables = [Table(("cost", "value", "interval", "kind"), rows, "What the chosen way costs")] if rows else []
    assumed = cost.value.get("assumptions")
    items: tuple[str, ...] = ()
    if isinstance(assumed, Mapping):
        tables += _tables(assumed, "Assumptions")
    elif assumed:
        items = cost.texts("assumptions")
    return Section("Cost", tables=tuple(tables), items=items)


def extra_sections(document: Part) -> tuple[Section, ...]:
    """The answers to what only some plans ask: lifetime, repetition, adapters, caches, sizes."""
    sections = []
    for key, title in _EXTRAS.items():
        if document.has(key):
            found = document.value[key]
            text = document.part(key).text("text") if isinstance(found, Mapping) else ""
            sections.append(Section(title, (words.prose(text),) if text else (), tuple(_tables(found, ""))))
    return tuple(sections)


def _tables(found: object, title: str) -> list[Table]:
    """Tables of any JSON value: its numbers and texts in one, each list of objects in one of its own."""
    if isinstance(found, list):
        return [_listing(found, title)] if found and all(isinstance(item, Mapping) for item in found) else []
    if not isinstance(found, Mapping):
        return []
    rows: list[tuple[str, str, str]] = []
    tables: list[Table] = []
    for key, value in found.items():
        name = str(key)
        if value is None or (name == "text" and isinstance(value, str)):
            continue
        if _is_nested(value):
            tables += _tables(value, words.label(name))
        else:
            rows.append((words.label(name), _cell(name, value), _cell_ends(name, value)))
    headers = ("quantity", "value", "interval")
    if rows and all(row[2] == words.NONE for row in rows):
        return [Table(headers[:2], tuple(row[:2] for row in rows), title), *tables]
    return ([Table(headers, tuple(rows), title)] if rows else []) + tables


def _listing(found: list[Mapping[str, Any]], title: str) -> Table:
    keys = list(dict.fromkeys(str(key) for item in found for key in item))
    rows = tuple(tuple(_cell(key, item.get(key)) for key in keys) for item in found)
    return Table(tuple(words.label(key) for key in keys), rows, title)


def _is_nested(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], Mapping)
    return isinstance(value, Mapping) and not _is_estimate(value)


def _is_estimate(value: object) -> bool:
    return isinstance(value, Mapping) and "value" in value and set(value) <= _ESTIMATE


def _cell(name: str, value: object) -> str:
    if isinstance(value, Mapping):
        return _cell(name, value.get("value")) if _is_estimate(value) else words.NONE
    if isinstance(value, list):
        return (
            " to ".join(_cell(name, item) for item in value)
            if len(value) == 2
            else words.listed([_cell(name, item) for item in value] or [words.NONE])
        )
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return words.NONE if value is None else str(value)
    return words.named(name, value)


def _cell_ends(name: str, value: object) -> str:
    if not isinstance(value, Mapping) or value.get("low") is None or value.get("high") is None:
        return words.NONE
    return f"{_cell(name, value['low'])} to {_cell(name, value['high'])}"


def _name(name: str, scenario: Part) -> str:
    teacher = scenario.text("teacher")
    return f"{name} ({teacher})" if teacher else name


def _choice(scenario: Part, near: Part | None, key: str) -> str:
    found = scenario.estimate(key)
    if found is None:
        return words.NONE
    low, high = (near.ends(key) if near is not None else None) or (None, None)
    return words.with_ends(words.count(found.value), low, high, words.count)
