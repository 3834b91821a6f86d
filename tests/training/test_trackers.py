"""Trackers: TensorBoard's files are read back; what is not installed is named."""

import importlib.util

import pytest

from toy import ToySampler, make_batch, toy_lesson, toy_settings
from tutelage.errors import InputError, MissingExtraError
from tutelage.records.estimate import Estimate
from tutelage.training import trackers
from tutelage.training.device import open_accelerator
from tutelage.training.loop import Keeping, Stream, Watch, train
from tutelage.training.selection import DevCheck, EarlyStop
from tutelage.training.step_log import StepLog

pytestmark = pytest.mark.usefixtures("no_fsync")
FLOAT32 = 1e-6  # relative: TensorBoard keeps float32


class KilledError(Exception):
    """Stands for a kill inside this process."""


def run(folder, resume=False, kill_at=None, tracker="tensorboard"):
    def on_step(report):
        if report.step == kill_at:
            raise KilledError

    settings = toy_settings(trackers=(tracker,), early_stop=EarlyStop(5, patience=None))
    watch = Watch(on_step=on_step, judge=lambda metric: Estimate(0.25), measure_every=4)
    stream = Stream(ToySampler(settings.batch_size), make_batch)
    train(toy_lesson(0.3), stream, settings, Keeping(folder, {}, resume), open_accelerator("cpu"), 7, watch)


def read_back(folder):
    """{name: [(step, value), ...]} of every scalar that TensorBoard would show."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def expected(folder):
    reports = StepLog(folder / "log.jsonl").read()
    found = {}
    for report in reports:
        check = DevCheck(report.step, "loss", 0.25) if report.step in (5, 10, 12) else None
        for name, value in trackers.numbers_of(report, check).items():
            found.setdefault(name, []).append((report.step, pytest.approx(value, rel=FLOAT32)))
    return found


@pytest.mark.parametrize("kill_at", [None, 3, 8])
def test_tensorboard_has_every_number_of_the_log_each_step_once(tmp_path, kill_at):
    if kill_at is not None:
        with pytest.raises(KilledError):
            run(tmp_path, kill_at=kill_at)
    run(tmp_path, resume=kill_at is not None)
    found = read_back(tmp_path)
    assert found == expected(tmp_path)
    terms = ("cross_entropy", "kl", "angle")
    assert set(found) == {
        *("total", "learning_rate", "gradient_norm", "positions", "dev/loss"),
        *(f"{group}/{term}" for group in ("loss", "weight", "term_gradient_norm") for term in terms),
    }
    assert [step for step, _ in found["total"]] == list(range(1, 13))


def test_without_trackers_nothing_is_opened(tmp_path):
    with trackers.open_trackers((), tmp_path, 0, 0) as send:
        send(None, None)
    assert list(tmp_path.iterdir()) == []


class Service:
    """Stands for a service's tracker in Accelerate."""

    def __init__(self, title, **settings):
        self.title, self.settings, self.steps, self.finished, self.id = title, settings, [], False, "abc"
        OPENED.append(self)

    tracker = property(lambda self: self)

    def log(self, values, step):
        self.steps.append(step)

    def finish(self):
        self.finished = True


OPENED: list[Service] = []


def test_a_service_is_joined_again_by_its_id_and_sent_no_step_twice(tmp_path, monkeypatch):
    import accelerate.tracking

    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "wandb", Service)
    reports = StepLog(tmp_path / "toy" / "log.jsonl")
    run(tmp_path / "toy")
    OPENED.clear()
    for step, logged in ((0, 0), (5, 8)):  # the second try goes on after step 5, and 8 steps were logged
        with trackers.open_trackers(("wandb",), tmp_path, step, logged) as send:
            for report in reports.read()[step:]:
                send(report, None)
    first, second = OPENED
    assert (first.title, first.settings["id"], first.settings["dir"]) == ("tutelage", None, str(tmp_path))
    assert second.settings["id"] == "abc"
    assert (first.steps, second.steps) == (list(range(1, 13)), [9, 10, 11, 12])
    assert first.finished
    assert second.finished


def test_a_resumed_training_sends_a_service_what_it_has_not_got(tmp_path, monkeypatch):
    import accelerate.tracking

    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "wandb", Service)
    OPENED.clear()
    with pytest.raises(KilledError):
        run(tmp_path, kill_at=8, tracker="wandb")  # step 8 is in the log, and killed before it was sent
    run(tmp_path, resume=True, tracker="wandb")
    assert [service.steps for service in OPENED] == [list(range(1, 8)), [9, 10, 11, 12]]


def test_what_is_not_installed_is_named_with_the_way_to_add_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"tutelage\[trackers\]"):
        trackers.require_trackers(("tensorboard",))
    with pytest.raises(InputError, match=r"names wandb, mlflow, not installed here: pip install wandb mlflow"):
        trackers.require_trackers(("wandb", "mlflow"))
    trackers.require_trackers(())
