"""What a run on text costs: FLOPs of training counted from the models' configurations, and bytes of memory.

Covers the live teacher and the student, with adapters or with every weight. Does not cover judging, or time (`forecast`
estimates it).
"""

from __future__ import annotations

from collections.abc import Mapping

from tutelage.laws.architecture import count_flops
from tutelage.models.compute import row_training_flops
from tutelage.models.load import count_params
from tutelage.runs.cost import TrainingCost
from tutelage.runs.text.assembly import TextOutline

_FLOAT = 4  # bytes


def count_training(
    outline: TextOutline, rows: Mapping[int, int], *, live_teacher: bool, passes: int = 0
) -> TrainingCost:
    """FLOPs of a training.

    Args:
        outline: Teacher and student, the student on any device, its adapters built or not.
        rows: How many rows of each length are trained on, over all steps.
        live_teacher: Whether the teacher, or every member of a committee, runs beside the student.
        passes: Batches that the student learns from.
    """
    model, ranks = outline.student.model, outline.adapted
    student = passes * outline.pass_flops + sum(
        times * row_training_flops(model, ranks, ranks, length, extra_params=outline.projector_params)
        for length, times in rows.items()
    )
    teacher = 0.0
    if live_teacher:
        configs = [one.model.config.to_dict() for one in outline.teachers.values()]
        teacher = sum(
            times * count_flops(config, length).forward for config in configs for length, times in rows.items()
        )
    return TrainingCost(0.0, teacher, student)


def expect_memory(outline: TextOutline, batch_size: int, positions: int) -> int:
    """Bytes that a training will need about, in float32: weights, gradients, moments, activations, logits.

    Activations are counted as 16 tensors of the width a block and position of the student. Interpreter and libraries
    come on top.
    """
    student = outline.student
    weights = count_params(student.model)
    weights += sum(count_params(one.model) for one in outline.teachers.values())
    activations = 16 * batch_size * positions * student.blocks * student.width
    logits = 4 * batch_size * positions * int(student.model.config.vocab_size)
    return _FLOAT * int(weights + 3 * outline.trained_params + activations + logits)
