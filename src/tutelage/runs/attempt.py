"""How a recipe is run this time: what does not change its numbers. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tutelage.progress import Progress, Talk, no_progress, say_nothing


@dataclass(frozen=True)
class Attempt:
    """One try at a recipe.

    Args:
        out: The run's folder, which passed `folder.check_folder`.
        recipe_yaml: The resolved recipe as a file, kept in the run's folder.
        resume: Continue the unfinished run in `out`.
        device: torch device; "auto" takes a GPU where there is one.
        ledger: The ledger that records the run; None records nothing.
        progress: Opens bars.
        talk: Takes remarks.
        resume_command: What the user types to continue.
    """

    out: Path
    recipe_yaml: str
    resume: bool = False
    device: str = "auto"
    ledger: Path | None = None
    progress: Progress = no_progress
    talk: Talk = say_nothing
    resume_command: str = "the same command with --resume"
