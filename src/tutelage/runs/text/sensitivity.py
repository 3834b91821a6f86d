"""Which blocks of a language model stay, by its loss on the first batches that training will draw.

Covers the batches and the loss. Does not cover skipping blocks and choosing (`students.sensitivity`).
"""

from __future__ import annotations

from typing import Any

from tutelage.objectives.likelihood import cross_entropy
from tutelage.objectives.reduction import Reduced
from tutelage.runs.text.recipe import TextRecipe
from tutelage.students.sensitivity import LayerChoice, choose_by_sensitivity
from tutelage.tasks.sampler import EpochSampler
from tutelage.tasks.text.batch import TextBatch, TextExamples
from tutelage.tasks.text.forward import read


def choose_blocks(recipe: TextRecipe, model: Any, examples: TextExamples) -> LayerChoice:
    """Measure the model that the student begins as.

    Args:
        recipe: Says how many blocks stay, and with its seed and batch size which rows are read.
        model: Not cut yet.
        examples: The training rows.

    Raises:
        InputError: As `choose_by_sensitivity`.
    """
    design = recipe.student
    if not isinstance(design.layers, int):
        raise ValueError("a recipe that chooses layers by sensitivity says how many")
    sampler = EpochSampler(len(examples), recipe.training.batch_size, recipe.order_seed)
    batches = [examples.batch(sampler.next_batch()).to(model.device) for _ in range(design.sensitivity_batches)]
    return choose_by_sensitivity(model, design.layers, batches, _loss)


def _loss(model: Any, batch: TextBatch) -> Reduced:
    return cross_entropy(read(model, batch).logits_BTV, batch.labels_BT, batch.keep_BT)
