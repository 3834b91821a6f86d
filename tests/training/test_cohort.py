"""A member of a cohort has the weights of the same student trained alone; a killed cohort resumes to the same bytes."""

import json
import os
import random
import signal

import pytest
import torch

import tiny_cohort
from toy import ToySampler
from tutelage.errors import DivergedError, InputError, InterruptedRunError
from tutelage.students.cohort import share_weights
from tutelage.training.checkpoint import find_checkpoint
from tutelage.training.cohort import Cohort, train_cohort
from tutelage.training.cohort_member import Member
from tutelage.training.device import open_accelerator
from tutelage.training.loop import Keeping, Stream, Watch, train

pytestmark = pytest.mark.usefixtures("no_fsync")
NAMES = ("a", "b", "c", "d")
SAMPLES = 14  # of the sampler


class KilledError(Exception):
    """Stands for a kill inside this process: nothing is saved on the way out."""


def learn(folder, cohort, clips, resume=False, watch=None):
    return train_cohort(
        cohort, Stream(ToySampler(4), clips), Keeping(folder, {"steps": 5}, resume), open_accelerator("cpu"), watch
    )


def learn_alone(folder, member, clips):
    keeping = Keeping(folder, {"steps": 5})
    train(member.lesson, Stream(ToySampler(4), clips), member.settings, keeping, open_accelerator("cpu"), member.seed)


def kill_at(step):
    def on_step(report):
        if report.step == step:
            raise KilledError

    return Watch(on_step=on_step)


def assert_same_end(one, other):
    """The same logs, weights, moments and random states, byte for byte."""
    logs = sorted(path.relative_to(one) for path in one.glob("members/*/log.jsonl"))
    assert logs
    for log in logs:
        assert (one / log).read_bytes() == (other / log).read_bytes()
    first, second = find_checkpoint(one / "checkpoints"), find_checkpoint(other / "checkpoints")
    assert first.name == second.name
    for file in first.glob("*.safetensors"):
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


@pytest.mark.parametrize("share_prefix", [True, False])
def test_a_member_has_the_weights_of_the_same_student_alone_to_the_bit(tmp_path, clips, share_prefix):
    together = tiny_cohort.cohort(share_prefix=share_prefix)
    found = learn(tmp_path / "cohort", together, clips)
    assert found.shared_blocks == share_prefix
    assert found.finished == NAMES
    apart = tiny_cohort.members()
    for member, alone in zip(together.members, apart, strict=True):
        before = tiny_cohort.weights(alone)
        learn_alone(tmp_path / alone.name, alone, clips)
        mine, expected = tiny_cohort.weights(member), tiny_cohort.weights(alone)
        assert mine.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(mine[name], value), name
        assert any(not torch.equal(before[name], value) for name, value in expected.items())
        log = tmp_path / "cohort" / "members" / alone.name / "log.jsonl"
        assert log.read_bytes() == (tmp_path / alone.name / "log.jsonl").read_bytes()


def test_members_differ_and_leave_the_backbone_alone(tmp_path, clips):
    together = tiny_cohort.cohort()
    frozen = {
        name: value.clone()
        for name, value in together.members[0].lesson.student.named_parameters()
        if not value.requires_grad
    }
    learn(tmp_path, together, clips)
    for member in together.members:
        named = dict(member.lesson.student.named_parameters())
        shared = [name for name in frozen if name in named]
        assert len(shared) > 40
        assert all(torch.equal(frozen[name], named[name]) for name in shared)
    a, b, *_ = (tiny_cohort.weights(member) for member in together.members)
    assert not any(a[name].shape == b[name].shape and torch.equal(a[name], b[name]) for name in a if "lora" in name)


def test_the_teacher_is_asked_once_a_batch(tmp_path, clips):
    asked = []
    teacher = tiny_cohort.teacher()

    def signal(batch):
        asked.append(len(batch.keep_BT))
        return teacher.signal(batch)

    learn(tmp_path, Cohort(tiny_cohort.members(), signal), clips)
    assert asked == [4] * 5


def test_a_teacher_that_no_member_asks_is_left_alone(tmp_path, clips):
    def signal(batch):
        raise AssertionError

    (member,) = tiny_cohort.members(3)[2:]  # learns from transcripts alone
    learn(tmp_path, Cohort((member,), signal), clips)


def test_what_a_batch_draws_goes_on_from_batch_to_batch_whatever_members_draw(tmp_path, clips):
    drawn = []

    def draw(indices):
        drawn.append(float(torch.rand(())))
        return clips(indices)

    learn(tmp_path / "two", tiny_cohort.cohort(2), draw)
    learn(tmp_path / "one", tiny_cohort.cohort(1), draw)
    assert len(set(drawn[:5])) == 5
    assert drawn[5:] == drawn[:5]


def test_micro_batches_are_one_step(tmp_path, clips):
    """Two micro-batches with a portion of each have the scalar of one batch of both; only kernels' sums differ."""
    times = [[1 + index % 2 for index in range(SAMPLES)]]
    changes = ({"batch_size": 4, "accumulate": 1},), ({"batch_size": 2, "accumulate": 2},)
    ends = []
    for number, change in enumerate(changes):
        base = tiny_cohort.load()
        own = tiny_cohort.lesson(share_weights(base), 3, dropout=0.0)
        member = Member("a", own, tiny_cohort.settings(**change[0]), 3, times[0])
        stream = Stream(ToySampler(change[0]["batch_size"]), clips)
        keeping = Keeping(tmp_path / str(number), {})
        train_cohort(Cohort((member,), tiny_cohort.teacher().signal), stream, keeping, open_accelerator("cpu"))
        ends.append(tiny_cohort.weights(member))
    for name, value in ends[0].items():
        assert torch.allclose(value, ends[1][name], rtol=0, atol=2e-4), name  # Adam magnifies the last digits


def test_a_sample_of_weight_two_counts_twice_and_one_of_weight_none_not_at_all(tmp_path, clips):
    """Whole-number weights are what they say: the batch with the rows repeated, given to a student alone."""
    times = [index % 3 for index in range(SAMPLES)]

    def member(times):
        own = tiny_cohort.lesson(tiny_cohort.load(), 3, dropout=0.0)  # masks are drawn for padding too
        return Member("a", own, tiny_cohort.settings(), 3, times)

    together = Cohort((member(times),), tiny_cohort.teacher().signal)
    found = learn(tmp_path / "cohort", together, clips)

    class Weighted(ToySampler):
        def next_batch(self):
            return [index for index in super().next_batch() for _ in range(times[index])]

    alone = member(None)
    keeping = Keeping(tmp_path / "alone", {})
    train(alone.lesson, Stream(Weighted(4), clips), alone.settings, keeping, open_accelerator("cpu"), alone.seed)
    expected = tiny_cohort.weights(alone)
    for name, value in tiny_cohort.weights(together.members[0]).items():
        # The padding of the whole batch may be wider, which changes how kernels sum; Adam magnifies the last digits.
        assert torch.allclose(value, expected[name], rtol=0, atol=2e-4), name
    lines = [json.loads(line) for line in (tmp_path / "alone" / "log.jsonl").read_text().splitlines()]
    assert found.members["a"].tokens == sum(line["positions"] for line in lines)


def test_a_step_without_a_sample_is_left_out(tmp_path, clips):
    times = [[0] * SAMPLES, None]
    drawn = ToySampler(4).next_batch()
    for index in drawn:
        times[0][index] = 1  # the first step alone
    together = Cohort(tiny_cohort.members(2, times=times), tiny_cohort.teacher().signal)
    found = learn(tmp_path, together, clips)
    report = json.loads((tmp_path / "members/a/log.jsonl").read_text().splitlines()[0])
    assert report["step"] == 1
    assert found.members["b"].skipped == 0
    taken = [json.loads(line)["step"] for line in (tmp_path / "members/a/log.jsonl").read_text().splitlines()]
    assert found.members["a"].skipped == 5 - len(taken) > 0


def spoil(member, at):
    """The loss of `member` is not a number at its `at`-th pass."""
    passes = []
    forward = member.lesson.student_forward

    def spoiled(batch):
        passes.append(1)
        signal = forward(batch)
        return signal.map(lambda values: values * float("nan")) if len(passes) == at else signal

    object.__setattr__(member.lesson, "student_forward", spoiled)


def test_a_member_that_diverges_is_stopped_and_the_others_go_on(tmp_path, clips):
    together = tiny_cohort.cohort(share_prefix=False)
    spoil(together.members[1], 3)
    talk, notes = [], []

    class Bar:
        def __enter__(self):
            return lambda _done, note="": notes.append(note)

        def __exit__(self, *_):
            return None

    found = learn(tmp_path / "one", together, clips, watch=Watch(talk=talk.append, progress=lambda *_: Bar()))
    assert found.finished == ("a", "c", "d")
    stopped = found.members["b"]
    assert (stopped.stopped.step, stopped.trained.steps) == (3, 2)
    assert talk[0].startswith("member b is stopped, the others go on. Step 3: the loss is not finite")
    assert all(f"{name} " in notes[0] for name in NAMES)
    assert "b stopped" in notes[-1]
    assert all(torch.isfinite(value).all() for value in tiny_cohort.weights(together.members[1]).values())
    others = tiny_cohort.cohort()
    learn(tmp_path / "two", others, clips)
    for place in (0, 2, 3):
        mine, expected = (tiny_cohort.weights(found.members[place]) for found in (together, others))
        assert all(torch.equal(mine[name], value) for name, value in expected.items())


def test_a_member_that_was_stopped_stays_stopped_after_a_resume(tmp_path, clips):
    together = tiny_cohort.cohort(2, share_prefix=False)
    spoil(together.members[1], 1)
    with pytest.raises(KilledError):
        learn(tmp_path, together, clips, watch=kill_at(4))
    found = learn(tmp_path, tiny_cohort.cohort(2), clips, resume=True)
    assert found.members["b"].stopped.step == 1
    assert found.finished == ("a",)


def test_a_cohort_without_members_left_fails(tmp_path, clips):
    together = tiny_cohort.cohort(2, share_prefix=False)
    for member in together.members:
        spoil(member, 2)
    with pytest.raises(DivergedError, match=r"No member of the cohort is left\.\na: Step 2: the loss is not finite"):
        learn(tmp_path, together, clips)


def test_a_kill_and_a_resume_give_the_same_bytes(tmp_path, clips):
    learn(tmp_path / "one", tiny_cohort.cohort(), clips)
    with pytest.raises(KilledError):
        learn(tmp_path / "two", tiny_cohort.cohort(), clips, watch=kill_at(4))
    torch.rand(9)  # the random state of the process is another when it resumes
    learn(tmp_path / "two", tiny_cohort.cohort(), clips, resume=True)
    assert_same_end(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_ten_random_kills_give_the_same_bytes(tmp_path, clips):
    learn(tmp_path / "one", tiny_cohort.cohort(), clips)
    steps = random.Random(0)
    reports = steps.sample(range(1, 5 * len(NAMES)), 10)  # in the middle of a step too: after any member's report
    for number, count in enumerate(reports):
        seen = []

        def on_step(report, seen=seen, count=count):
            seen.append(report.step)
            if len(seen) == count:
                raise KilledError

        folder = tmp_path / f"kill{number}"
        with pytest.raises(KilledError):
            learn(folder, tiny_cohort.cohort(), clips, watch=Watch(on_step=on_step))
        learn(folder, tiny_cohort.cohort(), clips, resume=True)
        assert_same_end(tmp_path / "one", folder)


def test_a_stopped_cohort_says_how_to_go_on(tmp_path, clips):
    seen = []

    def interrupt(report):
        seen.append(report.step)
        if seen.count(3) == 1 and report.step == 3:  # once; the second would stop at once
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRunError, match="Stopped after step 3 of 5; the checkpoint is complete"):
        learn(tmp_path / "two", tiny_cohort.cohort(2), clips, watch=Watch(on_step=interrupt))
    learn(tmp_path / "two", tiny_cohort.cohort(2), clips, resume=True)
    learn(tmp_path / "one", tiny_cohort.cohort(2), clips)
    assert_same_end(tmp_path / "one", tmp_path / "two")


def test_a_member_with_another_schedule_is_not_resumed(tmp_path, clips):
    with pytest.raises(KilledError):
        learn(tmp_path, tiny_cohort.cohort(2), clips, watch=kill_at(3))
    other = tiny_cohort.cohort(2, changes=({}, {"learning_rate": 0.5}, {}, {}))
    with pytest.raises(InputError, match=r"b\.learning_rate was 0\.003 and is 0\.5"):
        learn(tmp_path, other, clips, resume=True)


def test_one_folder_holds_one_training(tmp_path, clips):
    learn(tmp_path, tiny_cohort.cohort(1), clips)
    with pytest.raises(InputError, match="holds a training already"):
        learn(tmp_path, tiny_cohort.cohort(1), clips)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (({}, {"batch_size": 2}, {}, {}), "b has other batch_size than a"),
        (({}, {"steps": 9}, {}, {}), "b has other steps than a"),
    ],
)
def test_members_share_what_the_stream_decides(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_cohort.cohort(2, changes=changes)


def test_members_have_names_of_their_own():
    (member,) = tiny_cohort.members(1)
    with pytest.raises(ValueError, match="members of different names"):
        Cohort((member, member))
