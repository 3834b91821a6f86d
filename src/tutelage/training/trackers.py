"""TensorBoard, Weights & Biases and MLflow, through Accelerate's trackers: the numbers of `log.jsonl` as they arise.

Covers refusing what is not installed, what is logged under which name, and going on after an interruption without a
step twice: TensorBoard is told to drop what it has from the first new step on; to the others no step is sent that was
logged before, for a resumed run has the same numbers. TensorBoard's files lie in the run's folder (`tensorboard/`).
Does not cover drawing (`reports`). W&B and MLflow need their services and are not tested here.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.errors import InputError, MissingExtraError
from tutelage.records.files import write_json
from tutelage.training.optimisation import Tracker
from tutelage.training.selection import DevCheck

if TYPE_CHECKING:
    from tutelage.training.step import StepReport

PROJECT = "tutelage"  # project of W&B, experiment of MLflow
Send = Callable[["StepReport", DevCheck | None], None]


def require_trackers(names: Sequence[Tracker]) -> None:
    """Refuse a tracker that is not installed, before anything heavy is loaded.

    Raises:
        InputError: Which, and how to add it.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing == ["tensorboard"]:
        raise MissingExtraError("tensorboard", "trackers")
    if missing:
        raise InputError(
            f"training.trackers names {', '.join(missing)}, not installed here: pip install {' '.join(missing)} "
            "(TensorBoard also comes with 'tutelage[trackers]')."
        )


def numbers_of(report: StepReport, check: DevCheck | None) -> dict[str, float]:
    """Every number of a step under the name that trackers show: `loss/KIND` and so on are groups there."""
    found = {
        "total": report.total,
        "learning_rate": report.learning_rate,
        "gradient_norm": report.gradient_norm,
        "positions": float(report.positions),
    }
    for group, values in (
        ("loss", report.terms),
        ("weight", report.weights),
        ("term_gradient_norm", report.term_gradient_norms),
    ):
        found |= {f"{group}/{name}": float(value) for name, value in values.items()}
    if check is not None:
        found[f"dev/{check.metric}"] = check.value
    return found


@contextmanager
def open_trackers(names: Sequence[Tracker], folder: Path, step: int, logged: int) -> Iterator[Send]:
    """Open every tracker of a run, on its main process; yields what takes a step.

    Args:
        names: The trackers.
        folder: The run's folder.
        step: Steps taken before; 0 for a new run.
        logged: Steps that were logged before, some of which may be taken again; from `step` up.
    """
    if not names:
        yield lambda _report, _check: None
        return
    opened = {name: _open(name, folder, step) for name in names}

    def send(report: StepReport, check: DevCheck | None) -> None:
        for name, tracker in opened.items():
            if name == "tensorboard" or report.step > logged:
                tracker.log(numbers_of(report, check), step=report.step)

    try:
        yield send
    finally:
        for tracker in opened.values():
            tracker.finish()


def _open(name: Tracker, folder: Path, step: int) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    ids = folder / "trackers.json"  # what W&B and MLflow call this run, for the next resume
    known: dict[str, str] = json.loads(ids.read_text(encoding="utf-8")) if step and ids.is_file() else {}
    options: dict[Tracker, tuple[str, dict[str, Any]]] = {
        "tensorboard": ("tensorboard", {"logging_dir": str(folder), "purge_step": step + 1}),
        "wandb": (PROJECT, {"name": folder.name, "dir": str(folder), "id": known.get("wandb"), "resume": "allow"}),
        "mlflow": (PROJECT, {"run_name": folder.name, "run_id": known.get("mlflow")}),
    }
    title, settings = options[name]
    tracker = LOGGER_TYPE_TO_CLASS[name](title, **settings)
    if hasattr(tracker, "start"):  # before accelerate 1.8 the constructor did it
        tracker.start()
    if name == "wandb":
        write_json(ids, {**known, name: tracker.tracker.id})
    elif name == "mlflow":
        write_json(ids, {**known, name: tracker.tracker.info.run_id})
    return tracker
