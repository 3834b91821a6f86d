"""What a cohort of four keeps of its ensemble in one student, on real speech: results/cohort_speech.json.

    python scripts/cohort_results.py [--seeds 0 1 2] [--jobs 2] [--steps 160]

For every seed: a cohort of four students that differ by their seeds (recipes/cohort.yaml without its listed members);
their vote word by word (ROVER); their exact merge and their merge at the members' rank; one student that learns from
their averaged probabilities (recipes/redistil.yaml); and, as the honest control, one student alone with four times the
steps. All have the same data, batch size, adapters and window, and are scored from their transcripts. Finished parts
under runs/cohort-results are found again and unfinished runs resumed, so an interrupted call goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.evaluation.bootstrap import GroupSums, Resampling, draw_ratios, seed_interval, stack_seeds, sum_by_group
from tutelage.evaluation.compare import compare_sums
from tutelage.evaluation.normalisers import whisper_normaliser
from tutelage.evaluation.rover import vote_each
from tutelage.evaluation.wer import Metric, score_transcripts
from tutelage.progress import no_progress
from tutelage.records.estimate import Estimate
from tutelage.records.files import write_json
from tutelage.records.provenance import collect_provenance
from tutelage.runs.speech.evaluate import Examination
from tutelage.runs.speech.examine import SpeechExaminer
from tutelage.runs.speech.reading import Reading
from tutelage.runs.systems import Systems, find_systems
from tutelage.tasks.speech.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs" / "cohort-results"
HELD_OUT = ROOT / "examples" / "captions_es" / "held_out.jsonl"
MEMBERS = 4
METRICS: tuple[Metric, ...] = ("wer", "cer", "capped_wer", "loop_rate")
QUICK = ("training.threads=1", "evaluation.stock_clips=0", "evaluation.speed_clips=0")
COHORT = ("members=[]", f"students={MEMBERS}", "student.lora.first_block=0", "student.layer_map=origin")
SYSTEMS = (
    "mean member",
    "best member",
    "ensemble",
    "ROVER",
    "exact merge",
    "svd merge",
    "re-distilled",
    "single, 4x the steps",
)
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
    cohort = RUNS / f"cohort-seed{seed}"
    length = (f"training.steps={steps}", f"training.warmup_steps={steps // 8}", "training.checkpoint_every=20")
    distil("cohort.yaml", cohort, seed, [*QUICK, *COHORT, *length])
    for how in ("exact", "svd"):
        out = RUNS / f"{how}-seed{seed}"
        if not out.is_dir():
            tutelage("merge", str(cohort), "--how", how, "--out", str(out), "--no-judge")
    folders = sorted((cohort / "members").iterdir())
    members = ", ".join(f"{{name: {folder.name}, model: {folder}}}" for folder in folders)
    distil("redistil.yaml", RUNS / f"redistil-seed{seed}", seed, [*QUICK, *length, f"teacher.members=[{members}]"])
    longer = (f"training.steps={MEMBERS * steps}", *length[1:])
    single = ("members=[]", "students=null", *COHORT[2:], "name=single")
    distil("cohort.yaml", RUNS / f"single-seed{seed}", seed, [*QUICK, *single, *longer])


def distil(recipe: str, out: Path, seed: int, overrides: list[str]) -> None:
    """One run, unless it is finished; an unfinished one is resumed."""
    if (out / "result.json").is_file():
        return
    options = [word for override in overrides for word in ("--set", override)]
    more = ["--resume"] if (out / "run.json").is_file() else []
    place = ["--seed", str(seed), "--out", str(out), "--ledger", str(RUNS / "ledger.db")]
    tutelage("distill", str(ROOT / "recipes" / recipe), *place, *options, *more)


def tutelage(*words: str) -> None:
    """Run the command, which must succeed."""
    RUNS.mkdir(parents=True, exist_ok=True)
    print("tutelage", *words[:2], file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "tutelage", *words, "--quiet"], check=True, stdout=subprocess.DEVNULL)


def score(seed: int) -> dict[str, dict[Metric, GroupSums]]:
    """Every system of one seed: the sums of each metric within groups; of the mean member over four."""
    cohort = RUNS / f"cohort-seed{seed}"
    best = result(cohort)["cohort"]["best"]
    members = {folder.name: count(folder / "transcripts.jsonl") for folder in sorted((cohort / "members").iterdir())}
    found = {"best member": members[best], "ensemble": count(cohort / "ensemble" / "transcripts.jsonl")}
    found["ROVER"] = count_vote([cohort / "members" / name / "transcripts.jsonl" for name in members])
    found |= {f"{how} merge": examine(RUNS / f"{how}-seed{seed}" / "student") for how in ("exact", "svd")}
    found["re-distilled"] = count(RUNS / f"redistil-seed{seed}" / "transcripts.jsonl")
    found["single, 4x the steps"] = count(RUNS / f"single-seed{seed}" / "transcripts.jsonl")
    found["mean member"] = {metric: mean([sums[metric] for sums in members.values()]) for metric in METRICS}
    return found


def result(run: Path) -> dict[str, Any]:
    """A run's document."""
    document: dict[str, Any] = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return document


def mean(members: list[GroupSums]) -> GroupSums:
    """Errors averaged over members, group by group."""
    stacked = stack_seeds(members)
    return GroupSums(stacked.errors_SG.mean(axis=0, keepdims=True), stacked.units_G, stacked.bounded)


def count_vote(members: list[Path]) -> dict[Metric, GroupSums]:
    """The vote of files of members' transcripts; ties go to the first member."""
    each = [{line["id"]: line for line in read_last(path)} for path in members]
    names = list(each[0])
    voted = vote_each([[lines[name]["transcript"] for name in names] for lines in each], whisper_normaliser("es"))
    said = [
        (each[0][name]["reference"], text, each[0][name]["group"], None)
        for name, text in zip(names, voted, strict=True)
    ]
    return sums_of(dict(zip(names, said, strict=True)))


def read_last(transcripts: Path) -> list[dict[str, Any]]:
    """The lines of the last system of a file of transcripts."""
    lines = [json.loads(line) for line in transcripts.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line.get("system") == lines[-1].get("system")]


def count(transcripts: Path) -> dict[Metric, GroupSums]:
    """The last system of a file of transcripts."""
    mine = read_last(transcripts)
    said = {line["id"]: (line["reference"], line["transcript"], line["group"], line.get("hit_cap")) for line in mine}
    return sums_of(said)


def examine(student: Path) -> dict[Metric, GroupSums]:
    """A model's folder, transcribed now."""
    manifest = read_manifest(HELD_OUT, normalise=whisper_normaliser("es"))
    examination = Examination(
        systems=Systems.of(str(student)), manifest=HELD_OUT, language="es", device="cpu", speed_items=0
    )
    found, _ = find_systems(examination.systems, "speech")
    examined = SpeechExaminer(examination, manifest, Reading("es"), no_progress).examine(found)
    verdict: Any = examined.systems[str(student)].runs[0]
    return sums_of(
        {one.id: (one.raw.reference, one.raw.hypothesis, one.group, one.hit_cap) for one in verdict.score.utterances}
    )


def sums_of(said: dict[str, tuple[str, str, str, bool | None]]) -> dict[Metric, GroupSums]:
    """Sums within groups of every metric, clips in the order of their names."""
    rows = [said[name] for name in sorted(said)]
    references, transcripts, groups, caps = zip(*rows, strict=True)
    known = [bool(cap) for cap in caps] if None not in caps else None
    scored = score_transcripts(references, transcripts, whisper_normaliser("es"), groups=groups, hit_cap=known)
    return {metric: sum_by_group(*scored.counts(metric), groups) for metric in METRICS}


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
                "wer_by_seed": rates(pooled[name]["wer"]),
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
        "losses": {
            name: [loss(seed, name) for seed in seeds] for name in ("mean member", "ensemble", "re-distilled", "single")
        },
        "training_seconds": {
            name: [result(RUNS / f"{name}-seed{seed}")["training"]["seconds"] for seed in seeds]
            for name in ("cohort", "redistil", "single")
        },
        "provenance": collect_provenance().to_dict(),
    }


def rates(sums: GroupSums) -> list[float]:
    """The rate of every seed."""
    return [float(rate) for rate in sums.errors_SG.sum(axis=1) / sums.units_G.sum()]


def kept(base: GroupSums, ensemble: GroupSums, candidate: GroupSums) -> Estimate:
    """(mean member - candidate) / (mean member - ensemble) in WER, over draws of groups, seeds held fixed.

    Where a draw's ensemble gains nothing the share has no meaning; such draws are counted in `method`.
    """
    draws = [ratios_BS.mean(axis=1) for ratios_BS in draw_ratios([base, ensemble, candidate], RESAMPLING)]
    gain_B = draws[0] - draws[1]
    valid = gain_B > 0
    value = (base.ratio - candidate.ratio) / (base.ratio - ensemble.ratio) if base.ratio != ensemble.ratio else 0.0
    share_B = (draws[0] - draws[2])[valid] / gain_B[valid]
    method = f"group bootstrap, {RESAMPLING.draws} draws; the ensemble gains in {float(np.mean(valid)):.1%} of them"
    if share_B.size < RESAMPLING.draws / 2:
        return Estimate(value, method=method)
    low, high = np.quantile(share_B, [(1 - RESAMPLING.level) / 2, (1 + RESAMPLING.level) / 2])
    return Estimate(value, float(low), float(high), RESAMPLING.level, method)


def loss(seed: int, name: str) -> float:
    """Nats per token of a system's row in its run."""
    folder = {"re-distilled": "redistil", "single": "single"}.get(name, "cohort")
    rows = result(RUNS / f"{folder}-seed{seed}")["systems"]
    starts = {"mean member": "mean of", "ensemble": "ensemble of"}.get(name, "student, ")
    row = [row for row in rows if row["name"].startswith(starts)][-1]
    return float(row["metrics"]["nats_per_token"]["value"])


if __name__ == "__main__":
    raise SystemExit(main())
