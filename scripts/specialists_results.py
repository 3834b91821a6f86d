"""Students of one domain each beside one student of all, on real speech: results/specialists.json.

    python scripts/specialists_results.py [--seeds 0 1 2] [--jobs 2] [--steps 80]

For every seed one cohort on one stream of clips: a specialist for each of the largest domains of captions (the first
word of their names) and one for the rest, each of which learns from its own clips alone and rests in steps without any,
and a generalist that learns from all. Held-out captions are given to the specialist of their domain ("routed"), to the
generalist and to the ensemble of all. A specialist sees fewer clips than the generalist in as many steps, as is said.
Finished runs under runs/specialists are found again and unfinished ones resumed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from speech_runs import ADAPTERS, CAPTIONS, METRICS, ROOT, Line, Runs, rate_by_seed, read_last, result, sum_errors
from tutelage.evaluation.bootstrap import GroupSums, Resampling, seed_interval, stack_seeds
from tutelage.evaluation.compare import compare_sums
from tutelage.evaluation.wer import Metric
from tutelage.records.files import write_json
from tutelage.records.provenance import collect_provenance

RUNS = Runs(ROOT / "runs" / "specialists")
LARGEST = ("symbols", "animals", "town")
DOMAINS = (*LARGEST, "other")
GENERALIST = "generalist"
SYSTEMS = (GENERALIST, "routed specialists", "ensemble")
RESAMPLING = Resampling()


def main() -> int:
    """Run what is missing and write the result file; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time, one thread each")
    parser.add_argument("--steps", type=int, default=80, help="training steps of a member")
    arguments = parser.parse_args()
    data = [f"data.{part}={add_domains(part)}" for part in ("train", "held_out")]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = list(pool.map(lambda seed: make(seed, arguments.steps, data), arguments.seeds))
    write_json(ROOT / "results" / "specialists.json", summarise(arguments.seeds, arguments.steps, runs))
    print("results/specialists.json")
    return 0


def domain_of(name: str) -> str:
    """The first word of a caption's name where it is one of the largest domains."""
    first = name.split("_")[0]
    return first if first in LARGEST else "other"


def add_domains(part: str) -> Path:
    """The manifest of the captions with a column more."""
    lines = [json.loads(line) for line in (CAPTIONS / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]
    more = [line | {"audio": str(CAPTIONS / line["audio"]), "domain": domain_of(line["id"])} for line in lines]
    RUNS.folder.mkdir(parents=True, exist_ok=True)
    path = RUNS.folder / f"{part}.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in more), encoding="utf-8")
    return path


def make(seed: int, steps: int, data: list[str]) -> Path:
    """The cohort of one seed."""
    members = ", ".join(f"{{name: {domain}, only: {{domain: {domain}}}}}" for domain in DOMAINS)
    length = (f"training.steps={steps}", f"training.warmup_steps={steps // 8}")
    who = (f"members=[{members}, {{name: {GENERALIST}}}]", f"students={len(DOMAINS) + 1}", "name=specialists")
    return RUNS.distil("cohort.yaml", f"seed{seed}", seed, [*ADAPTERS, *who, *length, *data])


def score(run: Path) -> dict[str, dict[str, Line]]:
    """What every system of one seed wrote, by caption."""
    written = {name: read_last(run / "members" / name / "transcripts.jsonl") for name in (*DOMAINS, GENERALIST)}
    routed = {name: written[domain_of(name)][name] for name in written[GENERALIST]}
    ensemble = read_last(run / "ensemble" / "transcripts.jsonl")
    return dict(zip(SYSTEMS, (written[GENERALIST], routed, ensemble), strict=True))


def summarise(seeds: list[int], steps: int, runs: list[Path]) -> dict[str, Any]:
    """Every system over seeds, on all captions and by domain, beside the generalist."""
    written = [score(run) for run in runs]
    return {
        "schema": {"name": "tutelage.specialists", "version": 1},
        "command": f"python scripts/specialists_results.py --seeds {' '.join(map(str, seeds))} --steps {steps}",
        "seeds": seeds,
        "steps": steps,
        "rows": [row for domain in (None, *DOMAINS) for row in compare(written, domain)],
        "members": [
            {"seed": seed}
            | {key: member[key] for key in ("name", "samples", "tokens", "steps", "steps_without_samples", "status")}
            for seed, run in zip(seeds, runs, strict=True)
            for member in result(run)["cohort"]["members"]
        ],
        "training_seconds": [result(run)["training"]["seconds"] for run in runs],
        "provenance": collect_provenance().to_dict(),
    }


def compare(written: list[dict[str, dict[str, Line]]], domain: str | None) -> Iterator[dict[str, Any]]:
    """A row a system, on the captions of a domain, or on all."""
    pooled: dict[str, dict[Metric, GroupSums]] = {}
    for system in SYSTEMS:
        lines = [
            {name: line for name, line in one[system].items() if domain in (None, domain_of(name))} for one in written
        ]
        sums = [sum_errors(one) for one in lines]
        pooled[system] = {metric: stack_seeds([one[metric] for one in sums]) for metric in METRICS}
        yield {
            "domain": domain or "all",
            "system": system,
            "captions": len(lines[0]),
            "metrics": {name: seed_interval(of, RESAMPLING).to_dict() for name, of in pooled[system].items()},
            "wer_by_seed": rate_by_seed(pooled[system]["wer"]),
            "against_generalist": None
            if system == GENERALIST
            else {
                metric: compare_sums(metric, pooled[GENERALIST][metric], of, RESAMPLING).to_dict()
                for metric, of in pooled[system].items()
            },
        }


if __name__ == "__main__":
    raise SystemExit(main())
