"""`tutelage distill` and `evaluate` as a user runs them, on a tiny random teacher: results, resuming, refusals."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from run_folders import read_log
from tiny import shared_tiny_whisper
from tiny_run import tutelage, write_manifest, write_run

pytestmark = pytest.mark.slow  # every test runs the command in a process of its own

ROOT = Path(__file__).resolve().parents[2]
Write = Callable[..., Path]
STUDENT_DOES_NOT_FIT = 50_000  # bytes; ledger and checkpoint do, the exported weights do not
ROWS = ["teacher, 4 s window", "teacher, 2 s window", "student, before", "student, distilled"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One finished run, made once."""
    folder = tmp_path_factory.mktemp("finished")
    write_run(folder, steps=4)
    return folder, tutelage("distill", "recipe.yaml", "--out", "run", "--ledger", "ledger.db", cwd=folder)


@pytest.fixture(scope="module")
def result(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> dict[str, Any]:
    folder, done = finished
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads((folder / "run" / "result.json").read_text(encoding="utf-8"))
    return document


def test_the_last_line_is_the_path_of_the_result(
    finished: tuple[Path, subprocess.CompletedProcess[str]], result: dict[str, Any]
) -> None:
    _, done = finished
    assert done.stdout.splitlines()[-1] == "run/result.json"
    assert result["path"] == "run/result.json"
    assert "student 1 of 2 -> teacher 1 of 4" in done.stderr  # the layer map is said at the start


def test_every_row_has_its_numbers_with_intervals(result: dict[str, Any]) -> None:
    assert [row["name"] for row in result["systems"]] == ROWS
    for row in result["systems"]:
        for metric in ("wer", "cer", "capped_wer", "loop_rate"):
            estimate = row["metrics"][metric]
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
            assert estimate["level"] == 0.95
        assert row["normaliser"] == "whisper-basic"
    losses = [row["metrics"]["nats_per_token"] for row in result["systems"]]
    assert losses[0] is None
    assert all(loss["low"] < loss["value"] < loss["high"] for loss in losses[1:])
    assert losses[3]["value"] < losses[2]["value"]  # four steps at a high rate teach something


def test_the_document_says_what_was_run_and_where_it_came_from(result: dict[str, Any]) -> None:
    assert result["schema"] == {"name": "tutelage.distill", "version": 1}
    assert result["status"]["kind"] == "done"
    assert result["seeds"]["recipe"] == 0
    assert result["recipe"]["resolved"]["training"]["final_learning_rate"] == 1e-6
    assert len(result["recipe"]["sha256"]) == 64
    assert set(result["alignment"]) == {"1-1", "2-4"}
    for numbers in result["alignment"].values():
        assert 0 <= numbers["angle"] < numbers["shuffled"] < 3.15
        assert numbers["mean_vector"] > 0
    assert {check["passed"] for check in result["preflight"]["checks"]} == {True}
    assert result["trainable"]["params"] == result["trainable"]["lora_params"] + result["trainable"]["projector_params"]
    assert result["training"]["flops"]["total"] > 0
    assert result["law"]["N_S"] < result["law"]["N_T"]
    assert result["law"]["D_S"] == result["training"]["supervised_tokens"] > 0
    assert result["law"]["D_T"] is None
    assert result["provenance"]["packages"]["torch"]
    assert result["speed"]["saving"]["value"] is not None
    assert (
        result["speed"]["window"]["value"] is None
        or 0.999 < sum(result["speed"][part]["value"] for part in ("window", "layers")) < 1.001
    )


def test_the_hashes_are_those_of_the_files(
    finished: tuple[Path, subprocess.CompletedProcess[str]], result: dict[str, Any]
) -> None:
    student = finished[0] / "run" / "student"
    for name, digest in result["student"]["sha256"].items():
        if name != "README.md":
            assert hashlib.sha256((student / name).read_bytes()).hexdigest() == digest


def test_the_student_opens_where_this_package_is_not_imported(
    finished: tuple[Path, subprocess.CompletedProcess[str]], result: dict[str, Any]
) -> None:
    folder, _ = finished
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "scripts" / "check_export.py",
            folder / "run" / "student",
            folder / "data/tone7.wav",
            "--max-new-tokens",
            "20",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    opened = json.loads(done.stdout)
    assert opened["window_seconds"] == 2
    assert opened["tutelage_imported"] is False
    assert (folder / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert (folder / "run" / "README.md").read_text(encoding="utf-8").startswith("---\nlanguage: es")
    keys = load_file(folder / "run" / "student" / "model.safetensors")
    assert not [key for key in keys if "lora" in key or "projector" in key]


def test_the_ledger_has_the_run_with_the_columns_of_a_law(
    finished: tuple[Path, subprocess.CompletedProcess[str]], result: dict[str, Any]
) -> None:
    done = tutelage("runs", "--ledger", "ledger.db", "--json", cwd=finished[0])
    (row,) = json.loads(done.stdout)["runs"]
    assert row["recipe_hash"] == result["recipe"]["sha256"]
    assert row["L_S"] == result["systems"][-1]["metrics"]["nats_per_token"]["value"]
    assert row["held_out_sha256"] == result["data"]["held_out"]["sha256"]


def test_evaluate_scores_the_exported_student_as_the_run_did(
    finished: tuple[Path, subprocess.CompletedProcess[str]], result: dict[str, Any]
) -> None:
    folder, _ = finished
    teacher = result["teacher"]["path"]
    words = ("--data", "data/held_out.jsonl", "--language", "es", "--speed", "1", "--json")
    done = tutelage("evaluate", teacher, "run/student", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [model["name"] for model in document["models"]] == [teacher, "run/student"]
    assert document["comparisons"][0]["candidate_name"] == "run/student"
    again, before = (rows[-1]["metrics"]["wer"]["value"] for rows in (document["models"], result["systems"]))
    assert again == pytest.approx(before, abs=0.1)  # the cache holds float16: a close call may flip on random weights


def test_an_existing_folder_is_left_alone(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = finished
    before = (folder / "run" / "result.json").stat().st_mtime_ns
    refused = tutelage("distill", "recipe.yaml", "--out", "run", cwd=folder)
    assert refused.returncode == 2
    assert "run exists" in refused.stderr
    assert "--force" in refused.stderr
    done = tutelage("distill", "recipe.yaml", "--out", "run", "--resume", cwd=folder)
    assert done.returncode == 2
    assert "finished" in done.stderr
    other = tutelage("distill", "recipe.yaml", "--out", "data", "--force", cwd=folder)
    assert other.returncode == 2
    assert "not a run's folder" in other.stderr
    assert (folder / "run" / "result.json").stat().st_mtime_ns == before


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tutelage.cli.main", "distill", "recipe.yaml", "--out", "run", *more]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_steps(folder: Path, steps: int, process: subprocess.Popen[str]) -> None:
    log = folder / "run" / "log.jsonl"
    for _ in range(3000):
        if log.is_file() and len(log.read_text(encoding="utf-8").splitlines()) >= steps:
            return
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.02)
    raise AssertionError("the run did not reach its steps")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_resumes_to_the_same_numbers(write_recipe: Write, tmp_path: Path, how: int) -> None:
    steps = 40
    write_recipe(steps=steps)
    process = start(tmp_path)
    wait_for_steps(tmp_path, 5, process)
    process.send_signal(how)
    _, talk = process.communicate()
    assert not (tmp_path / "run" / "result.json").exists(), "the run ended before it was stopped"
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "--out run --resume" in talk
    changed = tutelage("distill", "recipe.yaml", "--out", "run", "--resume", "--set", "training.steps=41", cwd=tmp_path)
    assert changed.returncode == 2
    assert "training.steps was 40 and is 41" in changed.stderr
    resumed = tutelage("distill", "recipe.yaml", "--out", "run", "--resume", "--ledger", "a.db", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    straight = tutelage("distill", "recipe.yaml", "--out", "straight", "--ledger", "b.db", cwd=tmp_path)
    assert straight.returncode == 0, straight.stderr
    logs = [read_log(tmp_path / run) for run in ("run", "straight")]
    assert logs[0] == logs[1]
    assert [line["step"] for line in logs[0]] == list(range(1, steps + 1))
    weights = [(tmp_path / run / "student" / "model.safetensors").read_bytes() for run in ("run", "straight")]
    assert weights[0] == weights[1]


def run_without_torch(folder: Path, *words: str) -> tuple[int, str, bool]:
    """Exit code and talk of a command, and whether it imported torch."""
    code = (
        "import sys\nfrom tutelage.cli.main import main\ncode = main(sys.argv[1:])\n"
        "print('TORCH' if 'torch' in sys.modules else 'NONE', file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.stdout == ""
    return done.returncode, done.stderr, done.stderr.rstrip().endswith("TORCH")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda f: (f / "recipe.yaml").unlink(), "There is no recipe"),
        (lambda f: (f / "data/train.jsonl").unlink(), "train.jsonl"),
        (lambda f: (f / "data/tone1.wav").unlink(), "tone1.wav"),
        (lambda f: (f / "data/tone8.wav").write_bytes(b"RIFF"), "tone8.wav"),
        (lambda f: (f / "data/train.jsonl").write_bytes(b'{"id": "\xff"}'), "UTF-8"),
        (lambda f: write_manifest(f / "data", "held_out.jsonl", [(0, "una rana")]), "tone0"),
        (lambda f: write_manifest(f / "data", "train.jsonl", [(0, "a b"), (0, "c d")]), "tone0"),
        (lambda f: write_manifest(f / "data", "train.jsonl", [(0, "...")]), "normalis"),
    ],
    ids=["no recipe", "no manifest", "no audio", "broken audio", "not UTF-8", "leak", "same id", "empty text"],
)
def test_bad_input_is_refused_before_torch_and_leaves_nothing(
    write_recipe: Write, tmp_path: Path, spoil: Callable[[Path], object], fault: str
) -> None:
    write_recipe()
    spoil(tmp_path)
    code, talk, torch = run_without_torch(tmp_path, "distill", "recipe.yaml", "--out", "run")
    assert code == 2, talk
    assert fault in talk
    assert "Traceback" not in talk
    assert not torch
    assert not (tmp_path / "run").exists()


def test_a_clip_longer_than_the_window_is_listed_or_dropped(write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe(student="")
    words = ("distill", str(recipe), "--out", "run", "--set", "student.window_seconds=1")
    code, talk, torch = run_without_torch(tmp_path, *words)
    assert code == 2
    assert not torch
    assert "tone7" in talk
    assert "tone3" in talk
    done = tutelage(*words, "--set", "data.overlong=drop", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dropped" in done.stderr


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("student.lora.targets=[qq_proj]", "qq_proj"),
        ("student.budget_share=0.0001", "budget"),
        ("student.lora={rank: 40, targets: [q_proj], init: pissa}", "40 singular parts"),
        ("student.lora.ranks={fc1: 3}", "ranks name fc1"),
        ("data.language=null", "several languages"),
        ("data.language=xx", "'xx' is not a language"),
        ("student.decoder_layers=9", "9 decoder layers"),
        ("student.window_seconds=60", "longer than the model's"),
        ("teacher.model=nowhere/at-all", "nowhere/at-all"),
    ],
)
def test_a_design_that_does_not_fit_is_one_line(write_recipe: Write, tmp_path: Path, override: str, fault: str) -> None:
    done = tutelage("distill", write_recipe(), "--out", "run", "--set", override, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.returncode == 2 or override.startswith("teacher")
    assert fault in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_model_without_weights_or_with_pickled_ones_is_refused(write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe()
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text('{"model_type": "whisper", "max_source_positions": 200}', encoding="utf-8")
    words = ("distill", str(recipe), "--out", "run", "--set", f"teacher.model={bare}")
    code, talk, torch = run_without_torch(tmp_path, *words)
    assert (code, torch) == (2, False)
    assert "weights" in talk
    (bare / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    code, talk, torch = run_without_torch(tmp_path, *words)
    assert (code, torch) == (2, False)
    assert "could run code when read" in talk


def test_a_student_with_another_tokenizer_is_refused_by_preflight_and_leaves_nothing(
    write_recipe: Write, tmp_path: Path
) -> None:
    """Same encoder, same sizes, two tokens exchanged: nothing but the strings of the ids can tell."""
    recipe = write_recipe()
    other = tmp_path / "other"
    shutil.copytree(shared_tiny_whisper(), other)
    for name in ("tokenizer.json", "vocab.json"):
        document = json.loads((other / name).read_text(encoding="utf-8"))
        vocabulary = document["model"]["vocab"] if name == "tokenizer.json" else document
        vocabulary["a"], vocabulary["o"] = vocabulary["o"], vocabulary["a"]
        (other / name).write_text(json.dumps(document), encoding="utf-8")
    settings = ("--set", f"student.model={other}", "--set", "student.layer_map=uniform")
    done = tutelage("distill", recipe, "--out", "run", *settings, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: preflight: ")
    assert "token" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_unwritable_folder_is_one_line(write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe()
    (tmp_path / "plain").write_text("a file, not a folder", encoding="utf-8")
    done = tutelage("distill", recipe, "--out", "plain/run", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "plain" in done.stderr.splitlines()[-1]


def test_a_disk_that_fills_is_one_line_and_the_run_resumes(write_recipe: Write, tmp_path: Path) -> None:
    """A limit on the size of a file stands for the disk: a write of more fails half-way, as on a full one."""
    write_recipe()

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (STUDENT_DOES_NOT_FIT, STUDENT_DOES_NOT_FIT))

    command = [sys.executable, "-m", "tutelage.cli.main", "distill", "recipe.yaml", "--out", "run", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=fill, check=False)
    assert done.returncode in (1, 2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert not (tmp_path / "run" / "result.json").exists()
    resumed = tutelage("distill", "recipe.yaml", "--out", "run", "--resume", "--ledger", "l.db", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr


def test_a_dry_run_counts_and_writes_nothing(write_recipe: Write, tmp_path: Path) -> None:
    done = tutelage("distill", write_recipe(), "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["expected"]["flops"]["total"] > 0
    assert document["expected"]["seconds"] > 0
    assert document["expected"]["memory_bytes"] > 0
    assert document["layer_map"] == [
        {"student": 1, "teacher": 1, "side": "decoder"},
        {"student": 2, "teacher": 4, "side": "decoder"},
    ]
    assert not (tmp_path / "runs").exists()


def test_the_authors_setting_counts_as_published(tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "whisper_large_v3_to_medium.yaml"
    done = tutelage("distill", recipe, "--dry-run", "--json", cwd=tmp_path)
    budget = json.loads(done.stdout)["budget"]
    assert budget["lora_params"] == 12_582_912
    assert round(100 * budget["lora_share"], 3) == 0.815
    assert round(100 * budget["share"], 3) == 0.900
    refused = tutelage("distill", recipe, "--dry-run", "--set", "student.projector.kind=mlp", cwd=tmp_path)
    assert refused.returncode == 2
    assert "1.006" in refused.stderr
