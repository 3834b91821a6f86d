"""Who learns what from whom: the student as it is trained, and its teacher's signal, on the same batch of clips.

Does not cover building either of them (`assembly`, `teachers`) or the step itself (`training.step`).
"""

from __future__ import annotations

import dataclasses

from tutelage.objectives.signal import Signal
from tutelage.runs.speech.assembly import Assembly
from tutelage.tasks.speech.batch import SpeechBatch
from tutelage.tasks.speech.forward import decode
from tutelage.teachers.committee import Committee
from tutelage.teachers.live import LiveTeacher
from tutelage.teachers.target_cache.cached import CachedTeacher
from tutelage.training.step import Lesson


def make_lesson(
    assembly: Assembly,
    teacher: LiveTeacher[SpeechBatch] | Committee[SpeechBatch] | CachedTeacher | None,
    part: slice | None = None,
) -> Lesson[SpeechBatch]:
    """The student as it is trained, and its teacher's signal.

    Args:
        assembly: Student, projectors and objective.
        teacher: Who teaches.
        part: Where the leading teacher's encoder stands among the outputs that lie side by side.
    """
    layers, width = assembly.objective.student_layers, int(assembly.outline.student.model.config.d_model)
    listen, hears = assembly.outline.trains_encoder, any(pair.side == "encoder" for pair in assembly.objective.pairs)

    def student_forward(batch: SpeechBatch) -> Signal:
        own = dataclasses.replace(batch, encoder_BSH=batch.encoder_BSH[..., :width])  # teachers' encoders come behind
        signal = decode(assembly.peft_model, own, layers, listen=listen, defer=True)
        if listen or not hears:
            return signal
        return dataclasses.replace(signal, heard_BSH=own.encoder_BSH, heard_BS=own.heard_BS)

    def teacher_forward(batch: SpeechBatch) -> Signal:
        signal = teacher.signal(batch)  # type: ignore[union-attr]  # without one this is not handed on
        if not hears:
            return signal
        return dataclasses.replace(
            signal, heard_BSH=batch.encoder_BSH[..., part or slice(None)], heard_BS=batch.heard_BS
        )

    return Lesson(
        assembly.peft_model,
        assembly.projectors,
        assembly.objective,
        student_forward,
        None if teacher is None else teacher_forward,
    )
