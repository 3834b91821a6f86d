"""What a run cost and what its student costs: FLOPs, time, speed, size, budget; and where all of it came from.

Covers: tables from the result alone. Does not cover: what the run reached (`run_scores`).
"""

from __future__ import annotations

from collections.abc import Iterator

from tutelage.reports import words
from tutelage.reports.content import Section, Table
from tutelage.reports.plan_document import Part
from tutelage.reports.value_tables import tables_of

_CORNERS = {
    "stock": "stock teacher",
    "window_only": "teacher, student's window",
    "layers_only": "student's layers, teacher's window",
    "both": "student",
}
_NONE = Part({}, "")


def cost_section(document: Part) -> Section:
    """FLOPs of the training by who computed them, and its time."""
    training = _inner(document, "training")
    flops = _inner(training, "flops")
    total = flops.number("total") if flops.has("total") else 0.0
    rows = [
        (
            name,
            words.power(flops.number(name), 3),
            words.percent(flops.number(name) / total, 3) if total else words.NONE,
        )
        for name in ("encoder", "teacher", "student", "total")
        if flops.has(name)
    ]
    items = []
    if training.has("seconds"):
        items.append(f"The training took {words.number(training.number('seconds'), 3)} s.")
    if training.has("supervised_tokens"):
        items.append(f"It was on {training.number('supervised_tokens'):,.0f} supervised tokens, repeats counted.")
    table = Table(("part", "FLOPs", "share"), tuple(rows), "Compute of the training, counted from the models' shapes")
    return Section("Cost of the training", tables=(table,) if rows else (), items=tuple(items))


def student_section(document: Part) -> Section:
    """Speed, size and the trainable share."""
    tables = [*_speed(document), *_size(document), *_budget(document)]
    speed = _inner(document, "speed")
    status = _inner(speed, "status")
    said = f"{status.text('text')} {status.text('remedy')}".strip()
    items = (f"Of the timing: {said}",) if said else ()
    return Section("The student: speed, size, budget", tables=tuple(tables), items=items)


def _speed(document: Part) -> Iterator[Table]:
    speed = _inner(document, "speed")
    factors, shares = _inner(speed, "real_time_factor"), _inner(speed, "share_of_stock_time")
    rows = []
    for key, label in _CORNERS.items():
        factor, share = factors.estimate(key), shares.estimate(key)
        if factor is None:
            continue
        of_stock = words.NONE
        if share is not None:
            of_stock = words.with_ends(_percent(share.value), share.low, share.high, _percent)
        rows.append((label, words.with_ends(f"{factor.value:.3f}", factor.low, factor.high, "{:.3f}".format), of_stock))
    if rows:
        yield Table(
            ("system", "real-time factor", "share of the stock teacher's time"),
            tuple(rows),
            "Speed, each clip by itself from file to transcript; 0.1 is ten times faster than speech",
        )
    saved = [(label, speed.estimate(key)) for key, label in _SAVED.items()]
    parts = tuple(
        (label, words.with_ends(_percent(one.value), one.low, one.high, _percent))
        for label, one in saved
        if one is not None
    )
    if parts:
        yield Table(("processing time", "share"), parts, "What is saved of the stock teacher's time, and by what")


_SAVED = {"saving": "saved", "window": "of that by the shorter window", "layers": "of that by fewer layers"}


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %".replace("-", "−")


def _size(document: Part) -> Iterator[Table]:
    student = _inner(document, "student")
    rows = []
    for label, key, share, write in (
        ("parameters", "params", "share_of_teacher_params", "{:,.0f}".format),
        ("bytes on disk", "bytes", "share_of_teacher_bytes", "{:,.0f}".format),
    ):
        if student.has(key):
            of_teacher = words.percent(student.number(share), 3) if student.has(share) else words.NONE
            rows.append((label, write(student.number(key)), of_teacher))
    if rows:
        yield Table(("size", "student", "of the teacher's"), tuple(rows), "Size of the exported student")


def _budget(document: Part) -> Iterator[Table]:
    trained = _inner(document, "trainable")
    rows = [
        (label, f"{trained.number(key):,.0f}")
        for key, label in (
            ("params", "trained parameters"),
            ("lora_params", "of them in adapters"),
            ("projector_params", "of them in projectors, thrown away"),
            ("teacher_params", "the teacher's parameters"),
        )
        if trained.has(key)
    ]
    rows += [
        (label, words.percent(trained.number(key), 3))
        for key, label in (
            ("share", "trained share of the teacher's"),
            ("lora_share", "share without projectors"),
            ("limit", "limit of the recipe"),
        )
        if trained.has(key)
    ]
    if rows:
        yield Table(("budget", "value"), tuple(rows), "What was trained")


def data_section(document: Part) -> Section:
    """The data and their hashes."""
    data = _inner(document, "data")
    tables = []
    for key, title in (("train", "Training data"), ("held_out", "Held-out data"), ("dev", "Dev split")):
        if data.has(key):
            tables += tables_of(data.part(key).value, title)[:1]
    return Section("Data", tables=tuple(tables))


def origin_section(document: Part) -> Section:
    """Versions, machine, models and hashes; enough to know whether two runs are of the same."""
    rows = list(_hashes(document))
    found = _inner(document, "provenance")
    about = [
        (label, found.text(key) if not isinstance(found.value.get(key), int) else f"{found.number(key):.0f}")
        for key, label in _ABOUT.items()
        if found.has(key)
    ]
    packages = _inner(found, "packages")
    about.append(("packages", ", ".join(f"{name} {packages.text(str(name))}" for name in packages.value)))
    tables = [Table(("of", "SHA-256"), tuple(rows), "Hashes")] if rows else []
    tables.append(Table(("made by", "what"), tuple((a, b) for a, b in about if b), "Provenance")) if len(
        about
    ) > 1 else None
    return Section("Where this came from", tables=tuple(tables), items=tuple(_checks(document)))


_ABOUT = {
    "command": "command",
    "created": "finished",
    "tutelage": "tutelage",
    "commit": "commit",
    "python": "Python",
    "platform": "platform",
    "cpu": "processor",
    "cpus": "processors",
    "threads": "threads",
}


def _hashes(document: Part) -> Iterator[tuple[str, str]]:
    recipe, data, law = _inner(document, "recipe"), _inner(document, "data"), _inner(document, "prediction")
    yield from ((label, text) for label, text in (("recipe", recipe.text("sha256")),) if text)
    for key, label in (("train", "training data"), ("held_out", "held-out data"), ("dev", "dev split")):
        if data.has(key) and data.part(key).text("sha256"):
            yield label, data.part(key).text("sha256")
    if law.text("law_sha256"):
        yield f"law {law.text('law')}", law.text("law_sha256")
    for key, label in (("teacher", "teacher"), ("student", "student"), ("adapter", "adapter")):
        files = _inner(_inner(document, key), "sha256")
        for name in sorted(files.value):
            if name.endswith((".safetensors", ".bin")):
                yield f"{label}, {name}", files.text(name)


def _checks(document: Part) -> Iterator[str]:
    checks = _inner(document, "preflight").rows("checks")
    if checks:
        passed = sum(each.value.get("passed") is True for each in checks)
        yield f"{passed} of {len(checks)} checks before the first step passed."


def _inner(part: Part, key: str) -> Part:
    """The object under `key`; an empty one where it is absent."""
    return part.part(key) if part.has(key) else _NONE
