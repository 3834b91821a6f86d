"""Checkpoints: complete at any moment, verified on open, without pickles, and strict about recipes."""

import errno
import json
import os
import random
import shutil
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from toy import make_batch, toy_lesson
from tutelage.errors import InputError
from tutelage.training import state
from tutelage.training.checkpoint import (
    Snapshot,
    compare_recipes,
    find_checkpoint,
    open_checkpoint,
    require_same_recipe,
    save_checkpoint,
)

RECIPE = {"optimisation": {"steps": 12, "learning_rate": 0.05}, "terms": [{"kind": "kl"}, {"kind": "angle"}]}


def make_snapshot(step=1, value=1.0):
    return Snapshot(
        step=step,
        seconds=1.5,
        weights={"student.adapter": torch.full((40, 3), value), "projector.1-1.weight": torch.arange(4.0)},
        moments={"step/student.adapter": torch.tensor(float(step)), "exp_avg/student.adapter": torch.ones(40, 3)},
        randomness={f"0/{name}": value for name, value in state.capture_randomness().items()},
        sampler={"drawn": 6 * step},
        schedule={"steps": 12},
        recipe=RECIPE,
        environment={"torch": "2"},
    )


def assert_same(found, expected):
    for part in ("weights", "moments", "randomness"):
        one, other = getattr(found, part), getattr(expected, part)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one), part
    empty = {"weights": {}, "moments": {}, "randomness": {}}
    assert replace(found, **empty) == replace(expected, **empty)


def test_what_is_saved_is_what_is_opened(tmp_path):
    path = save_checkpoint(tmp_path / "checkpoints", make_snapshot())
    assert path == find_checkpoint(tmp_path / "checkpoints")
    assert_same(open_checkpoint(path), make_snapshot())


def test_before_the_first_step_there_are_no_moments(tmp_path):
    empty = replace(make_snapshot(step=0), moments={})
    assert_same(open_checkpoint(save_checkpoint(tmp_path, empty)), empty)


def test_only_the_newest_stays_and_newest_means_the_highest_step(tmp_path):
    for step in (9, 10, 100):
        save_checkpoint(tmp_path, make_snapshot(step))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000100"]
    (tmp_path / "step-000020").mkdir()
    assert find_checkpoint(tmp_path).name == "step-000100"
    assert find_checkpoint(tmp_path / "nothing") is None


def test_no_file_is_a_pickle(tmp_path):
    path = save_checkpoint(tmp_path, make_snapshot())
    assert sorted(file.name for file in path.iterdir()) == [
        "checkpoint.json",
        "moments.safetensors",
        "randomness.safetensors",
        "weights.safetensors",
    ]
    for file in path.glob("*.safetensors"):
        header = int.from_bytes(file.read_bytes()[:8], "little")
        json.loads(file.read_bytes()[8 : 8 + header])


@pytest.mark.parametrize("name", ["weights.safetensors", "moments.safetensors", "randomness.safetensors"])
def test_a_cut_off_changed_or_missing_file_is_named(tmp_path, name):
    file = save_checkpoint(tmp_path, make_snapshot()) / name
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(InputError, match=rf"{name} has {len(content) - 1:,} bytes where {len(content):,} were written"):
        open_checkpoint(file.parent)
    for position in (0, 20, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(InputError, match=rf"{name} was changed since it was written"):
            open_checkpoint(file.parent)
    file.unlink()
    with pytest.raises(InputError, match=rf"{name} is missing"):
        open_checkpoint(file.parent)


def test_a_damaged_record_is_named(tmp_path):
    file = save_checkpoint(tmp_path, make_snapshot()) / "checkpoint.json"
    content = file.read_bytes()
    for damage, fault in [
        (content[:-30], "checkpoint.json is cut off or damaged"),
        (b"\xff" + content, "checkpoint.json is cut off or damaged"),
        (b"[1]", "checkpoint.json is damaged"),
        (content.replace(b'"step": 1', b'"step": 2', 1), "checkpoint.json was changed"),
        (content.replace(b"tutelage.checkpoint", b"someone.elses", 1), "has schema"),
    ]:
        assert damage != content
        file.write_bytes(damage)
        with pytest.raises(InputError, match=fault):
            open_checkpoint(file.parent)
    file.unlink()
    with pytest.raises(InputError, match=r"checkpoint\.json is missing"):
        open_checkpoint(file.parent)


def test_two_damaged_files_are_reported_together(tmp_path):
    path = save_checkpoint(tmp_path, make_snapshot())
    (path / "weights.safetensors").unlink()
    (path / "moments.safetensors").unlink()
    with pytest.raises(InputError) as caught:
        open_checkpoint(path)
    assert len(caught.value.faults) == 3  # one a file, and the way out


def save_until_line(folder, number):
    """Save in a child process that kills itself (SIGKILL) at its `number`-th line; True if it lived to the end."""
    snapshot = make_snapshot(step=2, value=2.0)  # here, because Python reseeds its generator in a forked child
    child = os.fork()
    if child == 0:
        left = number

        def trace(frame, event, argument):
            nonlocal left
            if not frame.f_code.co_filename.endswith(("training/checkpoint.py", "records/files.py", "shutil.py")):
                return None
            left -= event == "line"
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        save_checkpoint(folder, snapshot)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("no_fsync")
def test_a_kill_at_any_line_leaves_a_usable_checkpoint(tmp_path):
    folder, number, seen = tmp_path / "checkpoints", 0, []
    done = False
    while not done:
        number += 2  # every other line: a fork each
        save_checkpoint(folder, make_snapshot(step=1))
        done = save_until_line(folder, number)
        found = open_checkpoint(find_checkpoint(folder))
        for path in folder.glob("step-*"):  # none looks like a checkpoint that is not one
            open_checkpoint(path)
        assert_same(found, make_snapshot(found.step, float(found.step)))
        seen.append(found.step)
        if found.step == 2:  # start the next round from step 1 again
            shutil.rmtree(folder)
    assert seen == sorted(seen)  # up to some line it is the old one, from there on the new one
    assert seen.count(1) > 50
    assert seen.count(2) > 10  # while the old one is removed


def test_leftovers_of_a_kill_are_swept(tmp_path):
    (tmp_path / ".new-step-000007").mkdir()
    (tmp_path / ".old-step-000003").mkdir()
    save_checkpoint(tmp_path, make_snapshot())
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_a_full_disk_is_one_line_and_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, make_snapshot())
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="disk is full") as caught:
        save_checkpoint(tmp_path, make_snapshot(step=2))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    open_checkpoint(find_checkpoint(tmp_path))


def test_a_changed_recipe_names_every_changed_setting():
    changed = {"optimisation": {"steps": 20, "warmup": 3}, "terms": [{"kind": "kl"}, {"kind": "mse"}], "extra": []}
    assert compare_recipes(RECIPE, changed) == [
        "extra was not set and is [].",
        "optimisation.learning_rate was 0.05 and is not set.",
        "optimisation.steps was 12 and is 20.",
        "optimisation.warmup was not set and is 3.",
        'terms.1.kind was "angle" and is "mse".',
    ]
    with pytest.raises(InputError, match=r"after step 1: extra was not set") as caught:
        require_same_recipe(make_snapshot(), changed, {"steps": 12})
    assert len(caught.value.faults) == 6  # five changes, and the way out


def test_the_same_recipe_passes_and_settings_outside_it_count_too():
    require_same_recipe(make_snapshot(), json.loads(json.dumps(RECIPE)), {"steps": 12})
    with pytest.raises(InputError, match="steps was 12 and is 13"):
        require_same_recipe(make_snapshot(), RECIPE, {"steps": 13})


@pytest.mark.parametrize("warm", [False, True])
def test_random_states_come_back_whatever_they_were(warm):
    state.seed_randomness(11)
    if warm:  # both keep a spare normal number between calls
        random.gauss(0, 1)
        np.random.normal()

    def draw():
        return [torch.rand(3).tolist(), np.random.normal(size=3).tolist(), [random.gauss(0, 1), random.random()]]

    saved = state.capture_randomness()
    first = draw()
    state.restore_randomness(saved)
    assert draw() == first


def test_weights_of_another_student_are_refused_by_name():
    trainable = toy_lesson().trainable()
    saved = state.capture_weights(trainable)
    name = next(iter(saved))
    changed = {**saved, "student.other": torch.ones(1), name: torch.ones(7)}
    del changed["projector.1-1.bias"]
    with pytest.raises(InputError) as caught:
        state.restore_weights(trainable, changed)
    assert caught.value.faults == (
        "The checkpoint holds student.other, which this student does not train.",
        "The checkpoint lacks projector.1-1.bias.",
        f"{name} has shape (7,) in the checkpoint and {tuple(saved[name].shape)} in the student.",
    )
    assert all(torch.equal(parameter, saved[key]) for key, parameter in trainable.items())


def test_a_capture_does_not_move_with_the_student():
    trainable = toy_lesson().trainable()
    saved = state.capture_weights(trainable)
    before = {name: value.clone() for name, value in saved.items()}
    with torch.no_grad():
        for parameter in trainable.values():
            parameter.add_(1)
    assert all(torch.equal(saved[name], before[name]) for name in saved)


@pytest.mark.parametrize("kernel", ["fused", "foreach"])
def test_moments_and_step_counters_come_back(kernel):
    def step(lesson, optimizer):
        loss = lesson.student_forward(make_batch([0, 1])).logits_BTV.square().mean()
        loss = loss + sum(parameter.square().sum() for parameter in lesson.projectors["1-1"].parameters())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    lesson, other = toy_lesson(), toy_lesson()
    trainable, twin = lesson.trainable(), other.trainable()
    optimizer = torch.optim.AdamW(trainable.values(), lr=0.1, **{kernel: True})
    for _ in range(3):
        step(lesson, optimizer)
    fresh = torch.optim.AdamW(twin.values(), lr=0.1, **{kernel: True})
    state.restore_weights(twin, state.capture_weights(trainable))
    state.restore_moments(fresh, twin, state.capture_moments(optimizer, trainable))
    assert float(fresh.state[next(iter(twin.values()))]["step"]) == 3
    step(lesson, optimizer)
    step(other, fresh)
    assert all(torch.equal(parameter, twin[name]) for name, parameter in trainable.items())
