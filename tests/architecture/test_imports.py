"""Who may import whom, and what a command may load before it knows that it is needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tiny_finished import finished_speech
from tiny_text_run import write_text_run

Runner = Callable[..., tuple[int, str, set[str]]]

HEAVY = {"scipy", "numba", "pyarrow", "torch", "transformers"}
PREDICT = ["predict", "--student-params", "1e9", "--student-tokens", "2.5e11", "--teacher-loss", "2.0"]
PLAN = ["plan", "--student-params", "3e8", "--compute", "1e20", "--teacher", "name=t,params=7e9,loss=2.02"]

SIMULATE = ["simulate", "--law", "besiroglu2024", "--design", "grid", "--runs", "9", "--out", "runs.csv"]
FIT_NOTHING = ["fit", "missing.csv", "--law", "gamma", "--out", "law.json"]
FIT_DRY = ["fit", "runs.csv", "--law", "gamma", "--out", "law.json", "--dry-run"]
FIT_BAD = ["fit", "runs.csv", "--law", "gamma", "--out", "law.json", "--columns", "N=size"]
FIT_ALONE = ["fit", "runs.csv", "--law", "distillation", "--columns", "N_S=N,D_S=D,L_T=L", "--out", "law.json"]


def test_the_layers_hold(root: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-logo", "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"], ["predict", "--help"], PREDICT], ids=" ".join)
def test_what_only_answers_a_question_loads_nothing_heavy(run_listing_modules: Runner, words: list[str]) -> None:
    code, text, modules = run_listing_modules(*words)
    assert code == 0, text
    assert not modules & HEAVY


def test_plan_loads_neither_torch_nor_numba(run_listing_modules: Runner) -> None:
    code, text, modules = run_listing_modules(*PLAN)
    assert code == 0, text
    assert not modules & {"torch", "transformers", "numba"}


@pytest.mark.parametrize("words", [SIMULATE, FIT_NOTHING, FIT_DRY, FIT_BAD, FIT_ALONE], ids=" ".join)
def test_bad_runs_are_found_before_numba_is_imported(run_listing_modules: Runner, words: list[str]) -> None:
    run_listing_modules(*SIMULATE)
    code, text, modules = run_listing_modules(*words)
    assert code == (0 if words == FIT_DRY else 2), text
    assert not modules & HEAVY


@pytest.mark.parametrize(
    "verb", ["plan", "fit", "simulate", "cache", "distill", "evaluate", "export", "demo", "runs", "doctor"]
)
def test_help_never_loads_torch(run_listing_modules: Runner, verb: str) -> None:
    code, text, modules = run_listing_modules(verb, "--help")
    assert code == 0, text
    assert not modules & {"torch", "transformers", "peft"}


def test_a_missing_recipe_is_found_before_torch_is_imported(run_listing_modules: Runner) -> None:
    code, text, modules = run_listing_modules("distill", "missing.yaml", "--out", "out")
    assert code == 2
    assert "missing.yaml" in text
    assert len(text.splitlines()) == 1
    assert not modules & {"torch", "transformers", "peft"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cache", "recipe.yaml", "--out", "cache", "--kind", "topk"], "size is 0"),
        (["cache", "recipe.yaml", "--out", "recipe.yaml"], "is not a folder"),
        (["cache", "recipe.yaml", "--out", "cache", "--set", "data.train=none.jsonl"], "none.jsonl"),
        (["distill", "recipe.yaml", "--out", "run", "--set", "teacher.cache=none"], "holds no manifest.json"),
    ],
    ids=["size", "folder", "data", "no-cache"],
)
def test_bad_caches_are_refused_before_torch_is_imported(
    run_listing_modules: Runner, tmp_path: Path, words: list[str], said: str
) -> None:
    write_text_run(tmp_path)
    code, text, modules = run_listing_modules(*words)
    assert code == 2, text
    assert said in text
    assert not modules & {"torch", "transformers", "peft"}
    assert not any((tmp_path / name).exists() for name in ("cache", "run"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--to", "hf", "--out", "run/student"], "exists"),
        (["none", "--to", "hf", "--out", "out"], "holds no run"),
        (["run", "--to", "hf", "--quantization", "int8", "--out", "out"], "belongs to --to ctranslate2"),
        (["run", "--to", "ctranslate2", "--quantization", "int4", "--out", "out"], "int8_float16"),
        (["run", "--to", "ctranslate2", "--data", "none.jsonl", "--out", "out"], "none.jsonl"),
        (["damaged", "--to", "hf", "--out", "out"], "not the file that the run wrote"),
        (["run", "--to", "ctranslate2", "--out", "out", "--dry-run"], ""),
    ],
    ids=["place", "no-run", "option", "quantization", "data", "damaged", "dry-run"],
)
def test_bad_exports_are_refused_before_torch_is_imported(
    run_listing_modules: Runner, tmp_path: Path, words: list[str], said: str
) -> None:
    finished_speech(tmp_path)
    if words[0] == "damaged":
        (tmp_path / "run").rename(tmp_path / "damaged")
        (tmp_path / "damaged" / "student" / "config.json").write_text("{}")
    code, text, modules = run_listing_modules("export", *words)
    assert code == (2 if said else 0), text
    assert said in text
    assert not modules & {"torch", "transformers", "peft", "ctranslate2"}
    assert not (tmp_path / "out").exists()
