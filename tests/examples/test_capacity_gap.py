"""The two demonstrations of the capacity gap: their formulas, their rule, and both scripts end to end."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

Call = Callable[..., subprocess.CompletedProcess[str]]
Load = Callable[[str], ModuleType]

PRINTED = 5e-5  # half a unit of the last digit of the known values
ROUNDING = 1e-12  # float64 sums over 1000 terms
SCRIPTS = ("kernel_regression", "mapping_problem")
SAMPLES = 500
ALONE = 1e-6  # float32, 5 steps: a network beside others against the same one alone
RESULTS = {
    "kernel_regression": "capacity_gap_kernel_regression.json",
    "mapping_problem": "capacity_gap.json",
}


@pytest.mark.parametrize(
    ("n", "at_n", "at_all"), [(50, 17.5490, 17.8021), (100, 17.0324, 17.5242), (400, 15.4478, 16.0604)]
)
def test_kernel_regression_gives_the_known_errors(load: Load, n: int, at_n: float, at_all: float) -> None:
    target = load("kernel_regression").draw_target(0)
    assert target.norm == pytest.approx(18.031, abs=5e-4)
    assert target.student_error(np.array([n, 1000]), n) == pytest.approx([at_n, at_all], abs=PRINTED)


@pytest.mark.parametrize("seed", range(3))
def test_only_the_student_gets_worse(load: Load, seed: int) -> None:
    target, m = load("kernel_regression").draw_target(seed), np.arange(1, 1001)
    assert (np.diff(target.teacher_error(m)) <= ROUNDING).all()
    for n in (20, 250, 1000):
        steps = np.diff(target.student_error(m, n))
        assert (steps[: n - 1] <= ROUNDING).all()
        assert (steps[n - 1 :] >= -ROUNDING).all()


@pytest.mark.parametrize(("context", "i", "answer"), [("20202100", 1, 1), ("11201200", 5, 2), ("01222212", 1, 6)])
def test_the_rule_of_the_mapping_problem(load: Load, context: str, i: int, answer: int) -> None:
    assert load("mapping_problem").label([int(digit) for digit in context], i) == answer


@pytest.mark.parametrize("easy_share", [0.0, 0.5, 1.0])
def test_samples_follow_the_rule(load: Load, easy_share: float) -> None:
    module = load("mapping_problem")
    settings = module.Settings(easy_share=easy_share)
    inputs, labels = module.Samples(settings, stream=3).draw(2, SAMPLES)
    assert inputs.shape == (2, SAMPLES, 16)
    easy = 0
    for row, answer in zip(inputs.flatten(0, 1).tolist(), labels.flatten().tolist(), strict=True):
        context, i = [int(value) for value in row[:8]], row[8:].index(1.0)
        assert sum(row[8:]) == 1.0
        assert module.label(context, i) == answer
        easy += answer == i
    share = easy / (2 * SAMPLES)
    assert share == pytest.approx(easy_share, abs=4 * 0.5 / np.sqrt(2 * SAMPLES))  # four standard errors at most


def test_streams_do_not_repeat(load: Load) -> None:
    module = load("mapping_problem")
    first, again = module.Samples(module.Settings(), 1), module.Samples(module.Settings(), 1)
    one, two = first.draw(1, 64)[0], first.draw(1, 64)[0]
    assert not (one == two).all()
    assert (again.draw(1, 64)[0] == one).all()
    assert not (module.Samples(module.Settings(), 2).draw(1, 64)[0] == one).all()


def test_networks_side_by_side_train_as_if_alone(load: Load) -> None:
    module, networks = load("mapping_problem"), load("networks")
    inputs, labels = module.Samples(module.Settings(), 1).draw(3, 64)
    both = networks.Networks(3, 8, 8, seed=0)
    alone = networks.Networks(3, 8, 8, seed=0)
    alone.weights = [weight.detach()[2:].requires_grad_() for weight in alone.weights]
    networks.train(both, 5, 1e-2, lambda net: networks.cross_entropy(net(inputs), labels).sum())
    networks.train(alone, 5, 1e-2, lambda net: networks.cross_entropy(net(inputs[2:]), labels[2:]).sum())
    for some, mine in zip(both.weights, alone.weights, strict=True):
        assert float((some[2:] - mine).detach().abs().max()) < ALONE


def test_rises_are_paired_with_the_best_teacher(load: Load) -> None:
    module = load("mapping_problem")
    torch = module.torch
    found = module.describe([8, 16, module.RULE], torch.tensor([[3.0, 5.0, 4.0], [1.0, 3.0, 2.0], [1.5, 3.25, 2.5]]))
    assert found["best_teacher"] == 16
    assert found["by_teacher"][0]["cross_entropy"]["value"] == 4.0
    assert found["by_teacher"][2]["above_best"]["trials"] == [0.5, 0.25, 0.5]
    assert [row["trials_above_best"] for row in found["by_teacher"]] == [3, 0, 3]


@pytest.mark.slow  # two commands, and one of them imports torch
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_quick_form_runs_and_gives_the_same_figure_twice(call: Call, tmp_path: Path, script: str) -> None:
    written = []
    for name in ("one", "two"):
        done = call(f"{script}.py", "--quick", "--out", name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [f"{name}/{script}.svg", f"{name}/{script}.json"]
        written.append((tmp_path / name / f"{script}.svg").read_bytes())
    assert written[0] == written[1]
    numbers = json.loads((tmp_path / "one" / f"{script}.json").read_text())
    assert numbers["schema"] == {"name": f"tutelage.capacity_gap.{script}", "version": 1}
    assert numbers["provenance"]["command"].startswith(f"{script}.py --quick")


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--out", "there"], "there exists already; choose another --out, or replace its files with --force"),
        (["--quick"], "--quick makes no committed result; name a folder for it with --out DIR"),
        (["--quick", "--out", "file/below"], "cannot write file/below: Not a directory"),
        (["--out", "new", "--steps", "3"], "unrecognized arguments: --steps 3"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(
    load: Load,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    fault: str,
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["example.py", *words])
    with pytest.raises(SystemExit) as stop:
        load("outputs").read_arguments("An example.", "example", "example.json")
    assert stop.value.code == 2
    assert fault in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "there"]


def test_without_out_the_committed_files_are_written(load: Load, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["example.py"])
    places = load("outputs").read_arguments("An example.", "example", "numbers.json")[1]
    assert places.figure == root / "examples" / "capacity_gap" / "example.svg"
    assert places.numbers == root / "results" / "numbers.json"


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_committed_is_of_the_settings_of_the_script(load: Load, root: Path, script: str) -> None:
    numbers = json.loads((root / "results" / RESULTS[script]).read_text())
    assert "--quick" not in numbers["provenance"]["command"]
    if script == "mapping_problem":
        settings = load(script).asdict(load(script).Settings())
        assert numbers["settings"] == json.loads(json.dumps(settings))
    else:
        target = load(script).draw_target(numbers["settings"]["seed"])
        assert numbers["students"][0]["error"] == pytest.approx(target.student_error(np.array(numbers["m"]), 50))


def test_the_committed_students_fall_and_then_rise_in_every_trial(root: Path) -> None:
    numbers = json.loads((root / "results" / RESULTS["mapping_problem"]).read_text())
    teachers = [row["cross_entropy"]["value"] for row in numbers["teachers"]]
    assert teachers == sorted(teachers, reverse=True)
    for student in numbers["students"]:
        losses = [row["cross_entropy"]["value"] for row in student["by_teacher"]]
        assert losses[0] > min(losses)
        largest = student["by_teacher"][len(teachers) - 1]
        assert largest["trials_above_best"] == numbers["settings"]["trials"]
        assert largest["above_best"]["low"] > 0
