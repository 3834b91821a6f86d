"""The page about a run: what was done and its verdict, then the scores, how it went, what it cost, where it came from.

Covers: which parts a finished and an unfinished run get, in which order, and the verdict in words. Does not cover: the
parts themselves (`run_scores`, `run_curves`, `run_layers`, `run_examples`, `run_cost`), reading (`run_files`), HTML
(`render`).
"""

from __future__ import annotations

from tutelage.reports import run_cost, run_scores, words
from tutelage.reports.content import Banner, Page, Section, Table, Tone
from tutelage.reports.plan_document import Part
from tutelage.reports.run_curves import curve_figures
from tutelage.reports.run_examples import example_section
from tutelage.reports.run_files import RunFiles
from tutelage.reports.run_layers import layer_section
from tutelage.reports.run_words import in_sentence, metric_of, term_name
from tutelage.runs.ending import describe_ending

_KINDS = {"speech": "Distillation run, speech", "text": "Distillation run, text"}


def run_page(files: RunFiles) -> Page:
    """Everything that a report says of a run.

    Raises:
        InputError: A part of the result is not as a run writes it.
    """
    training = Section("How the training went", (*_ending(files), *_of_member(files)), figures=curve_figures(files))
    kicker = _KINDS.get(files.task, "Distillation run")
    if files.result is None:
        return Page(kicker, files.name, "Not finished", (_unfinished(files),), _facts(files), (training,))
    result = files.result
    comparisons = run_scores.comparison_table(result)
    calibration = run_scores.calibration_figure(result)
    return Page(
        kicker=kicker,
        title=files.name,
        subtitle=_deed(files, result),
        banners=_banners(result),
        facts=_facts(files),
        sections=(
            run_scores.score_section(result),
            Section("Comparisons", tables=(comparisons,) if comparisons is not None else ()),
            run_scores.prediction_section(result),
            _members(result),
            training,
            layer_section(result),
            Section("Calibration", figures=calibration),
            example_section(files),
            run_cost.student_section(result),
            run_cost.cost_section(result),
            run_cost.data_section(result),
            run_cost.origin_section(result),
        ),
    )


def _deed(files: RunFiles, result: Part) -> str:
    """What was done, in one sentence."""
    training = result.part("training")
    terms = [in_sentence(term_name(term.text("kind"))) for term in files.recipe.rows("objective")]
    data = result.part("data") if result.has("data") else Part({}, "data")
    held_out = data.part("held_out") if data.has("held_out") else Part({}, "held_out")
    judged = next(
        (f"{held_out.number(key):,.0f} held-out {key}" for key in ("clips", "documents") if held_out.has(key)),
        "held-out data",
    )
    taught = f"from {_teacher(files)} " if _teacher(files) else "without a teacher "
    learned = f"by {words.listed(terms)} " if terms else ""
    size = f" of {words.count(result.part('student').number('params'))} parameters"
    steps = f"for {training.number('steps'):,.0f} steps"
    return f"A student{size} was trained {taught}{learned}{steps} and judged on {judged}."


def _teacher(files: RunFiles) -> str:
    if not files.recipe.has("teacher"):
        return ""
    teacher = files.recipe.part("teacher")
    members = teacher.rows("members")
    return teacher.text("model") or (f"a committee of {len(members)}" if members else "a teacher")


def _banners(result: Part) -> tuple[Banner, ...]:
    banners = [_verdict(result)]
    warnings = [words.prose(each.text("text")) for each in result.rows("warnings")]
    if warnings:
        banners.append(Banner("warn", words.plural(len(warnings), "warning"), tuple(warnings)))
    return tuple(banners)


def _verdict(result: Part) -> Banner:
    """Each comparison of the task's metric as one sentence; the headline joins their verdicts."""
    name = run_scores.main_metric(result)
    compared = [row for row in result.rows("comparisons") if row.text("metric") == name]
    if not compared:
        return Banner("plain", "Nothing to compare with", ("The result holds no comparison.",))
    verdicts = [(row.text("verdict"), row.text("baseline_name")) for row in compared]
    lines = []
    for row in compared:
        difference = metric_of(name).difference(row.needed("difference"))
        level = row.needed("difference").level
        of = f" ({100 * level:g} % interval)" if level is not None else ""
        lines.append(f"{row.text('candidate_name')} against {row.text('baseline_name')}: {difference}{of}.")
        status = row.part("status") if row.has("status") else Part({}, "status")
        if status.text("text"):
            lines.append(f"{status.text('text')} {status.text('remedy')}".strip())
    tone: Tone = "plain"
    if all(verdict == "better" for verdict, _ in verdicts):
        tone = "good"
    elif all(verdict == "worse" for verdict, _ in verdicts):
        tone = "bad"
    headline = words.sentence("; ".join(_said(verdict, baseline) for verdict, baseline in verdicts))
    return Banner(tone, headline, tuple(words.sentence(line) for line in dict.fromkeys(lines)))


def _said(verdict: str, baseline: str) -> str:
    return f"undecided against {baseline}" if verdict == "undecided" else f"{verdict} than {baseline}"


def _unfinished(files: RunFiles) -> Banner:
    training = files.recipe.part("training") if files.recipe.has("training") else Part({}, "training")
    taken = int(files.steps[-1]["step"]) if files.steps else 0
    of = f" of {training.number('steps'):,.0f}" if training.has("steps") else ""
    return Banner(
        "warn",
        "This run is not finished",
        (
            f"{taken:,}{of} steps are logged, and there is no result.json: nothing was judged.",
            "Continue it with tutelage distill and --resume; then make this page again.",
        ),
    )


def _facts(files: RunFiles) -> tuple[tuple[str, str], ...]:
    recipe = files.recipe
    facts = [("Recipe", recipe.text("name")), ("Teacher", _teacher(files))]
    if recipe.has("seed"):
        facts.append(("Seed", f"{recipe.number('seed'):.0f}"))
    terms = [
        f"{words.number(term.number('weight'))} × {in_sentence(term_name(term.text('kind')))}"
        for term in recipe.rows("objective")
        if term.has("weight") and isinstance(term.value["weight"], int | float)
    ]
    facts.append(("Objective", " + ".join(terms)))
    if files.result is not None:
        result = files.result
        training = result.part("training")
        facts.append(("Supervised tokens", f"{training.number('supervised_tokens'):,.0f}"))
        trained = result.part("trainable")
        share = f", {words.percent(trained.number('share'), 3)} of the teacher's" if trained.has("share") else ""
        facts.append(("Trained parameters", f"{trained.number('params'):,.0f}{share}"))
    return tuple((label, value) for label, value in facts if value)


def _ending(files: RunFiles) -> tuple[str, ...]:
    """When the training ended and which weights were kept; nothing where its steps alone decided."""
    if files.result is None or not files.result.part("training").has("best"):
        return ()
    training = files.result.part("training")
    best = training.part("best")
    checked = {"step": int(best.number("step")), "metric": best.text("metric")}
    kept = int(training.number("kept_step")) if training.has("kept_step") else None
    read = {"steps": int(training.number("steps")), "best": checked, "kept_step": kept}
    return (describe_ending(read, int(files.recipe.part("training").number("steps"))),)


def _of_member(files: RunFiles) -> tuple[str, ...]:
    if not files.member:
        return ()
    why = "the one that was exported" if files.result is not None else "the first by name"
    return (f"Shown is the member {files.member} of the cohort, {why}; each has its own log.",)


def _members(result: Part) -> Section:
    if not result.has("cohort"):
        return Section("Members")
    rows = tuple(
        (
            member.text("name"),
            f"{member.number('seed'):.0f}" if member.has("seed") else words.NONE,
            f"{member.number('steps'):,.0f}" if member.has("steps") else words.NONE,
            f"{member.number('params'):,.0f}" if member.has("params") else words.NONE,
            member.text("status"),
        )
        for member in result.part("cohort").rows("members")
    )
    table = Table(("member", "seed", "steps", "trained parameters", "status"), rows, "The cohort's members")
    return Section("Members", tables=(table,) if rows else ())
