"""Does a live teacher help a small language model? Trains both arms with every seed and writes `results/text.json`.

    python scripts/text_results.py [--seeds 0 1 2 3 4] [--compute-seeds 0 1 2 3 4] [--jobs 2] [--summary-only]

One teacher (recipes/text_teacher.yaml), then for every seed the student distilled from it (recipes/text_distil.yaml)
and the same student by cross-entropy alone (recipes/text_ce.yaml), at equal steps, rows and tokens; and for some seeds
cross-entropy alone at equal compute: as many more steps as the teacher's passes beside the student cost. Losses are
compared document by document; the intervals are for new documents and new seeds. Finished runs under runs/text are
found again.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
EQUAL_COMPUTE_STEPS = 1112  # 400 steps with the teacher's passes, 2.69e12 FLOPs, over those without, 9.68e11


@dataclass(frozen=True)
class Arm:
    """One way to train the student: its recipe, what is changed in it, and the row of the result that it is."""

    recipe: str
    system: str
    changes: tuple[str, ...] = ()


ARMS = {
    "distilled": Arm("text_distil", "student, distilled"),
    "cross_entropy_alone": Arm("text_ce", "student, trained"),
    "cross_entropy_equal_compute": Arm(
        "text_ce", "student, trained", ("--set", f"training.steps={EQUAL_COMPUTE_STEPS}")
    ),
}
LOSSES = {"nats_per_token": ("tokens", 1.0), "bits_per_byte": ("bytes", 1 / math.log(2))}


def main() -> int:
    """Train what is missing, compare, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--compute-seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of the arm at equal compute"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--summary-only", action="store_true", help="compare the runs that are there")
    arguments = parser.parse_args()
    seeds = dict.fromkeys(ARMS, arguments.seeds) | {"cross_entropy_equal_compute": arguments.compute_seeds}
    if not arguments.summary_only:
        train(ROOT / "recipes" / "text_teacher.yaml", TEACHER, "--seed", "0")
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda job: train_arm(*job), [(arm, seed) for arm in ARMS for seed in seeds[arm]]))
    write_json(ROOT / "results" / "text.json", summarise(seeds))
    return 0


def train_arm(arm: str, seed: int) -> None:
    """One run of one arm."""
    recipe = ROOT / "recipes" / f"{ARMS[arm].recipe}.yaml"
    words = ("--seed", str(seed), "--set", f"teacher.model=../{TEACHER.relative_to(ROOT)}/student", *ARMS[arm].changes)
    train(recipe, folder_of(arm, seed), *words)


def folder_of(arm: str, seed: int) -> Path:
    """Where a run is kept."""
    return RUNS / f"{arm}-seed{seed}"


def train(recipe: Path, out: Path, *words: str) -> None:
    """Run a recipe, unless it is finished; an interrupted run goes on."""
    if (out / "result.json").is_file():
        return
    more = ["--resume"] if (out / "run.json").is_file() else []
    paths = [str(path.relative_to(ROOT)) for path in (recipe, out, RUNS / "ledger.db")]
    command = [sys.executable, "-m", "tutelage.cli.main", "distill", paths[0], "--out", paths[1], *words, *more]
    subprocess.run([*command, "--ledger", paths[2], "--quiet"], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    print(f"{out.name}: done", file=sys.stderr)


def summarise(seeds: dict[str, list[int]]) -> dict[str, Any]:
    """Every arm's losses, the paired differences, and what each run was."""
    runs = {arm: [load(folder_of(arm, seed)) for seed in seeds[arm]] for arm in ARMS}
    tokens = {arm: [run["training"]["supervised_tokens"] for run in found] for arm, found in runs.items()}
    if tokens["distilled"] != tokens["cross_entropy_alone"]:
        raise InputError("the arms were not trained on equally many tokens, so they are not compared.")
    teacher, distilled = load(TEACHER), runs["distilled"][0]
    return {
        "question": "Does a live teacher beat cross-entropy alone, at equal tokens and at equal compute?",
        "command": "python scripts/text_results.py",
        "teacher": {
            "recipe": "recipes/text_teacher.yaml",
            "params": teacher["student"]["params"],
            "supervised_tokens": teacher["training"]["supervised_tokens"],
            "flops": teacher["training"]["flops"],
            "metrics": distilled["systems"][0]["metrics"],
        },
        "student": {"params": distilled["student"]["params"], "law": distilled["law"]},
        "data": {name: distilled["data"][name] for name in ("train", "held_out")},
        "arms": {arm: describe(arm, seeds[arm], found) for arm, found in runs.items()},
        "distilled_minus_cross_entropy": {
            "equal_tokens": differences("cross_entropy_alone", seeds["cross_entropy_alone"]),
            "equal_compute": differences("cross_entropy_equal_compute", seeds["cross_entropy_equal_compute"]),
        },
        "provenance": {**collect_provenance().to_dict(), "runs_commit": distilled["provenance"]["commit"]},
    }


def describe(arm: str, seeds: list[int], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One arm: pooled losses with intervals, and each seed's numbers."""
    rows = [run["systems"][-1]["metrics"] for run in runs]
    return {
        "recipe": f"recipes/{ARMS[arm].recipe}.yaml",
        "changes": list(ARMS[arm].changes),
        "seeds": seeds,
        "metrics": {metric: seed_interval(pool(seeds, arm, metric), Resampling()).to_dict() for metric in LOSSES},
        "nats_per_token_by_seed": [row["nats_per_token"]["value"] for row in rows],
        "agreement_by_seed": [row["agreement"]["value"] for row in rows],
        "supervised_tokens": runs[0]["training"]["supervised_tokens"],
        "flops": runs[0]["training"]["flops"],
        "seconds": [run["training"]["seconds"] for run in runs],
    }


def differences(baseline: str, seeds: list[int]) -> dict[str, Any]:
    """Distilled minus a baseline, paired by seed and document."""
    return {
        metric: compare_sums(
            metric, pool(seeds, baseline, metric), pool(seeds, "distilled", metric), Resampling()
        ).to_dict()
        for metric in LOSSES
    }


def load(folder: Path) -> dict[str, Any]:
    """A finished run's document."""
    document: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return document


def pool(seeds: list[int], arm: str, metric: str) -> GroupSums:
    """One arm's losses by document, a row a seed."""
    unit, scale = LOSSES[metric]
    rows = []
    for seed in seeds:
        lines = (folder_of(arm, seed) / "documents.jsonl").read_text(encoding="utf-8").splitlines()
        rows.append([line for line in map(json.loads, lines) if line["system"] == ARMS[arm].system])
    if any([line["id"] for line in row] != [line["id"] for line in rows[0]] for row in rows):
        raise InputError("the seeds were judged on different documents.")
    errors = np.asarray([[scale * line["nats"] for line in row] for row in rows])
    return sum_by_group(errors, [line[unit] for line in rows[0]], [line["group"] for line in rows[0]])


if __name__ == "__main__":
    sys.exit(main())
