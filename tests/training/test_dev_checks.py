"""Early stop and the best step: what is kept, what is resumed, and that looking changes nothing."""

import json
import math

import pytest
import torch

from toy import ToySampler, make_batch, toy_lesson, toy_settings
from tutelage.errors import InputError, TutelageError
from tutelage.records.estimate import Estimate
from tutelage.training.checkpoint import find_checkpoint, open_checkpoint
from tutelage.training.device import open_accelerator
from tutelage.training.loop import Keeping, Stream, Watch, train
from tutelage.training.selection import EarlyStop
from tutelage.training.step_log import StepLog

pytestmark = pytest.mark.usefixtures("no_fsync")
VALUES = {2: 3.0, 4: 1.0, 6: 2.0, 8: 1.5, 10: 0.5, 12: 0.1}  # a dip at 4, and a better end that patience 2 never sees
STOP = {"early_stop": EarlyStop(2, patience=2), "keep_best": True}


class KilledError(Exception):
    """Stands for a kill inside this process."""


class Pupil:
    """A lesson whose dev split says VALUES at each step, and who may be killed."""

    def __init__(self, values=None, kill_at=None, kill_while_judging=None):
        self.lesson = toy_lesson(dropout=0.3)
        self.values, self.kill_at, self.kill_while_judging = values or VALUES, kill_at, kill_while_judging
        self.step, self.weights, self.talk = 0, {}, []

    def on_step(self, report):
        self.step = report.step
        self.weights[report.step] = {n: p.detach().clone() for n, p in self.lesson.trainable().items()}
        if report.step == self.kill_at:
            raise KilledError

    def judge(self, metric):
        assert metric == "loss"
        assert not self.lesson.student.training
        torch.rand(13)  # a judge may draw
        if self.step == self.kill_while_judging:
            raise KilledError
        return Estimate(self.values[self.step], self.values[self.step] - 0.1, None, 0.95)

    def run(self, folder, resume=False, **changes):
        settings = toy_settings(**{"checkpoint_every": 3, **changes})
        watch = Watch(on_step=self.on_step, judge=self.judge, talk=self.talk.append)
        keeping = Keeping(folder, {}, resume)
        return train(
            self.lesson, Stream(ToySampler(3), make_batch), settings, keeping, open_accelerator("cpu"), 7, watch
        )

    def has_weights_of(self, step):
        return all(torch.equal(p, self.weights[step][n]) for n, p in self.lesson.trainable().items())


def steps_of(folder):
    return [line["step"] for line in map(json.loads, (folder / "dev.jsonl").read_text().splitlines())]


def assert_same_folders(one, other):
    for name in ("log.jsonl", "dev.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    first, second = (find_checkpoint(folder / "checkpoints") for folder in (one, other))
    assert first.name == second.name
    assert {file.name for file in first.iterdir()} == {file.name for file in second.iterdir()}
    for file in first.glob("*.safetensors"):
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


def test_training_ends_when_patience_does_and_the_best_step_is_kept(tmp_path):
    pupil = Pupil()
    trained = pupil.run(tmp_path, **STOP)
    assert (trained.steps, trained.stopped_early, trained.kept_step) == (8, True, 4)
    assert (trained.best.step, trained.best.value, trained.best.low, trained.best.high) == (4, 1.0, 0.9, None)
    assert pupil.has_weights_of(4)
    assert not pupil.lesson.student.training
    assert steps_of(tmp_path) == [2, 4, 6, 8]
    assert json.loads((tmp_path / "dev.jsonl").read_text().splitlines()[1]) == trained.best.to_dict()
    assert [report.step for report in StepLog(tmp_path / "log.jsonl").read()] == list(range(1, 9))
    assert pupil.talk == [
        "stopped after step 8 of 12: the dev split's loss has not improved for 2 checks.",
        "kept the weights of step 4, the best on the dev split",
    ]


def test_without_keep_best_the_last_weights_stay(tmp_path):
    pupil = Pupil()
    trained = pupil.run(tmp_path, early_stop=STOP["early_stop"])
    assert (trained.steps, trained.stopped_early, trained.kept_step, trained.best.step) == (8, True, None, 4)
    assert pupil.has_weights_of(8)
    assert not (find_checkpoint(tmp_path / "checkpoints") / "best.safetensors").exists()


def test_the_last_step_is_looked_at_and_a_stop_there_is_not_early(tmp_path):
    pupil = Pupil({5: 1.0, 10: 2.0, 12: 3.0})
    trained = pupil.run(tmp_path, early_stop=EarlyStop(5, patience=2), keep_best=True)
    assert steps_of(tmp_path) == [5, 10, 12]
    assert (trained.steps, trained.stopped_early, trained.kept_step) == (12, False, 5)
    assert pupil.has_weights_of(5)


def test_looking_changes_no_weight_and_no_draw(tmp_path):
    watched, alone = Pupil(), Pupil()
    watched.run(tmp_path / "watched", early_stop=EarlyStop(2, patience=None))
    alone.run(tmp_path / "alone")
    assert (tmp_path / "watched/log.jsonl").read_bytes() == (tmp_path / "alone/log.jsonl").read_bytes()
    one, other = (find_checkpoint(tmp_path / name / "checkpoints") for name in ("watched", "alone"))
    for file in other.glob("*.safetensors"):
        assert file.read_bytes() == (one / file.name).read_bytes(), file.name
    assert not (tmp_path / "alone/dev.jsonl").exists()


@pytest.mark.parametrize(
    ("kill", "resumed_from"),
    [({"kill_at": 3}, 0), ({"kill_at": 5}, 3), ({"kill_while_judging": 4}, 3), ({"kill_at": 8}, 6)],
)
def test_a_killed_run_decides_the_same(tmp_path, kill, resumed_from):
    Pupil().run(tmp_path / "one", **STOP)
    killed, again = Pupil(**kill), Pupil()
    with pytest.raises(KilledError):
        killed.run(tmp_path / "two", **STOP)
    with (tmp_path / "two/dev.jsonl").open("a") as file:  # what a check after the last checkpoint left, cut off
        file.write('{"step": 8, "met')
    again.weights = killed.weights
    trained = again.run(tmp_path / "two", resume=True, **STOP)
    assert trained.resumed_from == resumed_from
    assert (trained.steps, trained.stopped_early, trained.kept_step) == (8, True, 4)
    assert again.has_weights_of(4)
    assert_same_folders(tmp_path / "one", tmp_path / "two")


def test_a_run_that_was_stopped_early_is_not_taken_further_by_a_resume(tmp_path):
    first, second = Pupil(), Pupil()
    first.run(tmp_path, **STOP)
    before = (tmp_path / "log.jsonl").read_bytes()
    (tmp_path / "dev.jsonl").unlink()
    trained = second.run(tmp_path, resume=True, **STOP)
    assert steps_of(tmp_path) == [2, 4, 6, 8]  # written anew from the checkpoint
    assert (trained.resumed_from, trained.steps, trained.stopped_early, trained.kept_step) == (8, 8, True, 4)
    second.weights = first.weights
    assert second.has_weights_of(4)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_the_checkpoint_holds_the_checks_and_the_best_weights_and_names_damage(tmp_path):
    pupil = Pupil()
    pupil.run(tmp_path, **STOP)
    path = find_checkpoint(tmp_path / "checkpoints")
    snapshot = open_checkpoint(path)
    assert [check["value"] for check in snapshot.dev_checks] == [3.0, 1.0, 2.0, 1.5]
    assert set(snapshot.best) == set(pupil.lesson.trainable())
    assert all(torch.equal(tensor, pupil.weights[4][name]) for name, tensor in snapshot.best.items())
    (path / "best.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match=r"best\.safetensors has 1 bytes"):
        open_checkpoint(path)
    (path / "best.safetensors").unlink()
    with pytest.raises(InputError, match=r"best\.safetensors is missing"):
        open_checkpoint(path)


def test_other_settings_of_the_stop_are_another_recipe(tmp_path):
    with pytest.raises(KilledError):
        Pupil(kill_at=5).run(tmp_path, **STOP)
    with pytest.raises(InputError, match=r"early_stop\.patience was 2 and is 3"):
        Pupil().run(tmp_path, resume=True, early_stop=EarlyStop(2, patience=3), keep_best=True)


def test_a_value_that_is_not_finite_ends_the_run_with_its_name(tmp_path):
    with pytest.raises(TutelageError, match=r"Step 4: the dev split's loss is not finite \(nan\)"):
        Pupil({**VALUES, 4: math.nan}).run(tmp_path, **STOP)


def test_checks_without_a_judge_are_a_mistake_of_the_caller(tmp_path):
    settings = toy_settings(**STOP)
    stream, keeping = Stream(ToySampler(3), make_batch), Keeping(tmp_path, {})
    with pytest.raises(ValueError, match=r"need Watch\.judge"):
        train(toy_lesson(), stream, settings, keeping, open_accelerator("cpu"), 7)


class OneOfTwo:
    """A rank that is not the main one: what it adds up with others is the main one's value."""

    is_main_process, num_processes, device = False, 2, torch.device("cpu")

    def reduce(self, tensor, _how):
        assert torch.equal(tensor, torch.zeros(4, dtype=torch.float64))  # it measured nothing of its own
        return tensor + torch.tensor([1.25, 1.0, math.nan, 0.95], dtype=torch.float64)


def test_a_rank_that_is_not_the_main_one_takes_the_main_ones_value_and_writes_nothing(tmp_path):
    from tutelage.training.dev_checks import DevChecks

    def judge(metric):
        raise AssertionError("only the main rank judges")

    dev = DevChecks(toy_lesson(), toy_settings(**STOP), judge, OneOfTwo(), tmp_path / "dev.jsonl")
    check = dev.take(2)
    assert (check.value, check.low, check.high, check.level) == (1.25, 1.0, None, 0.95)
    assert set(dev.best_weights) == set(toy_lesson().trainable())
    assert not (tmp_path / "dev.jsonl").exists()
