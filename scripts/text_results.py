"""Does a live teacher help a small language model? Trains both arms with every seed and writes `results/text.json`.

    python scripts/text_results.py [--seeds 0 1 2 3 4] [--jobs 2] [--summary-only]

One teacher (recipes/text_teacher.yaml), then for every seed the student distilled from it (recipes/text_distil.yaml)
and the same student by cross-entropy alone (recipes/text_ce.yaml), at equal steps, rows and tokens. Losses are compared
document by document; the intervals are for new documents and new seeds. Finished runs under runs/text are found again.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import GroupSums, Resampling, seed_interval, sum_by_group
from tutelage.evaluation.compare import compare_sums
from tutelage.records.files import write_json
from tutelage.records.provenance import collect_provenance

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs" / "text"
TEACHER = RUNS / "teacher"
ARMS = {"distilled": ("text_distil", "student, distilled"), "cross_entropy_alone": ("text_ce", "student, trained")}
LOSSES = {"nats_per_token": ("tokens", 1.0), "bits_per_byte": ("bytes", 1 / math.log(2))}


def main() -> int:
    """Train what is missing, compare, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--summary-only", action="store_true", help="compare the runs that are there")
    arguments = parser.parse_args()
    if not arguments.summary_only:
        train(ROOT / "recipes" / "text_teacher.yaml", TEACHER, "--seed", "0")
        with ThreadPoolExecutor(arguments.jobs) as pool:
            jobs = [(arm, seed) for seed in arguments.seeds for arm in ARMS]
            list(pool.map(lambda job: train_arm(*job), jobs))
    write_json(ROOT / "results" / "text.json", summarise(arguments.seeds))
    return 0


def train_arm(arm: str, seed: int) -> None:
    """One run of one arm."""
    recipe = ROOT / "recipes" / f"{ARMS[arm][0]}.yaml"
    train(recipe, folder_of(arm, seed), "--seed", str(seed), "--set", f"teacher.model={TEACHER / 'student'}")


def folder_of(arm: str, seed: int) -> Path:
    """Where a run is kept."""
    return RUNS / f"{arm}-seed{seed}"


def train(recipe: Path, out: Path, *words: str) -> None:
    """Run a recipe, unless it is finished; an interrupted run goes on."""
    if (out / "result.json").is_file():
        return
    more = ["--resume"] if (out / "run.json").is_file() else []
    command = [sys.executable, "-m", "tutelage.cli.main", "distill", str(recipe), "--out", str(out), *words, *more]
    subprocess.run([*command, "--ledger", str(RUNS / "ledger.db"), "--quiet"], check=True, stdout=subprocess.DEVNULL)
    print(f"{out.name}: done", file=sys.stderr)


def summarise(seeds: list[int]) -> dict[str, Any]:
    """Every arm's losses, the paired differences, and what each run was."""
    resampling = Resampling()
    runs = {arm: [load(folder_of(arm, seed)) for seed in seeds] for arm in ARMS}
    teacher = load(TEACHER)
    arms: dict[str, Any] = {}
    sums: dict[str, dict[str, GroupSums]] = {}
    for arm, (recipe, system) in ARMS.items():
        sums[arm] = {metric: pool(seeds, arm, system, metric) for metric in LOSSES}
        first = runs[arm][0]
        arms[arm] = {
            "recipe": f"recipes/{recipe}.yaml",
            "metrics": {metric: seed_interval(found, resampling).to_dict() for metric, found in sums[arm].items()},
            "agreement_by_seed": [run["systems"][-1]["metrics"]["agreement"]["value"] for run in runs[arm]],
            "nats_per_token_by_seed": [run["systems"][-1]["metrics"]["nats_per_token"]["value"] for run in runs[arm]],
            "supervised_tokens": [run["training"]["supervised_tokens"] for run in runs[arm]],
            "flops": first["training"]["flops"],
            "seconds": [run["training"]["seconds"] for run in runs[arm]],
        }
    tokens = {tuple(arm["supervised_tokens"]) for arm in arms.values()}
    if len(tokens) != 1:
        raise InputError("the arms were not trained on equally many tokens, so they are not compared.")
    differences = {
        metric: compare_sums(
            metric, sums["cross_entropy_alone"][metric], sums["distilled"][metric], resampling
        ).to_dict()
        for metric in LOSSES
    }
    distilled = runs["distilled"][0]
    return {
        "question": "Does distilling from a live teacher beat cross-entropy alone at equal tokens?",
        "command": "python scripts/text_results.py",
        "seeds": seeds,
        "teacher": {
            "recipe": "recipes/text_teacher.yaml",
            "params": teacher["student"]["params"],
            "supervised_tokens": teacher["training"]["supervised_tokens"],
            "metrics": distilled["systems"][0]["metrics"],
            "flops": teacher["training"]["flops"],
        },
        "student": {"params": distilled["student"]["params"], "law": distilled["law"]},
        "data": {name: distilled["data"][name] for name in ("train", "held_out")},
        "arms": arms,
        "distilled_minus_cross_entropy": differences,
        "provenance": {**collect_provenance().to_dict(), "runs": distilled["provenance"]},
    }


def load(folder: Path) -> dict[str, Any]:
    """A finished run's document."""
    document: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return document


def pool(seeds: list[int], arm: str, system: str, metric: str) -> GroupSums:
    """One arm's losses by document, a row a seed."""
    unit, scale = LOSSES[metric]
    rows = []
    for seed in seeds:
        lines = (folder_of(arm, seed) / "documents.jsonl").read_text(encoding="utf-8").splitlines()
        rows.append([line for line in map(json.loads, lines) if line["system"] == system])
    if any([line["id"] for line in row] != [line["id"] for line in rows[0]] for row in rows):
        raise InputError("the seeds were judged on different documents.")
    errors = np.asarray([[scale * line["nats"] for line in row] for row in rows])
    return sum_by_group(errors, [line[unit] for line in rows[0]], [line["group"] for line in rows[0]])


if __name__ == "__main__":
    sys.exit(main())
