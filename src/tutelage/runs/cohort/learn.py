"""A run with a cohort, between opening the classroom and writing the result.

The order: members -> preflight -> training -> judging each -> ensemble, vote -> adapters -> the best member's export.
Covers the order, what is kept of every member, and the cohort's part of the document. Does not cover the steps
(`training.cohort`) or what a task's members are (`tasks`).

    RUN/members/NAME/
      log.jsonl          one line a training step
      adapter/           the member, an ordinary PEFT adapter
      transcripts.jsonl  what it wrote (speech), or documents.jsonl, what it makes of each document (text)
    RUN/ensemble/        the same of the members' average
    RUN/rover/           transcripts.jsonl of the members' vote (speech, from three members)
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.objectives.objective import Objective
from tutelage.records.document import Caution, jsonable
from tutelage.records.files import write_atomically
from tutelage.runs.attempt import Attempt
from tutelage.runs.classroom import Classroom, Course
from tutelage.runs.cohort.rows import CHOOSES, best_of, compare_together, mean_row, spread_of, stack_members
from tutelage.runs.cohort.settings import Enrolled, enrol
from tutelage.runs.cohort.tasks import TASKS, CohortTask
from tutelage.runs.cost import TrainingCost
from tutelage.runs.folder import RunFolder, make_folder
from tutelage.runs.result import Findings, hash_files
from tutelage.training.cohort import Cohort, CohortTrained, train_cohort
from tutelage.training.cohort_member import Member
from tutelage.training.loop import Keeping, Watch
from tutelage.training.preflight import PreflightReport


@dataclass(frozen=True)
class Bench:
    """Everything alive during a run of a cohort.

    Args:
        room: The classroom that all share.
        task: What its task does for a cohort.
        enrolled: The members.
        rooms: Their classrooms by name.
        times: How often each takes what batches refer to; None takes everything once.
        attempt: How the run is tried.
    """

    room: Classroom[Any]
    task: CohortTask
    enrolled: tuple[Enrolled, ...]
    rooms: Mapping[str, Any]
    times: Mapping[str, list[int] | None]
    attempt: Attempt

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.attempt.out)


def learn_cohort(room: Classroom[Any], attempt: Attempt) -> Findings:
    """Check, train, judge, export.

    Args:
        room: The cohort's classroom; its student's layers carry no adapters that a member would inherit.
        attempt: How the run is tried.

    Raises:
        InputError: A member's design does not fit.
        PreflightError: A check of some member failed.
        DivergedError: No member is left.
        InterruptedRunError: The user stopped the run.
    """
    recipe = room.materials.recipe
    task, enrolled = TASKS[recipe.task], enrol(recipe)
    columns = task.columns(room)
    rooms = {one.name: task.enrol(room, one.recipe) for one in enrolled}
    times = {one.name: task.spread(room, one.draw_times(columns)) for one in enrolled}
    bench = Bench(room, task, enrolled, rooms, times, attempt)
    attempt.talk(f"cohort of {len(rooms)}: {', '.join(rooms)}")
    rehearsal = _rehearse(bench)
    attempt.talk(f"preflight: {len(rehearsal.checks)} checks passed")
    if not attempt.resume:  # only now: what preflight refuses leaves nothing behind
        make_folder(attempt.out, room.materials.identity, recipe.seed, attempt.recipe_yaml)
    untrained = room.judge_untrained()
    trained = _train(bench)
    return _conclude(bench, rehearsal, untrained, trained)


def _rehearse(bench: Bench) -> PreflightReport:
    """The checks of every member that differs from the ones before by more than its seed."""
    checks: list[Any] = []
    seen: list[dict[str, Any]] = []
    for one in bench.enrolled:
        plain = {name: value for name, value in one.recipe.to_dict().items() if name not in ("name", "seed")}
        if plain not in seen:
            seen.append(plain)
            checks += bench.rooms[one.name].rehearse().checks
    return PreflightReport(tuple(checks))


def _train(bench: Bench) -> CohortTrained:
    room, attempt, recipe = bench.room, bench.attempt, bench.room.materials.recipe
    members = tuple(
        Member(one.name, bench.rooms[one.name].lesson, one.recipe.training, one.recipe.seed, bench.times[one.name])
        for one in bench.enrolled
    )
    rooms, recall = list(bench.rooms.values()), bench.task.recall
    teacher = bench.task.teach(rooms, _everything_asked(bench))
    kept = None if recall is None else recall(rooms, attempt)
    cohort = Cohort(members, teacher, recipe.order_seed, members_step=recipe.members_step, recall=kept)
    identity = {**room.materials.identity, "seed": recipe.seed, **room.choices}
    keeping = Keeping(bench.folder.path, identity, resume=attempt.resume, resume_command=attempt.resume_command)
    return train_cohort(cohort, room.stream(), keeping, room.accelerator, Watch(attempt.progress, attempt.talk))


def _everything_asked(bench: Bench) -> Objective | None:
    """An objective that asks the teacher for whatever some member compares; None where none does."""
    asking = [room.lesson.objective for room in bench.rooms.values() if room.lesson.objective.needs_teacher]
    if not asking:
        return None
    most = max(asking, key=lambda one: len(one.pairs))
    pairs = dict.fromkeys(pair for one in asking for pair in one.pairs)
    return Objective(tuple(most.terms.values()), tuple(pairs))


def _conclude(bench: Bench, rehearsal: PreflightReport, untrained: Any, trained: CohortTrained) -> Findings:
    task, rooms = bench.task, {name: bench.rooms[name] for name in trained.finished}
    verdicts = {name: room.judge_trained(f"member {name}", untrained) for name, room in rooms.items()}
    resampling = _resampling_of(next(iter(verdicts.values())))
    stacked = stack_members(list(verdicts.values()))
    mean = mean_row(list(verdicts.values()), stacked, resampling)
    ensemble = task.join(rooms).judge_trained(f"ensemble of {len(rooms)} members", untrained)
    _keep_members(bench, verdicts)
    together = {"ensemble": ensemble, **_vote(bench, verdicts, ensemble)}
    for name, verdict in together.items():
        _write_lines(bench, bench.folder.path / name, verdict)
    best = best_of(verdicts)
    findings: Findings = rooms[best].conclude(
        bench.folder,
        Course(
            rehearsal,
            untrained,
            trained.members[best].trained,
            dataclasses.replace(verdicts[best], name=f"best member ({best})"),
        ),
    )
    findings.materials = bench.room.materials
    findings.tokens = findings.kept_tokens = trained.members[best].tokens
    findings.rows += [verdict.to_dict() for verdict in verdicts.values()]
    findings.rows += [mean, *(verdict.to_dict() for verdict in together.values())]
    findings.cost = _cost(bench, trained)
    findings.sections["law"] = {
        **dataclasses.asdict(findings.law_columns),
        "L_S": stacked[CHOOSES].ratio,
        "FLOPs": findings.cost.total / len(bench.rooms),
    }
    findings.sections["scores"] = _scores(findings, mean, ensemble.to_dict())
    findings.sections["cohort"] = {
        "members": [_describe(bench, one, trained) for one in bench.enrolled],
        "shared_blocks": trained.shared_blocks,
        "members_step": dataclasses.asdict(trained.stepping),
        "seconds": trained.seconds,
        "best": best,
        "chosen_by": f"{CHOOSES} on the held-out data",
        "spread": spread_of(stacked),
        "comparisons": compare_together(stacked, list(together.values()), mean["name"], resampling),
    }
    findings.cautions += _cautions(best, len(rooms), trained)
    return findings


def _vote(bench: Bench, verdicts: Mapping[str, Any], ensemble: Any) -> dict[str, Any]:
    """The members' vote under the name of its folder; nothing where there is none."""
    room = bench.rooms[next(iter(verdicts))]
    voted = bench.task.vote(room, list(verdicts.values()), ensemble) if bench.task.vote else None
    return {} if voted is None else {"rover": voted}


def _scores(findings: Findings, mean: Mapping[str, Any], ensemble: Mapping[str, Any]) -> dict[str, Any]:
    """The ledger's scores: the student is the mean member, since the best one was chosen on what it is scored on."""
    found = {name: score.to_dict() for name, score in findings.scores().items()}
    for name in [name for name in found if name.startswith("student.")]:
        metric = name.removeprefix("student.")
        found[f"best.{metric}"] = found[name]
        for short, row in (("student", mean), ("ensemble", ensemble)):
            if row["metrics"].get(metric) is not None:
                found[f"{short}.{metric}"] = row["metrics"][metric]
    return found


def _keep_members(bench: Bench, verdicts: Mapping[str, Any]) -> None:
    """Every member's adapter and what it wrote; a resumed run writes them anew."""
    for name, verdict in verdicts.items():
        folder = bench.folder.path / "members" / name
        if (folder / "adapter").exists():
            shutil.rmtree(folder / "adapter")
        bench.task.save(bench.rooms[name], folder / "adapter")
        _write_lines(bench, folder, verdict)


def _write_lines(bench: Bench, folder: Path, verdict: Any) -> None:
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in bench.task.lines(verdict))
    write_atomically(folder / bench.task.outputs_name, lines)


def _describe(bench: Bench, one: Enrolled, trained: CohortTrained) -> dict[str, Any]:
    """A member in the document."""
    found, outline = trained.members[one.name], bench.rooms[one.name].assembly.outline
    times = one.draw_times(bench.task.columns(bench.room))
    budget, adapter = outline.budget, bench.folder.path / "members" / one.name / "adapter"
    stopped = found.stopped
    return {
        "name": one.name,
        "seed": one.recipe.seed,
        "settings": jsonable(dataclasses.asdict(one.settings)),
        "rank": budget.rank,
        "params": budget.lora_params + budget.projector_params,
        "share": budget.share,
        "samples": None if times is None else {"distinct": sum(map(bool, times)), "drawn": sum(times)},
        "steps": found.trained.steps,
        "steps_without_samples": found.skipped,
        "tokens": found.tokens,
        "last_step": found.trained.last.to_dict() if found.trained.last else None,
        "status": "finished" if stopped is None else "stopped",
        "stopped": None if stopped is None else dataclasses.asdict(stopped),
        "adapter": {"path": f"members/{one.name}/adapter", "sha256": hash_files(adapter)} if not stopped else None,
    }


def _cost(bench: Bench, trained: CohortTrained) -> TrainingCost:
    """FLOPs of all members: each its own students' part, the encoder and the teacher once.

    The blocks that ran once for all are counted for every member, so this is a little too much where there are some.
    """
    each = [bench.task.cost(bench.rooms[name], found.tokens) for name, found in trained.members.items()]
    return TrainingCost(
        max(cost.encoder for cost in each), max(cost.teacher for cost in each), sum(cost.student for cost in each)
    )


def _resampling_of(verdict: Any) -> Any:
    return verdict.bench.resampling if hasattr(verdict, "bench") else verdict.score.resampling


def _cautions(best: str, count: int, trained: CohortTrained) -> list[Caution]:
    found = [
        Caution(
            "best-of-members",
            "cohort",
            count,
            (1.0, 1.0),
            f"The exported student is {best}, the member of the lowest loss among {count} on the held-out data itself: "
            "its row is optimistic. The mean of the members is not.",
        )
    ] * (count > 1)
    for name, one in trained.members.items():
        if one.stopped is not None:
            text = f"Member {name} was stopped: {one.stopped.reason}"
            found.append(Caution("member-stopped", f"members.{name}", one.stopped.step, (0.0, 0.0), text))
    return found
