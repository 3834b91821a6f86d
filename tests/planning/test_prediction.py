"""Predictions from Python: what the command does, without the command."""

from __future__ import annotations

import math

import pytest

from tutelage.errors import InputError
from tutelage.laws.law import Law
from tutelage.planning.prediction import predict


def test_a_prediction_is_a_value_with_bands(law: Law) -> None:
    prediction = predict(law, 1e9, 2.5e11, teacher_loss=2.0)
    assert prediction.student_loss is not None
    assert prediction.student_loss.low is not None
    assert prediction.student_loss.low < 2.171606 < prediction.student_loss.value + 1e-6
    assert prediction.warnings == ()
    assert next(name for name, _ in prediction.rows()) == "student loss"


def test_the_band_of_a_predicted_teacher_is_wider_than_that_of_a_measured_one(law: Law) -> None:
    loss = float(law.supervised.predict(7e9, 1.4e11))
    measured, predicted = predict(law, 1e9, 1e11, loss), predict(law, 1e9, 1e11, None, 7e9, 1.4e11)
    assert measured.student_loss is not None
    assert predicted.student_loss is not None
    assert measured.student_loss.value == pytest.approx(predicted.student_loss.value)
    assert predicted.teacher_loss is not None
    assert predicted.teacher_loss.low is not None


def test_every_fault_is_told_at_once(law: Law) -> None:
    with pytest.raises(InputError) as caught:
        predict(law, -1.0, math.inf, teacher_loss=math.nan, teacher_params=0.0)
    assert len(caught.value.faults) == 5


def test_half_a_teacher_is_refused(law: Law) -> None:
    with pytest.raises(InputError, match="belong together"):
        predict(law, 1e9, 1e10, teacher_tokens=1e11)
