"""Teachers as one model: what a committee teaches is what is judged, with the key-value cache and without."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tiny import tiny_whisper
from tutelage.models.load import DTYPES, load_speech_model
from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import Term
from tutelage.runs.speech.teachers import SideBySide, SpeechTeacher, hear, tell_encoders
from tutelage.tasks.speech.batch import SpeechBatch
from tutelage.tasks.speech.forward import decode
from tutelage.teachers.committee import RULES, SPACES, Committee
from tutelage.teachers.settings import MemberSettings, Teacher
from tutelage.teachers.translated import moved, translated

SAME = {"rtol": 1e-5, "atol": 1e-5}  # float32, the cache's order of sums
HALF = 0.05  # bfloat16 keeps 8 bits of logits that reach 3
POSITIONS, WIDTH, OTHER_WIDTH = 200, 32, 48


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The student; a teacher with its encoder; one that is wider, newer and has more mel bins."""
    folder = tmp_path_factory.mktemp("models")
    student = load_speech_model(tiny_whisper(folder / "student"))
    tuned = load_speech_model(tiny_whisper(folder / "tuned"))
    with torch.no_grad():
        tuned.model.model.decoder.layers[0].fc1.weight *= 1.5
    larger = tiny_whisper(folder / "larger", seed=1, d_model=OTHER_WIDTH, mel_bins=128, extra_languages=1)
    return student, tuned, load_speech_model(larger)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def listen(models, dtype="float32"):
    """Both teachers as they hear the student's batches."""
    student, tuned, larger = models
    teachers = tuple(
        SpeechTeacher(name, one, dataclasses.replace(one, model=one.model.to(DTYPES[dtype])))
        for name, one in (("tuned", tuned), ("larger", larger))
    )
    return hear(tell_encoders(teachers, student.model), student, committee=True)


def batch_of(student, seed=0):
    text = student.processor.tokenizer
    prompt = text.convert_tokens_to_ids(["<|startoftranscript|>", "<|es|>", "<|transcribe|>", "<|notimestamps|>"])
    inputs_BT = torch.tensor([[*prompt, 70, 71, 72], [*prompt, 80, 81, 82]])
    keep_BT = torch.ones_like(inputs_BT, dtype=torch.bool)
    encoder_BSH = drawn(2, POSITIONS, WIDTH + OTHER_WIDTH, seed=seed)
    return SpeechBatch(("a", "b"), encoder_BSH, inputs_BT, inputs_BT, keep_BT)


def settings(space=SPACES[0], weights="uniform", states_from=None):
    members = tuple(MemberSettings(name=name, model="m") for name in ("tuned", "larger"))
    return Teacher(members=members, space=space, weights=weights, states_from=states_from)


def kl(student, teacher):
    keep = torch.ones(student.shape[:2], dtype=torch.bool)
    found = Objective([Term("kl")]).evaluate(Signal(student, {}), teacher, keep.long(), keep, {})["kl"]
    return float(found.total)


def test_an_encoder_is_told_from_the_students_by_its_weights(models):
    hearing = listen(models)
    tuned, larger = hearing.teachers
    assert tuned.encoder is None
    assert larger.encoder is not None
    assert hearing.heard == {"tuned": slice(0, 32), "larger": slice(32, 80)}
    assert [line.split(":")[0] for line in hearing.differences()] == ["larger", "larger"]
    assert "an encoder of its own (128 mel bins, width 48; the student's 80 and 32)" in hearing.differences()[0]
    assert (
        "520 classes shared by token (the teacher scores 521, the student 520; 207 have an" in hearing.differences()[1]
    )
    assert hearing.to_dict()["larger"]["vocabulary"]["shared"] == 520
    alone = hear(tell_encoders(hearing.teachers[:1], models[0].model), models[0], committee=False)
    assert alone.heard == {"tuned": None}
    assert alone.shared == {"tuned": None}


def test_outputs_of_several_encoders_lie_side_by_side():
    parts = [{"a": drawn(3, 2).half()}, {"a": drawn(3, 4, seed=1)}]
    joined = SideBySide(parts)
    assert list(joined) == ["a"]
    assert len(joined) == 1
    assert torch.equal(joined["a"][:, :2], parts[0]["a"].float())
    assert torch.equal(joined["a"][:, 2:], parts[1]["a"])


def test_each_teacher_hears_its_part_and_is_asked_in_its_own_ids(models):
    student, _, larger = models
    hearing, batch = listen(models), batch_of(models[0])
    found = hearing.live(hearing.teachers[1], (4,)).signal(batch)
    theirs = larger.processor.tokenizer.convert_tokens_to_ids
    asked = torch.tensor(
        [
            [theirs(student.processor.tokenizer.convert_ids_to_tokens(int(i))) for i in row]
            for row in batch.decoder_input_ids_BT
        ]
    )
    assert not torch.equal(asked, batch.decoder_input_ids_BT)
    own = dataclasses.replace(batch, decoder_input_ids_BT=asked, encoder_BSH=batch.encoder_BSH[..., 32:])
    expected = decode(larger.model, own, (4,))
    ja = theirs("<|ja|>")
    kept = [index for index in range(521) if index != ja]
    assert torch.allclose(found.logits_BTV, expected.logits_BTV[..., kept], **SAME)
    assert torch.allclose(found.states[4], expected.states[4], **SAME)
    assert found.classes.tolist() == list(range(520))
    near = hearing.live(hearing.teachers[0], ()).signal(batch)
    assert torch.allclose(
        near.logits_BTV,
        decode(models[1].model, dataclasses.replace(batch, encoder_BSH=batch.encoder_BSH[..., :32])).logits_BTV,
        **SAME,
    )


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("weights", RULES)
def test_what_is_judged_is_what_is_taught(models, space, weights):
    hearing, batch = listen(models), batch_of(models[0])
    taught = hearing.teach(settings(space, weights), Objective([Term("kl")]))
    assert isinstance(taught, Committee)
    judged = hearing.committee(settings(space, weights))
    logits = decode(judged.model, batch).logits_BTV
    signal = taught.signal(batch)
    assert signal.classes.tolist() == list(range(520))
    assert torch.allclose(logits.log_softmax(-1), signal.logits_BTV.log_softmax(-1), **SAME)
    assert abs(kl(logits, signal)) < 1e-4
    assert kl(decode(hearing.judged(hearing.teachers[0]).model, batch).logits_BTV, signal) > 1e-2
    assert not judged.model.training
    assert judged.model.config.vocab_size == 520


def test_every_encoder_has_a_place_of_its_own(models, tmp_path):
    student, _, larger = models
    third = load_speech_model(tiny_whisper(tmp_path / "third", seed=3))
    named = (("third", third), ("larger", larger), ("again", larger), ("student", student))
    teachers = tell_encoders([SpeechTeacher(name, one, one) for name, one in named], student.model)
    heard = hear(teachers, student, committee=True).heard
    places = {"third": (32, 64), "larger": (64, 112), "again": (64, 112), "student": (0, 32)}
    assert {name: (part.start, part.stop) for name, part in heard.items()} == places


def test_given_weights_count(models):
    hearing, batch = listen(models), batch_of(models[0])
    members = tuple(
        MemberSettings(name=name, model="m", weight=weight) for name, weight in (("tuned", 1e6), ("larger", 1.0))
    )
    lopsided = Teacher(members=members)
    near = decode(hearing.judged(hearing.teachers[0]).model, batch).logits_BTV.log_softmax(-1)
    assert torch.allclose(decode(hearing.committee(lopsided).model, batch).logits_BTV, near, atol=1e-3)
    signal = hearing.teach(lopsided, Objective([Term("kl")])).signal(batch)
    assert torch.allclose(signal.logits_BTV, near, atol=1e-3)


def test_the_cache_of_keys_and_values_changes_nothing(models):
    hearing, batch = listen(models), batch_of(models[0])
    model = hearing.committee(settings()).model
    whole = decode(model, batch).logits_BTV
    from transformers.modeling_outputs import BaseModelOutput

    memory, parts = None, []
    for step in range(batch.decoder_input_ids_BT.shape[1]):
        found = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=batch.encoder_BSH),
            decoder_input_ids=batch.decoder_input_ids_BT[:, step : step + 1],
            past_key_values=memory,
            use_cache=True,
            return_dict=True,
        )
        memory = found.past_key_values
        parts.append(found.logits)
    assert torch.allclose(torch.cat(parts, 1), whole, **SAME)


def test_a_teacher_without_differences_is_judged_as_itself(models):
    student, tuned, _ = models
    teachers = tell_encoders((SpeechTeacher("teacher", tuned, tuned),), student.model)
    hearing = hear(teachers, student, committee=False)
    assert hearing.judged(hearing.teachers[0]) is tuned
    assert hearing.alone("teacher", tuned) is tuned
    alone = listen(models).alone("larger", models[2])
    assert alone.model.get_encoder() is models[2].model.get_encoder()
    assert alone.model.generation_config is student.model.generation_config


def test_states_are_the_named_members_and_tokens_are_checked(models):
    hearing, batch = listen(models), batch_of(models[0])
    objective = Objective([Term("kl")])
    assert hearing.teach(settings(states_from="larger"), objective).signal(batch).states == {}
    checks = hearing.checks({1, 2, 3})
    assert all(check.passed for check in checks)
    ja = models[2].processor.tokenizer.convert_tokens_to_ids("<|ja|>")
    swapped = hear(
        tell_encoders((SpeechTeacher("teacher", models[0], models[0]),), models[2].model), models[2], committee=False
    )
    failed = [check for check in swapped.checks({1, ja}) if not check.passed]
    assert [check.name for check in failed] == ["token ids that the tokenizers disagree on"]
    assert "'<|ja|>' to the student and None to the teacher" in failed[0].detail


def test_a_teacher_in_half_precision_answers_nearly_the_same_and_shares_the_encoder(models, tmp_path):
    student = models[0]
    folder = tiny_whisper(tmp_path / "half")
    exact, half = load_speech_model(folder), load_speech_model(folder, dtype="bfloat16")
    teachers = tell_encoders((SpeechTeacher("teacher", half, half),), student.model)
    assert teachers[0].encoder is None  # the same encoder, cast
    batch = dataclasses.replace(batch_of(student), encoder_BSH=drawn(2, POSITIONS, WIDTH))
    found = hear(teachers, student, committee=False).live(teachers[0], (1,)).signal(batch)
    expected = decode(exact.model, batch)
    assert found.logits_BTV.dtype == torch.bfloat16
    difference = float((found.logits_BTV.detach().float() - expected.logits_BTV.detach()).abs().max())
    assert 0 < difference < HALF * float(expected.logits_BTV.detach().abs().max())
    assert next(student.model.parameters()).dtype == torch.float32


def test_an_answer_comes_home():
    """A meta device stands for another: what is moved is what the student's side reads."""
    head = Head.of(torch.nn.Linear(4, 5, device="meta"), 5)
    away = Signal(
        DeferredLogits(torch.zeros(1, 2, 4, device="meta"), head),
        {1: torch.zeros(1, 2, 4, device="meta")},
        torch.arange(5, device="meta"),
    )
    assert away.device.type == "meta"
    assert moved(away, torch.device("meta")) is away
    near = Signal(torch.zeros(1, 2, 5), {1: torch.zeros(1, 2, 4)}, torch.arange(5))
    there = moved(near, torch.device("meta"))
    assert {there.device.type, there.states[1].device.type, there.classes.device.type} == {"meta"}
    asked = []

    @dataclasses.dataclass(frozen=True)
    class Batch:
        labels_BT: torch.Tensor

        def to(self, device):
            asked.append(device)
            return self

    run = translated(lambda model, batch, layers: near, None, "input_ids_BT")
    answer = run(torch.nn.Linear(2, 2), Batch(torch.zeros(1, 2, device="meta")), ())
    assert asked == [torch.device("cpu")]
    assert answer.device.type == "meta"
