"""The main job: from a recipe to a student with its proof.

The order: materials -> classroom -> preflight -> training -> judging -> export -> result. Covers the order and what is
kept, for every task. Does not cover how any of it is done (`speech`, `text`, and the packages below), counting without
running (`tasks.forecast`), or what the demo adds (`demo`). In several processes all of them check and train; the main
one alone makes the folder, judges, exports and writes, while the others wait.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage.errors import InterruptedRunError
from tutelage.runs.attempt import Attempt
from tutelage.runs.classroom import Classroom, Course
from tutelage.runs.cohort.learn import learn_cohort
from tutelage.runs.folder import RunFolder, make_folder
from tutelage.runs.materials import Materials
from tutelage.runs.result import Findings, keep_result
from tutelage.runs.tasks import open_classroom
from tutelage.training.device import limit_threads, open_accelerator
from tutelage.training.loop import Keeping, Trained, Watch, train


def distil(materials: Materials, attempt: Attempt, add: Callable[[Any], None] | None = None) -> Path:
    """Run a recipe.

    Args:
        materials: The recipe with its data and models.
        attempt: How it is run.
        add: Called with the findings before they are written; for what the demo adds.

    Returns:
        Path of `result.json`.

    Raises:
        InputError: The design does not fit the models, or the run cannot be resumed.
        PreflightError: A check before the first step failed.
        InterruptedRunError: The user stopped the run; it can be resumed.
        TutelageError: The work failed.
    """
    accelerator = open_accelerator(attempt.device, materials.recipe.training.precision)
    with limit_threads(materials.recipe.training.threads):
        try:
            findings = _learn(open_classroom(materials, accelerator, attempt), attempt)
            if findings is not None:
                if add is not None:
                    add(findings)
                keep_result(findings, RunFolder(attempt.out), attempt.ledger)
            accelerator.wait_for_everyone()
        except KeyboardInterrupt:
            raise InterruptedRunError(_how_to_go_on(attempt)) from None
    return RunFolder(attempt.out).result


def _how_to_go_on(attempt: Attempt) -> str:
    if RunFolder(attempt.out).begun:
        return f"Stopped. What was done is kept; continue with: {attempt.resume_command}"
    return "Stopped before training; outputs of frozen layers that were computed are kept. Give the same command again."


def _learn(room: Classroom[Any], attempt: Attempt) -> Findings | None:
    """Check, train, judge, export; None in a process that is not the main one."""
    if room.materials.recipe.is_cohort:
        return learn_cohort(room, attempt)
    rehearsal = room.rehearse()
    attempt.talk(f"preflight: {len(rehearsal.checks)} checks passed")
    folder = RunFolder(attempt.out)
    main = room.accelerator.is_main_process
    if main and not attempt.resume:  # only now: what preflight refuses leaves nothing behind
        make_folder(attempt.out, room.materials.identity, room.materials.recipe.seed, attempt.recipe_yaml)
    room.accelerator.wait_for_everyone()
    untrained = room.judge_untrained() if main else ()
    trained = _train(room, folder, attempt)
    return room.conclude(folder, Course(rehearsal, untrained, trained)) if main else None


def _train(room: Classroom[Any], folder: RunFolder, attempt: Attempt) -> Trained:
    recipe = room.materials.recipe
    return train(
        room.lesson,
        room.stream(),
        recipe.training,
        Keeping(
            folder.path,
            {**room.materials.identity, "seed": recipe.seed, **room.choices},
            resume=attempt.resume,
            resume_command=attempt.resume_command,
        ),
        room.accelerator,
        recipe.seed,
        Watch(progress=attempt.progress, talk=attempt.talk, judge=room.judge_dev),
    )
