"""A dry run on speech: everything that can be checked and counted without weights, and what the run would take.

Covers the layer map, the budget, FLOPs, memory and an estimate of time. Loads configurations only (meta device), so a
model of any size is counted at once. Does not cover the checks that need weights (`training.preflight`).
"""

from __future__ import annotations

from dataclasses import asdict

from tutelage.models.load import count_params
from tutelage.objectives.objective import Objective
from tutelage.records.document import Document
from tutelage.runs.machine import duration, measure_product
from tutelage.runs.speech.assembly import Outline, load_meta_outline
from tutelage.runs.speech.augment import hear_training
from tutelage.runs.speech.cost import count_training, expect_memory
from tutelage.runs.speech.materials import SpeechMaterials
from tutelage.runs.speech.teachers import describe_encoders
from tutelage.students.layer_map import describe
from tutelage.students.sensitivity import UNKNOWN_LAYERS
from tutelage.teachers.vocabulary import describe_sizes

PROMPT = 4  # decoder positions before the text
TOKENS_A_WORD = 2.0
"""Whisper's tokenizer on the Spanish captions: 1.9 tokens a word; no tokenizer is needed for a forecast."""
WORDS_A_SECOND = 2.3
"""Of a clip without a transcript: 4.3 tokens a second on the Spanish captions."""
EFFICIENCY = 0.5
"""Share of a large matrix product's speed that a run reaches; the demo on two cores: 0.42 in training, 0.68 in the
encoder, 0.52 in all (results/demo.json, counted FLOPs over seconds, against `measure_product` on one machine)."""


def forecast_speech(materials: SpeechMaterials) -> tuple[Document, str]:
    """Count a run.

    Returns:
        The document, and the same for people.

    Raises:
        InputError: The design does not fit the models, or is over its budget.
    """
    recipe = materials.recipe
    outline = load_meta_outline(materials)
    objective = Objective(recipe.objective, outline.pairs)
    clips = materials.train.utterances
    words = sum(len(utterance.text.split()) or WORDS_A_SECOND * utterance.duration for utterance in clips)
    positions = PROMPT + round(TOKENS_A_WORD * words / len(clips))
    training = recipe.training
    seen = training.steps * training.batch_size * training.accumulate
    cost = count_training(
        outline,
        [positions] * seen,
        len(hear_training(materials).clips),
        live_teacher=objective.needs_teacher and materials.cache is None,
        passes=training.steps * training.accumulate,
    )
    memory = expect_memory(outline, training.batch_size, positions)
    speed = measure_product()
    seconds = cost.total / (EFFICIENCY * speed)
    unknown = recipe.student.keep == "sensitivity"
    body = {
        "recipe": {"name": recipe.name, "sha256": materials.recipe_hash, "resolved": recipe.to_dict()},
        "budget": {
            **asdict(outline.budget),
            "params": outline.budget.lora_params + outline.budget.projector_params,
            "lora_share": outline.budget.lora_share,
        },
        "teachers": [{"name": one.name, "params": count_params(one.stock.model)} for one in outline.teachers],
        "layer_map": None if unknown else [asdict(pair) for pair in outline.pairs],
        "expected": {
            "flops": cost.to_dict(),
            "memory_bytes": memory,
            "seconds": seconds,
            "assumptions": {
                "tokens_per_word": TOKENS_A_WORD,
                "efficiency": EFFICIENCY,
                "matrix_product_flops_per_second": speed,
            },
        },
    }
    document = Document("distill.dry-run", body, warnings=materials.cautions)
    lines = [UNKNOWN_LAYERS] if unknown else [_layer_map(outline)] if outline.pairs else []
    lines.append(outline.budget.describe())
    lines.append(
        f"expected: {cost.total:.2e} FLOPs (encoder {cost.encoder:.1e}, teacher {cost.teacher:.1e}, student "
        f"{cost.student:.1e}), {memory / 1e9:.1f} GB of memory, about {duration(seconds)} of training here"
    )
    lines.append(
        f"(time: {EFFICIENCY:.0%} of the {speed / 1e9:.0f} GFLOP/s that a matrix product reaches on this machine)"
    )
    lines += describe_encoders(outline.teachers, outline.student.model.config)
    sizes = {one.name: int(one.cut.model.config.vocab_size) for one in outline.teachers}
    lines += describe_sizes(sizes, int(outline.student.model.config.vocab_size))
    return document, "\n".join(lines)


def _layer_map(outline: Outline) -> str:
    return describe(
        outline.pairs, outline.student.model.config.decoder_layers, outline.teacher.model.config.decoder_layers
    )
