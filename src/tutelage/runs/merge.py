"""A cohort's members made into one student: merged exactly, merged at a low rank, or the best one alone.

Covers which members count how much, the folder that is written, and judging it beside the members on held-out data.
Does not cover the arithmetic (`students.merge`), judging itself (the tasks' `evaluate`), or learning the ensemble in a
run of its own, which is `tutelage distill` with the cohort as its teacher. Nothing here imports torch before the run
and the place were found to be good.

    OUT/
      student/       the student with the merged update in its weights, an ordinary Hugging Face folder
      adapter/       the merged update, a PEFT adapter of what the members are adapters of
      merge.json     how it was made, and its scores
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from tutelage.errors import InputError
from tutelage.progress import Progress, Talk, no_progress, say_nothing
from tutelage.records.document import Caution, Document
from tutelage.records.files import write_json
from tutelage.runs.finished import FinishedRun, read_finished, verify_files
from tutelage.runs.folder import RunFolder
from tutelage.tasks.sources import AudioSource, DatasetSource

if TYPE_CHECKING:
    from tutelage.students.merge import Adapter, Merged

How = Literal["exact", "svd", "best"]
Weights = Literal["uniform", "score"]
MEAN, MERGED = "mean member", "merged"


@dataclass(frozen=True)
class MergeOrder:
    """What is asked for.

    Args:
        run: The folder of a finished run of a cohort.
        how: "exact" adds the ranks up, "svd" keeps the members' rank, "best" takes the member of the lowest loss.
        out: The folder to write.
        rank: Of an svd merge; None keeps each layer's own.
        weights: "uniform", or "score": exp(-held-out loss), one over the perplexity, as of a committee's members.
        members: Which ones; empty takes all that finished.
        data: Held-out data to judge on; None takes the run's own, where it still lies there.
        judge: Whether anything is judged.
        device: torch device; "auto" takes a GPU where there is one.
    """

    run: Path
    how: How
    out: Path
    rank: int | None = None
    weights: Weights = "uniform"
    members: tuple[str, ...] = ()
    data: Path | DatasetSource | None = None
    judge: bool = True
    device: str = "auto"


@dataclass(frozen=True)
class MergePlan:
    """An order without faults.

    Args:
        order: The order.
        finished: The run.
        members: Folder of each member's adapter, by name.
        weights: What each counts; they sum to 1.
        best: The member whose update is in the run's exported student.
        recipe: The run's resolved recipe.
        data: What is judged on; None judges nothing.
        cautions: Soft faults.
    """

    order: MergeOrder
    finished: FinishedRun
    members: Mapping[str, Path]
    weights: Mapping[str, float]
    best: Path
    recipe: Mapping[str, Any]
    data: Path | DatasetSource | None
    cautions: tuple[Caution, ...]

    def body(self) -> dict[str, Any]:
        """The document's keys that are known before anything is written."""
        order = self.order
        return {"path": str(order.out), "run": str(order.run), "how": order.how, "weights": dict(self.weights)}


def plan_merge(order: MergeOrder) -> MergePlan:
    """Check an order without loading a model.

    Raises:
        InputError: Every fault of the order; or the run is not finished, is of no cohort, or a file of it is not what
            the run wrote.
    """
    faults = []
    if order.how != "svd" and order.rank is not None:
        faults.append(f"--rank {order.rank} belongs to --how svd; an exact merge has the sum of the ranks.")
    if order.how == "best" and order.weights != "uniform":
        faults.append("--how best takes one member, so there is nothing to weigh.")
    if order.out.exists():
        faults.append(f"{order.out} exists; choose another --out.")
    if faults:
        raise InputError(faults)
    finished = read_finished(order.run)
    result = json.loads(RunFolder(order.run).result.read_bytes())
    if not result.get("cohort"):
        raise InputError(f"The run in {order.run} is of one student; only the members of a cohort are merged.")
    rows = {row["name"]: row for row in result["cohort"]["members"]}
    losses = {name: _loss_of(result, name) for name, row in rows.items() if row["status"] == "finished"}
    chosen = _choose(order, rows, losses)
    finished.student()
    for name in {*chosen, result["cohort"]["best"]}:
        verify_files(order.run / rows[name]["adapter"]["path"], rows[name]["adapter"]["sha256"])
    folders = {name: order.run / rows[name]["adapter"]["path"] for name in chosen}
    data, cautions = _find_data(order, finished)
    if order.weights == "score" or order.how == "best":
        text = "The weights were chosen by losses on the held-out data itself: scores on that data are optimistic."
        cautions = (*cautions, Caution("chosen-on-held-out", "weights", order.how, None, text))
    best = order.run / rows[result["cohort"]["best"]]["adapter"]["path"]
    weights = _weigh(order, {name: losses[name] for name in chosen})
    return MergePlan(order, finished, folders, weights, best, result["recipe"]["resolved"], data, cautions)


def merge_run(plan: MergePlan, progress: Progress = no_progress, talk: Talk = say_nothing) -> Document:
    """Write the folder, whole or not at all, after judging it.

    Raises:
        InputError: The place cannot be written, or the adapters cannot be merged.
    """
    from tutelage.students.export import new_folder
    from tutelage.students.merge import exchange_update, merge_exact, merge_svd, read_adapter, write_merged

    order = plan.order
    adapters = {name: read_adapter(folder) for name, folder in plan.members.items()}
    best, weights = read_adapter(plan.best), list(plan.weights.values())
    each = list(adapters.values())
    merged = merge_svd(each, weights, order.rank) if order.how == "svd" else merge_exact(each, weights)
    student = RunFolder(order.run).student
    with new_folder(order.out) as folder:
        exchange_update(student, folder / "student", best, merged)
        write_merged(merged, each[0], folder / "adapter")
        evaluation = None if plan.data is None else _judge(plan, folder / "student", adapters, best, progress, talk)
        body = {**plan.body(), **_describe(merged, adapters), "evaluation": evaluation}
        document = Document("merge", body, warnings=plan.cautions)
        write_json(folder / "merge.json", document.to_dict())
    return document


def _judge(
    plan: MergePlan, merged: Path, adapters: Mapping[str, Adapter], best: Adapter, progress: Progress, talk: Talk
) -> dict[str, Any]:
    """The merged student and the members that it is made of, each a student of its own for as long as it takes."""
    from tutelage.students.merge import exchange_update

    with tempfile.TemporaryDirectory(dir=merged.parent.parent, prefix=".members-") as scratch:
        folders = []
        for name, adapter in adapters.items():
            talk(f"member {name} as a student of its own")
            folders.append(exchange_update(RunFolder(plan.order.run).student, Path(scratch) / name, best, adapter))
        document = _evaluate(plan, merged, folders, progress, talk)
    return {
        "models": [{**row, "members": list(adapters)} if row["name"] == MEAN else row for row in document["models"]],
        "comparisons": document["comparisons"],
        "data": document["data"],
    }


def _evaluate(plan: MergePlan, merged: Path, members: Sequence[Path], progress: Progress, talk: Talk) -> dict[str, Any]:
    from tutelage.runs.systems import System, Systems

    systems = Systems((System(MEAN, tuple(map(str, members))), System(MERGED, (str(merged),))))
    settings, data = plan.recipe["evaluation"], plan.data
    common: dict[str, Any] = {
        "systems": systems,
        "device": plan.order.device,
        "draws": settings["bootstrap_draws"],
        "batch_size": settings["batch_size"],
        "speed_items": 0,
    }
    if data is None:
        raise ValueError("nothing is judged without data")
    if plan.finished.task == "text":
        from tutelage.runs.text.evaluate import TextExamination, evaluate_text

        about = plan.recipe["data"]
        rows = TextExamination(documents=data, length=about["length"], packing=about["packing"], **common)
        return evaluate_text(rows, progress=progress, talk=talk).to_dict()
    from tutelage.runs.speech.evaluate import Examination, evaluate

    recordings = cast("Path | AudioSource", data)
    clips = Examination(manifest=recordings, language=plan.finished.spoken[0], **common)
    return evaluate(clips, progress=progress, talk=talk).to_dict()


def _describe(merged: Merged, adapters: Mapping[str, Adapter]) -> dict[str, Any]:
    return {
        "rank": max(update.rank for update in merged.updates.values()),
        "params": merged.params,
        "lost": merged.lost,
        "lost_by_layer": dict(merged.lost_by_layer),
        "members": {name: {"rank": adapter.rank, "layers": len(adapter.updates)} for name, adapter in adapters.items()},
    }


def _choose(order: MergeOrder, rows: Mapping[str, Any], losses: Mapping[str, float | None]) -> list[str]:
    """The members' names, in the cohort's order."""
    faults = [f"There is no member {name}; there are {', '.join(rows)}." for name in order.members if name not in rows]
    faults += [
        f"Member {name} did not finish: {rows[name]['stopped']['reason']}"
        for name in order.members
        if name in rows and name not in losses
    ]
    if faults:
        raise InputError(faults)
    names = [name for name in rows if name in losses and (not order.members or name in order.members)]
    unknown = [name for name in names if losses[name] is None]
    if unknown and (order.how == "best" or order.weights == "score"):
        raise InputError(f"The run holds no loss of member {', '.join(unknown)}; choose --weights uniform.")
    return [min(names, key=lambda name: losses[name] or math.inf)] if order.how == "best" else names


def _weigh(order: MergeOrder, losses: Mapping[str, float | None]) -> dict[str, float]:
    """Weights that sum to 1."""
    shares = {name: math.exp(-(loss or 0.0)) if order.weights == "score" else 1.0 for name, loss in losses.items()}
    whole = math.fsum(shares.values())
    return {name: share / whole for name, share in shares.items()}


def _loss_of(result: Mapping[str, Any], name: str) -> float | None:
    for row in result["systems"]:
        loss = row["metrics"].get("nats_per_token")
        if row["name"] == f"member {name}" and loss is not None:
            return float(loss["value"])
    return None


def _find_data(order: MergeOrder, finished: FinishedRun) -> tuple[Path | DatasetSource | None, tuple[Caution, ...]]:
    if not order.judge:
        return None, ()
    found = finished.find_held_out(order.data)
    if found is not None:
        return found, ()
    named = str(finished.held_out)
    text = f"Nothing was judged: the run's held-out data is not at {named} any more. Name some with --data."
    return None, (Caution("not-judged", "data", named, None, text),)
