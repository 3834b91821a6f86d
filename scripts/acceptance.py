"""The long runs behind the README's claims: the demo, the same student by cross-entropy alone, and opening the export.

    python scripts/acceptance.py [--parts arms demo export] [--seeds 0 1 2 3 4] [--jobs 2] [--demo-run RUN]

arms: trains both arms with every seed (two processes, one thread each), scores them again from their transcripts, and
writes results/acceptance.json: pooled error rates with intervals for new utterances and new seeds, and their paired
differences. demo: runs the demo, alone on the machine, and writes results/demo.json. export: transcribes clips with the
demo's exported student in two fresh environments that hold transformers and not this package, the oldest and the newest
supported version, and writes results/export.json. Finished runs under runs/acceptance are found again, so an
interrupted acceptance goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tutelage.config import load_recipe
from tutelage.evaluation.bootstrap import Resampling
from tutelage.evaluation.compare import compare_arms, pool_seeds
from tutelage.evaluation.normalisers import whisper_normaliser
from tutelage.evaluation.wer import Metric, TranscriptScore, score_transcripts
from tutelage.records.estimate import Estimate
from tutelage.records.files import write_json
from tutelage.records.provenance import collect_provenance
from tutelage.runs.demo import BASELINE, conditions
from tutelage.runs.tasks import gather_materials

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "demo.yaml"
RUNS = ROOT / "runs" / "acceptance"
RESULTS = ROOT / "results"
ARMS = {"distilled": [], BASELINE: ["objective=[{kind: cross_entropy, weight: 1.0}]"]}
NAMES = {"distilled": "student, distilled", BASELINE: "student, cross-entropy alone"}
QUICK = ["training.threads=1", "evaluation.stock_clips=0", "evaluation.speed_clips=0"]
TRANSFORMERS = {"oldest": "4.48.3", "newest": "5.23.0"}
METRICS: tuple[Metric, ...] = ("wer", "cer", "capped_wer", "loop_rate")


def main() -> int:
    """Run every part that is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["arms", "export", "demo"], default=["arms", "export", "demo"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--demo-run", type=Path, metavar="RUN", help="a finished run of the demo, instead of another")
    arguments = parser.parse_args()
    if "arms" in arguments.parts:
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda job: train(*job), [(arm, seed) for seed in arguments.seeds for arm in ARMS]))
        keep("acceptance.json", summarise(arguments.seeds))
    if "demo" in arguments.parts:
        run = arguments.demo_run or RUNS / "demo"
        if not (run / "result.json").is_file():
            tutelage("demo", "--out", str(run), "--ledger", str(RUNS / "ledger.db"))
        keep("demo.json", json.loads((run / "result.json").read_text(encoding="utf-8")))
    if "export" in arguments.parts:
        run = arguments.demo_run or RUNS / "demo"
        keep("export.json", check_export(run / "student"))
    return 0


def keep(name: str, document: dict[str, Any]) -> None:
    """Write a result file, paths relative to the checkout and models by the names of their folders."""
    for model in (document.get("teacher"), document.get("student", {}).get("started_from")):
        if model is not None:
            model["path"] = Path(model["path"]).name
    plain = json.loads(json.dumps(document).replace(f"{ROOT}/", "").replace("recipes/../", ""))
    write_json(RESULTS / name, plain)
    print(RESULTS / name)


def train(arm: str, seed: int) -> None:
    """One run of one arm, unless it is finished; an unfinished one is resumed."""
    out = RUNS / f"{arm}-seed{seed}"
    if (out / "result.json").is_file():
        return
    options = [word for override in [*QUICK, *ARMS[arm]] for word in ("--set", override)]
    more = ["--resume"] if (out / "run.json").is_file() else []
    tutelage(
        "distill",
        str(RECIPE),
        "--seed",
        str(seed),
        "--out",
        str(out),
        "--ledger",
        str(RUNS / "ledger.db"),
        *options,
        *more,
    )


def tutelage(*words: str) -> None:
    """Run the command, which must succeed."""
    RUNS.mkdir(parents=True, exist_ok=True)
    print("tutelage", *words, file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "tutelage.cli.main", *words], check=True, stdout=subprocess.DEVNULL)


def summarise(seeds: list[int]) -> dict[str, Any]:
    """Both arms over seeds, and their paired difference."""
    scores = {arm: [score(RUNS / f"{arm}-seed{seed}") for seed in seeds] for arm in ARMS}
    resampling = Resampling()
    return {
        "schema": {"name": "tutelage.acceptance", "version": 1},
        "command": "make acceptance",
        "seeds": seeds,
        "arms": {arm: describe(arm, seeds, scores[arm], resampling) for arm in ARMS},
        "differences": {
            metric: compare_arms(scores[BASELINE], scores["distilled"], metric, resampling).to_dict()
            for metric in METRICS
        },
        "provenance": collect_provenance().to_dict(),
    }


def score(folder: Path) -> TranscriptScore:
    """The transcripts of a run's student (the last system of a run), scored again."""
    lines = [json.loads(line) for line in (folder / "transcripts.jsonl").read_text(encoding="utf-8").splitlines()]
    mine = [line for line in lines if line["system"] == lines[-1]["system"]]
    return score_transcripts(
        [line["reference"] for line in mine],
        [line["transcript"] for line in mine],
        whisper_normaliser("es"),
        groups=[line["group"] for line in mine],
        hit_cap=[line["hit_cap"] for line in mine],
        ids=[line["id"] for line in mine],
    )


def describe(arm: str, seeds: list[int], scores: list[TranscriptScore], resampling: Resampling) -> dict[str, Any]:
    """One arm: its pooled row, its single runs, and what it must share with whatever it is compared with."""
    documents = [json.loads((RUNS / f"{arm}-seed{seed}" / "result.json").read_text(encoding="utf-8")) for seed in seeds]
    losses = [document["systems"][-1]["metrics"]["nats_per_token"]["value"] for document in documents]
    last = documents[0]["systems"][-1]
    return {
        "conditions": conditions(gather_materials(load_recipe(RECIPE, [*ARMS[arm]])).identity),
        "recipe_sha256": documents[0]["recipe"]["sha256"],
        "row": {
            "name": f"{NAMES[arm]} ({len(seeds)} seeds)",
            "window_seconds": last["window_seconds"],
            "params": last["params"],
            "metrics": {
                **{metric: pool_seeds(scores, metric, resampling).to_dict() for metric in METRICS},
                "nats_per_token": Estimate(sum(losses) / len(losses), method=f"mean of {len(losses)} seeds").to_dict(),
            },
            "normaliser": last["normaliser"],
            "utterances": last["utterances"],
            "groups": last["groups"],
        },
        "runs": [
            {"seed": seed, "nats_per_token": loss, **{metric: getattr(one, metric).value for metric in METRICS}}
            for seed, one, loss in zip(seeds, scores, losses, strict=True)
        ],
    }


def check_export(student: Path) -> dict[str, Any]:
    """Transcribe held-out clips from the exported folder where transformers is installed and this package is not."""
    captions = ROOT / "examples" / "captions_es"
    rows = (captions / "held_out.jsonl").read_text(encoding="utf-8").splitlines()[:4]
    clips = [captions / json.loads(row)["audio"] for row in rows]
    found: dict[str, dict[str, Any]] = {}
    for age, version in TRANSFORMERS.items():
        folder = RUNS / f"venv-transformers-{version}"
        python = folder / "bin" / "python"
        if not (folder / "ready").is_file():
            venv.create(folder, with_pip=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*install, "torch==2.13.0"], check=True)
            subprocess.run([*install, f"transformers=={version}", "soundfile", "soxr"], check=True)
            (folder / "ready").touch()
        out = subprocess.run(
            [str(python), str(ROOT / "scripts" / "check_export.py"), str(student), *map(str, clips)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        )
        found[age] = {"transformers": version, **json.loads(out.stdout)}
    agree = all(one["text"] == other["text"] for one, other in zip(*(f["clips"] for f in found.values()), strict=True))
    return {
        "schema": {"name": "tutelage.export-check", "version": 1},
        "command": "make acceptance",
        **found,
        "agree": agree,
        "provenance": collect_provenance().to_dict(),
    }


if __name__ == "__main__":
    raise SystemExit(main())
