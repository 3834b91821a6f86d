"""What a cohort of four keeps of its ensemble in one student, on real speech: results/cohort_speech.json.

    python scripts/cohort_results.py [--seeds 0 1 2] [--jobs 2] [--steps 160]

For every seed: a cohort of four students that differ by their seeds (recipes/cohort.yaml without its listed members);
their vote word by word (ROVER); their exact merge and their merge at the members' rank; one student that learns from
their averaged probabilities (recipes/redistil.yaml), begun as a member began and begun as the exact merge; and, as the
honest control, one student alone with four times the steps. All share data, batch size, adapters and window, and
are scored from transcripts. Finished parts under runs/cohort-results are found again and unfinished runs resumed.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from speech_runs import (
    ADAPTERS,
    CAPTIONS,
    METRICS,
    ROOT,
    Line,
    Runs,
    mean_errors,
    rate_by_seed,
    read_last,
    result,
    sum_errors,
)
from tutelage.evaluation.bootstrap import GroupSums, Resampling, draw_ratios, seed_interval, stack_seeds
from tutelage.evaluation.compare import compare_sums
from tutelage.evaluation.normalisers import whisper_normaliser
from tutelage.evaluation.rover import vote_each
from tutelage.evaluation.wer import Metric
from tutelage.progress import no_progress
from tutelage.records.estimate import Estimate
from tutelage.records.files import write_json
from tutelage.records.provenance import collect_provenance
from tutelage.runs.speech.evaluate import Examination
from tutelage.runs.speech.examine import SpeechExaminer
from tutelage.runs.speech.reading import Reading
from tutelage.runs.systems import Systems, find_systems
from tutelage.tasks.speech.manifest import read_manifest

RUNS = Runs(ROOT / "runs" / "cohort-results")
HELD_OUT = CAPTIONS / "held_out.jsonl"
MEMBERS = 4
COHORT = ("members=[]", f"students={MEMBERS}", *ADAPTERS)
ALONE = {"re-distilled": "redistil", "merged, re-distilled": "merged-redistil", "single, 4x the steps": "single"}
SYSTEMS = ("mean member", "best member", "ensemble", "ROVER", "exact merge", "svd merge", *ALONE)
RESAMPLING = Resampling()


def main() -> int:
    """Run what is missing and write the result file; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time, one thread each")
    parser.add_argument("--steps", type=int, default=160, help="training steps of a member")
    arguments = parser.parse_args()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda seed: make(seed, arguments.steps), arguments.seeds))
    sums = [score(seed) for seed in arguments.seeds]
    write_json(ROOT / "results" / "cohort_speech.json", summarise(arguments.seeds, arguments.steps, sums))
    print("results/cohort_speech.json")
    return 0


def make(seed: int, steps: int) -> None:
    """Everything of one seed that is not there yet."""
    length = (f"training.steps={steps}", f"training.warmup_steps={steps // 8}")
    cohort = RUNS.distil("cohort.yaml", f"cohort-seed{seed}", seed, [*COHORT, *length])
    for how in ("exact", "svd"):
        out = RUNS.folder / f"{how}-seed{seed}"
        if not out.is_dir():
            RUNS.tutelage("merge", str(cohort), "--how", how, "--out", str(out), "--no-judge")
    folders = sorted((cohort / "members").iterdir())
    members = ", ".join(f"{{name: {folder.name}, model: {folder}}}" for folder in folders)
    taught = [*length, f"teacher.members=[{members}]"]
    merged = f"student.model={RUNS.folder / f'exact-seed{seed}' / 'student'}"
    RUNS.distil("redistil.yaml", f"redistil-seed{seed}", seed, taught)
    RUNS.distil("redistil.yaml", f"merged-redistil-seed{seed}", seed, [*taught, merged])
    longer = (f"training.steps={MEMBERS * steps}", *length[1:])
    single = ("members=[]", "students=null", *ADAPTERS, "name=single")
    RUNS.distil("cohort.yaml", f"single-seed{seed}", seed, [*single, *longer])


def score(seed: int) -> dict[str, dict[Metric, GroupSums]]:
    """Every system of one seed: the sums of each metric within groups; of the mean member over four."""
    cohort = RUNS.folder / f"cohort-seed{seed}"
    best = result(cohort)["cohort"]["best"]
    written = {path.name: read_last(path / "transcripts.jsonl") for path in sorted((cohort / "members").iterdir())}
    members = {name: sum_errors(lines) for name, lines in written.items()}
    found = {
        "mean member": {metric: mean_errors(sums[metric] for sums in members.values()) for metric in METRICS},
        "best member": members[best],
        "ensemble": sum_errors(read_last(cohort / "ensemble" / "transcripts.jsonl")),
        "ROVER": sum_errors(vote(list(written.values()))),
    }
    for how in ("exact", "svd"):
        found[f"{how} merge"] = sum_errors(read_last(transcribe(RUNS.folder / f"{how}-seed{seed}")))
    for name, folder in ALONE.items():
        found[name] = sum_errors(read_last(RUNS.folder / f"{folder}-seed{seed}" / "transcripts.jsonl"))
    return found


def vote(members: list[dict[str, Line]]) -> dict[str, Line]:
    """The vote on members' transcripts, which has no cap of its own; ties go to the first member."""
    names = list(members[0])
    voted = vote_each([[lines[name]["transcript"] for name in names] for lines in members], whisper_normaliser("es"))
    return {
        name: {**members[0][name], "transcript": text, "hit_cap": None} for name, text in zip(names, voted, strict=True)
    }


def transcribe(merge: Path) -> Path:
    """The transcripts of a merged student, made once."""
    written = merge / "transcripts.jsonl"
    if written.is_file():
        return written
    student = str(merge / "student")
    examination = Examination(
        systems=Systems.of(student), manifest=HELD_OUT, language="es", device="cpu", speed_items=0
    )
    found, _ = find_systems(examination.systems, "speech")
    manifest = read_manifest(HELD_OUT, normalise=whisper_normaliser("es"))
    verdict: Any = (
        SpeechExaminer(examination, manifest, Reading("es"), no_progress).examine(found).systems[student].runs[0]
    )
    lines = [
        {
            "system": merge.name,
            "id": one.id,
            "reference": one.raw.reference,
            "transcript": one.raw.hypothesis,
            "group": one.group,
            "hit_cap": one.hit_cap,
        }
        for one in verdict.score.utterances
    ]
    written.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return written


def summarise(seeds: list[int], steps: int, found: list[dict[str, dict[Metric, GroupSums]]]) -> dict[str, Any]:
    """All systems over seeds, what each differs from the mean member, and what the ensemble's gain is kept."""
    pooled = {
        name: {metric: stack_seeds([one[name][metric] for one in found]) for metric in METRICS} for name in SYSTEMS
    }
    base = pooled["mean member"]
    return {
        "schema": {"name": "tutelage.cohort-speech", "version": 1},
        "command": f"python scripts/cohort_results.py --steps {steps}",
        "seeds": seeds,
        "members": MEMBERS,
        "steps": steps,
        "systems": [
            {
                "name": name,
                "metrics": {metric: seed_interval(pooled[name][metric], RESAMPLING).to_dict() for metric in METRICS},
                "wer_by_seed": rate_by_seed(pooled[name]["wer"]),
                "against_mean_member": {
                    metric: compare_sums(metric, base[metric], pooled[name][metric], RESAMPLING).to_dict()
                    for metric in METRICS
                }
                if name != "mean member"
                else None,
                "kept_of_the_ensembles_gain": kept(
                    base["wer"], pooled["ensemble"]["wer"], pooled[name]["wer"]
                ).to_dict(),
            }
            for name in SYSTEMS
        ],
        "nats_per_token": {str(seed): losses(seed) for seed in seeds},
        "training_seconds": {
            name: [result(RUNS.folder / f"{name}-seed{seed}")["training"]["seconds"] for seed in seeds]
            for name in ("cohort", *ALONE.values())
        },
        "provenance": collect_provenance().to_dict(),
    }


def kept(base: GroupSums, ensemble: GroupSums, candidate: GroupSums) -> Estimate:
    """(mean member - candidate) / (mean member - ensemble) in WER, over draws of groups, seeds held fixed.

    The share has no meaning where the ensemble gains nothing, so it has an interval only where nearly every draw gains.
    """
    draws = [ratios_BS.mean(axis=1) for ratios_BS in draw_ratios([base, ensemble, candidate], RESAMPLING)]
    gain_B = draws[0] - draws[1]
    value = (base.ratio - candidate.ratio) / (base.ratio - ensemble.ratio) if base.ratio != ensemble.ratio else 0.0
    gains, tail = float(np.mean(gain_B > 0)), (1 - RESAMPLING.level) / 2
    method = f"group bootstrap, {RESAMPLING.draws} draws; the ensemble gains in {gains:.1%} of them"
    if gains < 1 - tail:
        return Estimate(value, method=f"{method}: undecided, so the share says nothing")
    low, high = np.quantile(((draws[0] - draws[2]) / gain_B)[gain_B > 0], [tail, 1 - tail])
    return Estimate(value, float(low), float(high), RESAMPLING.level, method)


def losses(seed: int) -> dict[str, float]:
    """Nats per token of the systems that have a row in a run of theirs."""
    rows = {
        f"{folder}: {row['name']}": row
        for folder in ("cohort", *ALONE.values())
        for row in result(RUNS.folder / f"{folder}-seed{seed}")["systems"]
    }
    starts = {"mean member": "cohort: mean of", "ensemble": "cohort: ensemble of"}
    starts |= {name: f"{folder}: student, distilled" for name, folder in ALONE.items()}
    return {
        name: next(row["metrics"]["nats_per_token"]["value"] for key, row in rows.items() if key.startswith(start))
        for name, start in starts.items()
    }


if __name__ == "__main__":
    raise SystemExit(main())
