"""What a run on speech costs: FLOPs of training counted from the models' configurations, and bytes of memory.

Covers the frozen encoders (each once a clip), every live teacher's decoder and the student's LoRA training. Does not
cover judging, or time (`forecast` estimates it, `evaluation.speed` measures it).
"""

from __future__ import annotations

from collections.abc import Iterable

from tutelage.models.compute import lora_utterance_flops, utterance_flops
from tutelage.models.load import count_params
from tutelage.runs.cost import TrainingCost
from tutelage.runs.speech.assembly import Outline
from tutelage.runs.speech.teachers import encoders_of

_FLOAT = 4  # bytes


def count_training(
    outline: Outline, lengths: Iterable[int], clips: int, *, live_teacher: bool, passes: int = 0
) -> TrainingCost:
    """FLOPs of a training.

    Args:
        outline: Teacher and student.
        lengths: Decoder positions of every clip in every step, the prompt among them.
        clips: Distinct clips, encoded once by each encoder that differs.
        live_teacher: Whether the teacher, or every member of a committee, runs beside the student.
        passes: Batches that the student learns from.
    """
    by_length: dict[int, int] = {}
    for length in lengths:
        by_length[length] = by_length.get(length, 0) + 1
    student = outline.student.model
    teachers = [one.cut.model.config.to_dict() for one in outline.teachers]
    fed = 6 * outline.fed_params * student.config.max_source_positions  # forward, and backward for weights and states
    learned = (
        passes * outline.pass_flops
        + fed * sum(by_length.values())
        + sum(
            times
            * lora_utterance_flops(
                student,
                outline.adapted,
                outline.adapted,
                length,
                cached_encoder=not outline.trains_encoder,
                extra_params=outline.budget.projector_params,
            )
            for length, times in by_length.items()
        )
    )
    taught = sum(
        times * utterance_flops(teacher, length).decoder_forward
        for teacher in teachers
        for length, times in by_length.items()
    )
    others = [one.cut.model for one in encoders_of(outline.teachers).values()] if live_teacher else []
    encoded = clips * sum(utterance_flops(model.config.to_dict(), 1).encoder_forward for model in (student, *others))
    return TrainingCost(encoded, taught if live_teacher else 0.0, learned)


def expect_memory(outline: Outline, batch_size: int, positions: int) -> int:
    """Bytes that a training will need about, in float32: weights, moments, activations, logits.

    Activations are counted as 16 tensors of the width a block and position of the student, plus the keys and values of
    the encoder's output, which its adapters keep for the backward pass. Interpreter and libraries come on top: the demo
    counts 1.0 GB and was seen at 1.8 GB resident.
    """
    config = outline.student.model.config
    trained = outline.budget.lora_params + outline.budget.projector_params
    kept = {id(model): model for one in outline.teachers for model in (one.stock.model, one.cut.model)}
    weights = count_params(outline.student.model) + sum(count_params(model) for model in kept.values())
    width, layers = config.d_model, config.decoder_layers
    activations = batch_size * layers * width * (16 * positions + 3 * config.max_source_positions)
    if outline.trains_encoder:
        activations += 16 * batch_size * config.encoder_layers * width * config.max_source_positions
    logits = 4 * batch_size * positions * config.vocab_size  # of both, and their gradients
    return _FLOAT * int(weights + 3 * trained + activations + logits)
