"""A dry run on text: everything that can be checked and counted without weights, and what the run would take.

Covers tokens, the layer map, the budget, FLOPs, memory and an estimate of time. Loads configurations and the tokenizer
only. Does not cover the checks that need weights (`training.preflight`).
"""

from __future__ import annotations

from collections import Counter

from tutelage.models.causal import load_tokenizer
from tutelage.models.load import count_params
from tutelage.objectives.objective import Objective
from tutelage.records.document import Document
from tutelage.runs.cohort.settings import enrol
from tutelage.runs.machine import duration, measure_product
from tutelage.runs.text.assembly import TextOutline, load_meta_outline
from tutelage.runs.text.corpus import TokenSet, tokenise
from tutelage.runs.text.cost import count_training, expect_memory
from tutelage.runs.text.frozen_blocks import BlockPlan, plan_blocks
from tutelage.runs.text.materials import TextMaterials
from tutelage.runs.text.recipe import TextRecipe
from tutelage.students.layer_map import describe
from tutelage.students.sensitivity import UNKNOWN_LAYERS
from tutelage.tasks.sampler import EpochSampler
from tutelage.tasks.text.codec import TextCodec
from tutelage.teachers.vocabulary import describe_sizes

EFFICIENCY = 0.3
"""Share of a large matrix product's speed that a run reaches; a guess for models of the width of a pilot study."""


def forecast_text(materials: TextMaterials) -> tuple[Document, str]:
    """Count a run.

    Returns:
        The document, and the same for people.

    Raises:
        InputError: The design does not fit the models, the data does not fit the rows, or the budget is exceeded.
    """
    recipe = materials.recipe
    outline = load_meta_outline(materials)
    objective = Objective(recipe.objective, outline.pairs)
    codec = TextCodec(load_tokenizer(materials.tokenizer), materials.template)
    positions = min(text.positions for text in (*outline.teachers.values(), outline.student))
    said: list[str] = []
    train, held_out = (
        tokenise(corpus, name, codec, recipe.data, positions, said.append)
        for name, corpus in (("train", materials.train), ("held_out", materials.held_out))
    )
    training, rows = recipe.training, train.examples.packed.rows
    sampler = EpochSampler(len(rows), training.batch_size, recipe.order_seed)
    drawn = [index for _ in range(training.steps * training.accumulate) for index in sampler.next_batch()]
    tokens = sum(int(rows[index].keep.sum()) for index in drawn)
    live = objective.needs_teacher and materials.cache is None
    lengths, passes = Counter(len(rows[index]) for index in drawn), training.steps * training.accumulate
    cost = count_training(outline, lengths, live_teacher=live, passes=passes)
    memory = expect_memory(outline, training.batch_size, recipe.data.length)
    speed = measure_product()
    seconds = cost.total / (EFFICIENCY * speed)
    expected = {
        "supervised_tokens": tokens,
        "flops": cost.to_dict(),
        "memory_bytes": memory,
        "seconds": seconds,
        "assumptions": {"efficiency": EFFICIENCY, "matrix_product_flops_per_second": speed},
    }
    body = {
        "recipe": {"name": recipe.name, "sha256": materials.recipe_hash, "resolved": recipe.to_dict()},
        "trained_params": outline.trained_params,
        "teachers": [{"name": name, "params": count_params(one.model)} for name, one in outline.teachers.items()],
        "layer_map": None if recipe.student.keep == "sensitivity" else [pair.__dict__ for pair in outline.pairs],
        "data": {"train": train.examples.packed.to_dict(), "held_out": held_out.examples.packed.to_dict()},
        "expected": expected,
    }
    blocks = _count_blocks(materials.recipe, outline, train)
    if blocks is not None:
        expected["frozen_blocks"] = blocks.to_dict()
    unknown = [UNKNOWN_LAYERS] if recipe.student.keep == "sensitivity" else []
    lines = [*said, *unknown, *([] if unknown else _layer_map(outline)), outline.describe()]
    epochs = len(drawn) / len(rows)
    lines.append(
        f"expected: {tokens:,} supervised tokens ({epochs:.1f} epochs), {cost.total:.2e} FLOPs (teacher "
        f"{cost.teacher:.1e}, student {cost.student:.1e}), {memory / 1e9:.1f} GB of memory, about {duration(seconds)} "
        "of training here"
    )
    lines.append(
        f"(time: {EFFICIENCY:.0%} of the {speed / 1e9:.0f} GFLOP/s that a matrix product reaches on this machine)"
    )
    sizes = {name: int(one.model.config.vocab_size) for name, one in outline.teachers.items()}
    lines += describe_sizes(sizes, int(outline.student.model.config.vocab_size))
    lines += [] if blocks is None else [blocks.describe()]
    return Document("distill.dry-run", body, warnings=materials.cautions), "\n".join(lines)


def _count_blocks(recipe: TextRecipe, outline: TextOutline, train: TokenSet) -> BlockPlan | None:
    """The cache of frozen blocks, of a cohort those that every member leaves frozen; None without one."""
    if not recipe.student.cache_prefix:
        return None
    designs = [one.recipe.student for one in enrol(recipe)] or [recipe.student]
    depth = min(0 if design.lora is None else design.lora.first_block for design in designs)
    return plan_blocks(recipe, outline.student.model, depth, train)


def _layer_map(outline: TextOutline) -> list[str]:
    if outline.teacher is None or not outline.pairs:
        return []
    return [describe(outline.pairs, outline.student.blocks, outline.teacher.blocks)]
