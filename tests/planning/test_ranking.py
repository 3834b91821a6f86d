"""Which of the given teachers: order, distance, probability, and whether a stronger one would hurt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tutelage.laws.law import Law
from tutelage.planning.plan import plan
from tutelage.planning.question import Question
from tutelage.planning.scenarios import Teacher

SEVEN, WEAK, STRONG = Teacher("7B", 7.7e9, 2.02), Teacher("weak", 1e9, 2.3), Teacher("strong", 7e10, 1.5)


def test_the_distance_to_the_best_has_the_interval_of_the_difference(fitted: Law) -> None:
    answer = plan(Question(1e9, tokens=2.5e11, teachers=(WEAK, STRONG, SEVEN)), fitted)
    first, second, third = answer.teachers
    assert [entry.teacher for entry in answer.teachers] == [SEVEN, STRONG, WEAK]
    assert first.behind is None
    ensemble: Any = fitted.ensemble()
    losses = {teacher.name: ensemble.predict(1e9, 2.5e11, teacher.loss).ravel() for teacher in (SEVEN, STRONG, WEAK)}
    difference = losses["strong"] - losses["7B"]
    assert second.behind is not None
    assert (second.behind.low, second.behind.high) == pytest.approx(tuple(np.quantile(difference, [0.05, 0.95])))
    # Of two losses under one draw the difference is known far better than either loss.
    assert second.student_loss is not None
    assert second.student_loss.low is not None
    chances = [entry.probability for entry in answer.teachers]
    stacked = np.stack([losses[entry.teacher.name] for entry in answer.teachers])
    assert chances == pytest.approx([np.mean(np.argmin(stacked, axis=0) == place) for place in range(3)])
    assert sum(chance for chance in chances if chance is not None) == pytest.approx(1.0)
    assert third.lost is not None
    assert third.lost.low is not None


def test_a_stronger_teacher_that_hurts_is_told_with_its_cost(law: Law, fitted: Law) -> None:
    answer = plan(Question(1e9, tokens=2.5e11, teachers=(STRONG, SEVEN)), fitted)
    strong = answer.teachers[1]
    assert strong.side == "too strong"
    assert strong.lost is not None
    best, reached = law.require_distillation().best_teacher_loss(1e9, 2.5e11)
    assert strong.lost.value == pytest.approx(
        float(law.require_distillation().predict(1e9, 2.5e11, 1.5)) - float(reached)
    )
    assert strong.best_teacher_loss is not None
    assert strong.best_teacher_loss.value == pytest.approx(float(best))
    assert strong.best_teacher_loss.low is not None
    assert strong.best_teacher_loss.high is not None
    assert strong.best_teacher_loss.low < best < strong.best_teacher_loss.high
    text = answer.teachers_text
    assert text.startswith("7B serves best (in ")
    assert "strong is stronger and serves worse: it is too strong (the best teacher's loss is 1.991)" in text
    assert f"costs the student {strong.lost.value:.4f} nats" in text
    document: Any = answer.to_dict()
    assert document["teachers_text"] == text
    assert document["teachers"][1]["behind"]["method"] == "bootstrap, 1000 draws"


def test_a_stronger_teacher_may_lose_by_its_price(law: Law) -> None:
    # On 1e20 FLOPs the larger teacher's logits leave a tenth of the tokens; it is not too strong for them.
    dear = Teacher("dear", 7e10, 2.0)
    answer = plan(Question(1e9, compute=1e21, teachers=(dear, SEVEN)), law)
    assert [entry.teacher.name for entry in answer.teachers] == ["7B", "dear"]
    assert answer.teachers[1].side == "too weak"
    assert "not because it is too strong, but because its logits leave fewer tokens" in answer.teachers_text


def test_for_a_target_the_distance_is_compute(fitted: Law) -> None:
    answer = plan(Question(1e9, target_loss=2.2, teachers=(SEVEN, WEAK, Teacher("other", 7.7e9, 2.1))), fitted)
    first, second, last = answer.teachers
    assert last.teacher is WEAK
    assert last.student_loss is last.behind is last.probability is None
    assert first.compute is not None
    assert second.compute is not None
    assert second.behind is not None
    assert second.behind.value == pytest.approx(second.compute.value - first.compute.value)
    assert second.behind.low is not None
    assert first.probability is not None
    assert second.probability == pytest.approx(1.0 - first.probability)
    assert "FLOPs more" in answer.teachers_text


def test_a_single_teacher_and_none(law: Law) -> None:
    alone = plan(Question(1e9, compute=1e21, teachers=(SEVEN,)), law)
    assert alone.teachers_text.startswith("7B is the only one that serves this question.")
    assert alone.teachers[0].probability is None
    assert plan(Question(1e9, compute=1e21), law).teachers_text == ""
    unable = plan(Question(1e9, target_loss=2.0, teachers=(SEVEN,)), law)
    assert unable.teachers_text == "None of the given teachers can serve this question."


def test_what_a_stronger_teacher_loses_by_its_price_is_not_laid_on_the_gap(law: Law) -> None:
    teachers = (Teacher("7B", 7e9, 2.02), Teacher("13B", 13e9, 1.93))
    answer = plan(Question(1e9, compute=2.85e21, teachers=teachers), law)
    strong = answer.teachers[1]
    assert (strong.teacher.name, strong.side) == ("13B", "too strong")
    assert strong.lost is not None
    assert strong.behind is not None
    assert strong.lost.value < 0.5 * strong.behind.value
    assert "serves worse: mostly because its logits leave fewer tokens" in answer.teachers_text
