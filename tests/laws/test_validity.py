"""Cautions for inputs outside the fitted range."""

from __future__ import annotations

from tutelage.laws.published import PUBLISHED
from tutelage.laws.validity import cautions, cautions_among, modality_caution

LAW = PUBLISHED["busbridge2025"]


def test_inputs_inside_the_range_get_none() -> None:
    inside = {"student_params": 1e9, "student_tokens": 2.5e11, "teacher_loss": 2.0, "loss_ratio": 0.9}
    assert cautions(LAW, inside) == ()
    assert cautions(LAW, {name: ends[0] for name, ends in LAW.fitted.items()}) == ()
    assert cautions(LAW, {name: ends[1] for name, ends in LAW.fitted.items()}) == ()


def test_a_caution_names_the_input_its_value_and_the_range() -> None:
    (caution,) = cautions(LAW, {"student_params": 1e9, "student_tokens": 0.15e9, "teacher_loss": None})
    assert caution.code == "outside-fitted-range"
    assert caution.input == "student_tokens"
    assert caution.value == 0.15e9
    assert caution.range == (4e9, 512e9)
    assert "150M" in caution.text
    assert "4B to 512B" in caution.text


def test_the_sizes_of_a_small_speech_run_are_outside() -> None:
    found = cautions(LAW, {"student_params": 5e7, "student_tokens": 1e5})
    assert [caution.input for caution in found] == ["student_params", "student_tokens"]


def test_the_absurd_extrapolation_is_warned_of() -> None:
    ratio = 1.43 / float(LAW.supervised.predict(1e10, 0.15e9))
    inputs = {"student_params": 1e10, "student_tokens": 0.15e9, "teacher_loss": 1.43, "loss_ratio": ratio}
    assert [caution.input for caution in cautions(LAW, inputs)] == ["student_tokens", "teacher_loss", "loss_ratio"]


def test_several_values_of_an_input_share_one_caution() -> None:
    (caution,) = cautions_among(LAW, {"student_tokens": {"best": 1e12, "both": 5e11, "inference": 8e12}})
    assert caution.value == 8e12
    assert "1T (best), 8T (inference)" in caution.text
    assert "both" not in caution.text


def test_a_law_does_not_apply_to_another_modality() -> None:
    assert modality_caution(LAW, "text") is None
    caution = modality_caution(LAW, "speech")
    assert caution is not None
    assert caution.code == "other-modality"
    assert "does not apply to speech" in caution.text


def test_a_law_without_a_range_says_nothing() -> None:
    assert cautions(PUBLISHED["hoffmann2022"], {"teacher_loss": 9.0}) == ()
