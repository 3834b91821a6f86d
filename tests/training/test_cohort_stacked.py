"""Members that step in one pass learn what they learn in turn, but for the order of sums; else the reason is said."""

import json

import pytest
import torch

import tiny_cohort
from tiny_text import shared_tiny_text
from toy import ToySampler
from tutelage.errors import DivergedError
from tutelage.objectives.objective import Objective
from tutelage.objectives.terms import Term
from tutelage.students.cohort import share_weights
from tutelage.students.design import Lora
from tutelage.students.lora import add_lora
from tutelage.tasks.text.batch import TextBatch
from tutelage.tasks.text.forward import read
from tutelage.teachers.live import LiveTeacher
from tutelage.training.checkpoint import find_checkpoint
from tutelage.training.cohort import Cohort, train_cohort
from tutelage.training.cohort_member import Member
from tutelage.training.cohort_stacked import choose_stepping
from tutelage.training.device import open_accelerator
from tutelage.training.loop import Keeping, Stream, Watch
from tutelage.training.step import Lesson

pytestmark = pytest.mark.usefixtures("no_fsync")
LOSSES = 1e-5  # relative; float32, and the kernels sum wider batches in another order
GRADIENTS = 2e-6  # relative, by norm, of every adapter and projector; likewise
WEIGHTS = 1e-3  # absolute after five steps, of 1e-2 a step; Adam magnifies the last digits of small gradients
NEVER = 10**9  # the first step is measured, and so taken in turn, whatever this is


def speech(count=3, **changes):
    """Ranks 2, 4 and 2; the second has its own schedule, the third learns from transcripts alone."""
    base = tiny_cohort.load()
    own = ({}, {"rank": 4, "targets": ("q_proj", "v_proj", "fc1")}, {"terms": tiny_cohort.PLAIN, "first_block": 2})
    schedules = {}, {"learning_rate": 0.003, "clip_norm": 0.1}, {}
    return tuple(
        Member(
            "abc"[place],
            tiny_cohort.lesson(share_weights(base), place + 3, dropout=0.0, **own[place]),
            tiny_cohort.settings(**schedules[place], **changes),
            place + 3,
        )
        for place in range(count)
    )


def make_text(indices):
    """Two pieces a row, of lengths that differ; positions attend within theirs."""
    ids = torch.stack([torch.randint(300, (10,), generator=torch.Generator().manual_seed(i)) for i in indices])
    pieces, keep = torch.ones(len(indices), 9, dtype=torch.long), torch.ones(len(indices), 9, dtype=torch.bool)
    for row, index in enumerate(indices):
        pieces[row, 3 + index % 4 :] = 2
        keep[row, 7 + index % 3 :] = False
    names = tuple(map(str, indices))
    return TextBatch(names, names, ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), keep, pieces, True)


def text(passes):
    """Two language models of ranks 2 and 3, adapted from block 1 and 2 on, and their teacher."""
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(shared_tiny_text("llama"))
    teacher = LiveTeacher(AutoModelForCausalLM.from_pretrained(shared_tiny_text("llama", seed=5)), (), read)
    objectives = Objective((Term("cross_entropy"), Term("kl", 0.5, temperature=2.0))), Objective((Term("kl"),))
    found = []
    for place, objective in enumerate(objectives):
        lora = Lora(rank=place + 2, targets=("q_proj", "up_proj"), first_block=place + 1)
        student = add_lora(share_weights(base), lora, lora.rank, place)

        def forward(batch, student=student, place=place):
            passes.append((place, len(batch.ids)))
            return read(student, batch)

        lesson = Lesson(student, {}, objective, forward, teacher.signal)
        found.append(Member("ab"[place], lesson, tiny_cohort.settings(), place))
    return tuple(found), teacher.signal


def learn(folder, members, batches, step, *, teacher=None, resume=False, share_prefix=True, **watching):
    """Train; every step but the first is taken as `step` says."""
    cohort = Cohort(members, teacher or tiny_cohort.teacher().signal, 0, share_prefix, step)
    keeping = Keeping(folder, {"steps": 5}, resume)
    stream = Stream(ToySampler(members[0].settings.batch_size), batches)
    return train_cohort(cohort, stream, keeping, open_accelerator("cpu"), Watch(measure_every=NEVER, **watching))


def logs_of(folder):
    return {
        path.parent.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(folder.glob("members/*/log.jsonl"))
    }


def assert_alike(one, other, first, second):
    """The same losses term by term, gradient norms and weights, to the tolerances above."""
    for mine, expected in zip(first, second, strict=True):
        weights = tiny_cohort.weights(expected)
        for name, value in tiny_cohort.weights(mine).items():
            assert torch.allclose(value, weights[name], rtol=0, atol=WEIGHTS), name
    logs, expected_logs = logs_of(one), logs_of(other)
    assert logs.keys() == expected_logs.keys()
    for name, lines in logs.items():
        for line, expected in zip(lines, expected_logs[name], strict=True):
            assert line["terms"] == pytest.approx(expected["terms"], rel=LOSSES)
            for key in ("total", "gradient_norm", "learning_rate", "positions"):
                assert line[key] == pytest.approx(expected[key], rel=LOSSES), (name, key)


@pytest.mark.parametrize(("accumulate", "share_prefix"), [(1, True), (1, False), (2, True)])
def test_stacked_speech_members_learn_what_they_learn_in_turn(tmp_path, clips, accumulate, share_prefix):
    changes = {"accumulate": accumulate, "batch_size": 4 // accumulate}
    ends = {}
    for step in ("stacked", "in_turn"):
        ends[step] = speech(**changes)
        found = learn(tmp_path / step, ends[step], clips, step, share_prefix=share_prefix)
        assert (found.stepping.used, found.shared_blocks) == (step, share_prefix)
    assert_alike(tmp_path / "stacked", tmp_path / "in_turn", *ends.values())


def test_stacked_text_members_learn_what_they_learn_in_turn(tmp_path):
    ends, passes = {}, {"stacked": [], "in_turn": []}
    for step in passes:
        ends[step], teacher = text(passes[step])
        learn(tmp_path / step, ends[step], make_text, step, teacher=teacher)
    assert_alike(tmp_path / "stacked", tmp_path / "in_turn", *ends.values())
    shared, one, other, both = (0, 4), (0, 4), (1, 4), (0, 8)  # who, and of how many rows
    assert passes["stacked"] == [shared, one, other, *[shared, both] * 4]
    assert passes["in_turn"] == [shared, one, other] * 5


def test_every_members_gradient_is_its_own(tmp_path, clips):
    """The first step is in turn, to the bit, so the second is from equal weights; its gradients are still there."""
    ends = {}
    for step in ("stacked", "in_turn"):
        ends[step] = speech(steps=2)
        learn(tmp_path / step, ends[step], clips, step)
    for mine, expected in zip(*ends.values(), strict=True):
        for name, value in mine.lesson.trainable().items():
            gradient = expected.lesson.trainable()[name].grad
            assert gradient.norm() > 0
            assert (value.grad - gradient).norm() <= GRADIENTS * gradient.norm(), name


def spoil(member, at):
    """Its loss is not a number at its `at`-th evaluation."""
    evaluations, evaluate = [], member.lesson.objective.evaluate

    def spoiled(student, *rest):
        evaluations.append(1)
        return evaluate(student.map(lambda v: v * float("nan")) if len(evaluations) == at else student, *rest)

    member.lesson.objective.evaluate = spoiled


def test_a_member_that_diverges_is_stopped_and_harms_nobody(tmp_path, clips):
    together, apart, talk, notes = speech(), speech(), [], []
    spoil(together[0], 3)  # the one whose modules are run
    found = learn(tmp_path / "one", together, clips, "stacked", talk=talk.append)
    assert found.finished == ("b", "c")
    assert found.members["a"].stopped.step == 3
    assert talk[0].startswith("member a is stopped, the others go on. Step 3: the loss is not finite")
    learn(tmp_path / "two", apart, clips, "stacked", talk=notes.append)
    assert notes == []
    for mine, expected in list(zip(together, apart, strict=True))[1:]:
        for name, value in tiny_cohort.weights(mine).items():
            assert torch.allclose(value, tiny_cohort.weights(expected)[name], rtol=0, atol=WEIGHTS), name
    assert all(torch.isfinite(value).all() for value in tiny_cohort.weights(together[0]).values())


def test_a_cohort_without_members_left_fails(tmp_path, clips):
    members = speech()
    for member in members:
        spoil(member, 2)
    with pytest.raises(DivergedError, match=r"No member of the cohort is left\.\na: Step 2: the loss is not finite"):
        learn(tmp_path, members, clips, "stacked")


class KilledError(Exception):
    """Stands for a kill inside this process."""


def test_a_kill_and_a_resume_give_the_same_bytes(tmp_path, clips):
    def kill(report):
        if report.step == 4:
            raise KilledError

    learn(tmp_path / "one", speech(), clips, "stacked")
    with pytest.raises(KilledError):
        learn(tmp_path / "two", speech(), clips, "stacked", on_step=kill)
    learn(tmp_path / "two", speech(), clips, "stacked", resume=True)
    assert logs_of(tmp_path / "one") == logs_of(tmp_path / "two")
    first, second = (find_checkpoint(tmp_path / name / "checkpoints") for name in ("one", "two"))
    assert first.name == second.name
    for file in first.glob("*.safetensors"):
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


def test_what_cannot_be_stacked_is_taken_in_turn_and_the_reasons_are_told(tmp_path, clips):
    members, talk = tiny_cohort.members(4, times=[[1] * 14, [2] * 14, None, None]), []
    found = learn(tmp_path, members, clips, "stacked", talk=talk.append)
    assert found.stepping.used == "in_turn"
    assert found.stepping.why == (
        "Adapters cannot be stacked: a drops units at random, from generators of its own; b does not take every sample "
        "once; b drops units at random, from generators of its own; c drops units at random, from generators of its "
        "own; d has DoRA, whose update is no product of two matrices."
    )
    assert talk == [f"members take their steps in turn. {found.stepping.why}"]


@pytest.mark.parametrize(
    ("asked", "device", "used", "why"),
    [
        ("auto", "cpu", "in_turn", "On a CPU"),
        ("auto", "cuda", "stacked", "The device is a GPU."),
        ("in_turn", "cuda", "in_turn", "The recipe says so."),
        ("stacked", "cpu", "stacked", "The recipe says so."),
    ],
)
def test_the_device_decides_unless_the_recipe_does(asked, device, used, why):
    found = choose_stepping(speech(), asked, device)
    assert found.used == used
    assert found.why.startswith(why)


def test_one_member_and_recomputed_activations_are_not_stacked():
    assert choose_stepping(speech(1), "stacked", "cpu").why == "Adapters cannot be stacked: there is one member."
    recomputed = speech(gradient_checkpointing=True)
    assert "activations are recomputed" in choose_stepping(recomputed, "stacked", "cpu").why


def test_states_must_be_those_of_one_member():
    one, other, _ = speech()
    terms = tuple(other.lesson.objective.terms.values())
    object.__setattr__(one.lesson, "objective", Objective(terms, tiny_cohort.PAIRS[:1]))
    object.__setattr__(other.lesson, "objective", Objective(terms, tiny_cohort.PAIRS[1:]))
    assert "the states that all others compare" in choose_stepping((one, other), "stacked", "cpu").why
