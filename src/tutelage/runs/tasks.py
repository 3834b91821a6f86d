"""Which package does what a recipe asks for: the one place that knows the tasks by name.

Covers gathering materials, opening a classroom, and counting without running. What loads torch is imported when it is
needed, so that bad data is refused before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tutelage.progress import Progress, Talk, no_progress, say_nothing
from tutelage.records.document import Document
from tutelage.runs.attempt import Attempt
from tutelage.runs.cohort.forecast import forecast_cohort
from tutelage.runs.cohort.settings import require_samples
from tutelage.runs.materials import Materials
from tutelage.runs.prediction import find_run_law
from tutelage.runs.recipe import Recipe
from tutelage.runs.speech.materials import SpeechMaterials, gather_speech
from tutelage.runs.speech.recipe import SpeechRecipe
from tutelage.runs.text.materials import TextMaterials, gather_text
from tutelage.runs.text.recipe import TextRecipe
from tutelage.training.trackers import require_trackers

if TYPE_CHECKING:
    from accelerate import Accelerator

    from tutelage.runs.classroom import Classroom

RECIPES: dict[str, type[Recipe]] = {"speech": SpeechRecipe, "text": TextRecipe}
"""What a recipe file is read as, by its key `task`."""


def gather_materials(
    recipe: Recipe, *, progress: Progress = no_progress, talk: Talk = say_nothing, require_weights: bool = True
) -> Materials:
    """Check the recipe's data, then find its models (the data first: it is here, and the models may be far away).

    Args:
        recipe: The recipe.
        progress: Told of the data.
        talk: Told where models were found and what was dropped.
        require_weights: False accepts folders of configuration alone, for counting.

    Raises:
        InputError: Faults of the data or of a model folder, all of one input together.
        TutelageError: A model could not be fetched.
    """
    require_trackers(recipe.training.trackers)
    find_run_law(recipe.law)
    if isinstance(recipe, TextRecipe):
        return gather_text(recipe, talk=talk, require_weights=require_weights)
    if isinstance(recipe, SpeechRecipe):
        speech = gather_speech(recipe, progress=progress, talk=talk, require_weights=require_weights)
        require_samples(recipe, [clip.selectable for clip in speech.train.utterances])
        return speech
    raise TypeError(f"no task has a {type(recipe).__name__}")


def open_classroom(materials: Materials, accelerator: Accelerator, attempt: Attempt) -> Classroom[Any]:
    """Load teacher and student and build what is trained.

    Raises:
        InputError: The design does not fit the models.
    """
    if isinstance(materials, TextMaterials):
        from tutelage.runs.text.classroom import open_text_classroom

        return open_text_classroom(materials, accelerator, attempt)
    if isinstance(materials, SpeechMaterials):
        from tutelage.runs.speech.classroom import open_speech_classroom

        return open_speech_classroom(materials, accelerator, attempt)
    raise TypeError(f"no task has {type(materials).__name__}")


def forecast(materials: Materials) -> tuple[Document, str]:
    """Count a run without running it.

    Returns:
        The document, and the same for people.

    Raises:
        InputError: The design does not fit the models, or is over its budget.
    """
    return forecast_cohort(materials, _forecast_one) if materials.recipe.is_cohort else _forecast_one(materials)


def _forecast_one(materials: Materials) -> tuple[Document, str]:
    if isinstance(materials, TextMaterials):
        from tutelage.runs.text.forecast import forecast_text

        return forecast_text(materials)
    if isinstance(materials, SpeechMaterials):
        from tutelage.runs.speech.forecast import forecast_speech

        return forecast_speech(materials)
    raise TypeError(f"no task has {type(materials).__name__}")
