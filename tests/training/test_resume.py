"""A run that was stopped and resumed has the numbers of one that was not: bit for bit, at one number of threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from toy import ToySampler, make_batch, toy_lesson, toy_settings
from tutelage.errors import InputError
from tutelage.training.checkpoint import find_checkpoint, open_checkpoint
from tutelage.training.device import open_accelerator
from tutelage.training.loop import Keeping, Stream, Watch, train
from tutelage.training.optimisation import Optimisation

pytestmark = pytest.mark.usefixtures("no_fsync")
TESTS = Path(__file__).parents[1]


class KilledError(Exception):
    """Stands for a kill inside this process: nothing is saved on the way out."""


def run_program(folder, *arguments):
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TESTS / "toy.py"), str(folder), *arguments]
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120, check=False)


def assert_same_end(one, other):
    """The same log, weights, moments and random states, byte for byte."""
    assert (one / "log.jsonl").read_bytes() == (other / "log.jsonl").read_bytes()
    first, second = find_checkpoint(one / "checkpoints"), find_checkpoint(other / "checkpoints")
    assert first.name == second.name
    for file in first.glob("*.safetensors"):
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run of the toy program without an interruption, in this process."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    resume_toy(folder, recipe={"steps": 12}, resume=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "after", "code"), [("SIGKILL", 7, -9), ("SIGINT", 6, 130)])
def test_a_killed_process_resumes_to_the_same_bytes(tmp_path, straight, name, after, code):
    folder = tmp_path / "run"
    stopped = run_program(folder, "--kill-after", str(after), "--signal", name)
    assert stopped.returncode == code
    if code == 130:
        assert stopped.stdout.startswith(f"Stopped after step {after} of 12;")
        assert "Traceback" not in stopped.stderr
    assert run_program(folder, "--resume").returncode == 0
    assert_same_end(folder, straight)
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))


def resume_toy(folder, settings=None, recipe=None, dropout=0.3, watch=None, resume=True):
    settings = settings or toy_settings()
    keeping = Keeping(folder, recipe or {"optimisation": {"steps": settings.steps}}, resume)
    stream = Stream(ToySampler(settings.batch_size), make_batch)
    return train(toy_lesson(dropout), stream, settings, keeping, open_accelerator("cpu"), 7, watch)


def kill_at(step):
    def on_step(report):
        if report.step == step:
            raise KilledError

    return Watch(on_step=on_step)


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("at", [1, 5, 12])
def test_any_kill_and_any_interval_give_the_same_end(tmp_path, every, at):
    settings = toy_settings(checkpoint_every=every)
    resume_toy(tmp_path / "one", settings, resume=False)
    with pytest.raises(KilledError):
        resume_toy(tmp_path / "two", settings, watch=kill_at(at), resume=False)
    torch.rand(9)  # the random state of the process is another when it resumes
    resumed = resume_toy(tmp_path / "two", settings)
    assert resumed.resumed_from == (at - 1) // every * every
    assert_same_end(tmp_path / "two", tmp_path / "one")


def test_adapters_with_dropout_on_a_whisper_resume_to_the_same_bytes(tmp_path, whisper_lesson, clips):
    def run(folder, resume=False, watch=None):
        settings = Optimisation(steps=5, batch_size=2, checkpoint_every=2, threads=1)
        keeping = Keeping(folder, {"steps": 5}, resume)
        train(whisper_lesson(0.5), Stream(ToySampler(2), clips), settings, keeping, open_accelerator("cpu"), 1, watch)

    run(tmp_path / "one")
    with pytest.raises(KilledError):
        run(tmp_path / "two", watch=kill_at(4))
    run(tmp_path / "two", resume=True)
    assert_same_end(tmp_path / "two", tmp_path / "one")


def test_resuming_where_nothing_is_starts_from_the_beginning(tmp_path):
    assert resume_toy(tmp_path / "new").resumed_from is None


def test_resuming_a_finished_training_does_nothing(tmp_path):
    first = resume_toy(tmp_path, resume=False)
    saved = open_checkpoint(find_checkpoint(tmp_path / "checkpoints"))
    before = (tmp_path / "log.jsonl").read_bytes()
    second = resume_toy(tmp_path)
    assert second.resumed_from == second.steps == 12
    assert second.last == first.last
    assert second.seconds >= saved.seconds > 0
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_a_changed_recipe_is_refused_before_anything_is_touched(tmp_path):
    with pytest.raises(KilledError):
        resume_toy(tmp_path, watch=kill_at(7), resume=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"after step 5: optimisation\.steps was 12 and is 20") as caught:
        resume_toy(tmp_path, toy_settings(steps=20))
    assert caught.value.exit_code == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_cut_off_checkpoint_is_named_on_resume(tmp_path):
    resume_toy(tmp_path, resume=False)
    file = find_checkpoint(tmp_path / "checkpoints") / "moments.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"moments\.safetensors has 100 bytes"):
        resume_toy(tmp_path)


def test_other_data_is_refused(tmp_path):
    class Strict(ToySampler):
        def load_state_dict(self, state):
            raise ValueError("the saved sampler has size 14, this one 9.")

    resume_toy(tmp_path, resume=False)
    settings = toy_settings()
    keeping = Keeping(tmp_path, {"optimisation": {"steps": 12}}, resume=True)
    with pytest.raises(InputError, match="The data changed since the run was interrupted: the saved sampler has size"):
        train(toy_lesson(), Stream(Strict(3), make_batch), settings, keeping, open_accelerator("cpu"), 7)


def test_another_environment_is_remarked_on(tmp_path, monkeypatch):
    with pytest.raises(KilledError):
        resume_toy(tmp_path, toy_settings(threads=None), watch=kill_at(6), resume=False)
    remarks = []
    from tutelage.training import loop

    real = loop.describe_environment
    monkeypatch.setattr(loop, "describe_environment", lambda *given: {**real(*given), "torch": "9.9"})
    resume_toy(tmp_path, toy_settings(threads=None), watch=Watch(talk=remarks.append))
    assert len(remarks) == 1
    assert remarks[0].startswith("torch was ")
    assert "is 9.9: numbers may differ in their last digits" in remarks[0]
