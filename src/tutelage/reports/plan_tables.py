"""What a plan answers, in tables: the ways to distil, what each chooses, its cost, and what only some plans are asked.

Covers: one table a kind of answer, from the document alone; parts that a document leaves out are left out here. Does
not cover: figures (`plan_figures`).
"""

from __future__ import annotations

from collections.abc import Mapping

from tutelage.records.estimate import Estimate
from tutelage.reports import words
from tutelage.reports.content import Section, Table
from tutelage.reports.plan_document import Part
from tutelage.reports.value_tables import tables_of

_COST = {
    "flops": "compute, FLOPs",
    "gpu_hours": "device hours",
    "money": "money",
    "energy_kwh": "energy, kWh",
    "co2e_kg": "CO2e, kg",
}
_EXTRAS = {
    "sizes": ("Which size?", "The target, and the floor below which no size gets"),
    "lifetime": ("Over a lifetime of serving", "Training and serving together, in FLOPs"),
    "repetition": ("When tokens are repeated", "Ordinary training on the distinct tokens"),
    "lora": ("As a LoRA student", "FLOPs of training adapters alone"),
    "cache": ("A cached teacher", "What the cache holds and saves"),
}
_ROWS = ("ways", "scenarios", "ordinary", "optimal", "compute_optimal")
"""Alternatives that belong into one table."""
_LEFT_OUT = ("text", "smaller")
"""Said in words already."""


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
                "/".join(f"{100 * shares.needed(part).value:.0f}" for part in ("student", "logits", "teacher")),
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
        tables += tables_of(assumed, "Assumptions")
    elif assumed:
        items = cost.texts("assumptions")
    return Section("Cost", tables=tuple(tables), items=items)


def extra_sections(document: Part) -> tuple[Section, ...]:
    """The answers to what only some plans ask: lifetime, repetition, adapters, caches, sizes."""
    sections = []
    for key, (title, caption) in _EXTRAS.items():
        if document.has(key):
            part = document.part(key)
            text = words.sentence(words.prose(part.text("text")))
            tables = tables_of(_gathered(part), caption)
            sections.append(Section(title, (text,) if text else (), tuple(tables)))
    return tuple(sections)


def _gathered(part: Part) -> dict[str, object]:
    """The part with its alternatives in one object, so that they become the rows of one table."""
    rest = {key: value for key, value in part.value.items() if key not in _LEFT_OUT}
    rows = [key for key in _ROWS if isinstance(rest.get(key), Mapping)]
    holder = next((key for key in ("ways", "scenarios") if key in rows), None)
    if holder is None:
        return rest
    gathered = {**part.part(holder).value, **{words.label(key): rest[key] for key in rows if key != holder}}
    return {**{key: value for key, value in rest.items() if key not in rows}, "each_way": gathered}


def _name(name: str, scenario: Part) -> str:
    teacher = scenario.text("teacher")
    return f"{name} ({teacher})" if teacher else name


def _choice(scenario: Part, near: Part | None, key: str) -> str:
    found = scenario.estimate(key)
    if found is None:
        return words.NONE
    low, high = (near.ends(key) if near is not None else None) or (None, None)
    return words.with_ends(words.count(found.value), low, high, words.count)
