from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tiny import shared_tiny_whisper
from tutelage.models.load import load_speech_model
from tutelage.objectives.objective import Objective
from tutelage.objectives.terms import Term
from tutelage.students.design import Design, Lora, Projector
from tutelage.students.export import merged_model
from tutelage.students.feedback import NAME, add_feedback, count_feedback_params, fold_feedback
from tutelage.students.lora import add_lora
from tutelage.training.step import Lesson

SAME = 2e-6  # float32 sums in another order, of the largest logit
TEACHER_WIDTH = 48


def tiny() -> Any:
    return load_speech_model(shared_tiny_whisper()).model


@pytest.fixture
def student() -> Any:
    return add_lora(tiny(), Lora(rank=2, targets=("k_proj", "v_proj", "q_proj")), 2, seed=1)


@pytest.fixture
def projector(student: Any) -> nn.Linear:
    return nn.Linear(student.config.d_model, TEACHER_WIDTH)


def answer(model: Any) -> torch.Tensor:
    config = model.config
    generator = torch.Generator().manual_seed(3)
    heard = torch.randn(2, config.max_source_positions, config.d_model, generator=generator)
    with torch.no_grad():
        logits: torch.Tensor = model(
            encoder_outputs=(heard,), decoder_input_ids=torch.tensor([[1, 5, 9], [1, 7, 3]]), use_cache=False
        ).logits
    return logits


def shake(model: Any) -> None:
    """Every trained weight at something else, as after training."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


def test_the_student_starts_as_it_was(student: Any, projector: nn.Linear) -> None:
    before = answer(student.eval())
    add_feedback(student, projector)
    assert torch.equal(answer(student.eval()), before)


def test_it_is_counted_and_trained_with_the_projector_as_one(student: Any, projector: nn.Linear) -> None:
    trained = {id(parameter) for parameter in student.parameters() if parameter.requires_grad}
    add_feedback(student, projector)
    more = [parameter for parameter in student.parameters() if parameter.requires_grad and id(parameter) not in trained]
    assert any(parameter is projector.weight for parameter in more)
    q_params = sum(parameter.numel() for parameter in more) - sum(p.numel() for p in projector.parameters())
    assert q_params == count_feedback_params(student.config.d_model, TEACHER_WIDTH)


def test_it_is_trained_once_though_it_is_a_projector_too(student: Any, projector: nn.Linear) -> None:
    add_feedback(student, projector)
    lesson = Lesson(student, {"encoder-2-4": projector}, Objective([Term("cross_entropy")], []), lambda batch: batch)
    trained = list(map(id, lesson.trainable().values()))
    assert len(trained) == len(set(trained))
    assert id(projector.weight) in trained


def test_the_decoder_hears_it(student: Any, projector: nn.Linear) -> None:
    add_feedback(student, projector)
    shake(student)
    with_it = answer(student.eval())
    delattr(student.get_base_model().model.decoder, NAME)
    without = answer(student.eval())
    assert (with_it - without).abs().max() > 100 * SAME * without.abs().max()


def test_folded_it_is_an_ordinary_model_that_says_the_same(student: Any, projector: nn.Linear) -> None:
    add_feedback(student, projector)
    shake(student)
    trained = answer(student.eval())
    plain = merged_model(student)
    assert (answer(plain) - trained).abs().max() < SAME * trained.abs().max()
    assert plain.state_dict().keys() == tiny().state_dict().keys()
    assert torch.equal(answer(student.eval()), trained)  # the student itself is as it was


def test_there_is_nothing_to_fold_in_a_plain_model() -> None:
    plain = tiny()
    before = answer(plain)
    fold_feedback(plain)
    assert torch.equal(answer(plain), before)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"align": "encoder"},
        {"projector": Projector("linear")},
        {"align": "both", "projector": Projector("mlp")},
    ],
)
def test_what_cannot_be_fed_back_is_refused(settings: dict[str, Any]) -> None:
    settings = {"projector": Projector("bottleneck"), **settings}
    with pytest.raises(ValueError, match="set align to encoder or both and projector"):
        Design(feedback=True, **settings)


def test_a_frozen_encoder_may_be_aligned_where_it_is_fed_back() -> None:
    Design(feedback=True, align="encoder")
    with pytest.raises(ValueError, match="or feedback to true"):
        Design(align="encoder")
