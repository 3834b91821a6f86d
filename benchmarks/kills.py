"""Runs that are killed at random moments and resumed, against the same run left alone: do they end in the same bytes?

Prints one JSON document. A small language model learns from a smaller one's teacher (LoRA with dropout, a dev split,
early stop, the best step kept, TensorBoard) on verses of the King James Bible, through the command. Each process gets
SIGKILL at a moment drawn uniformly from the time that the straight run takes from its folder to its result; a run is
killed several times before it is let through. Compared are log, dev split's checks, exported weights (byte for byte),
every number of the result, and what TensorBoard would show. The dumb baseline is one kill without a resume: no result.
Run: `python benchmarks/kills.py [KILLS] > results/kills.json` (some minutes).
"""

from __future__ import annotations

import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
KJV = ROOT / "examples" / "kjv"
SEED = 0
KILLS_A_RUN = 4
DOCUMENTS = {"train": 24, "dev": 4, "held_out": 4}
RECIPE = """
name: kills
task: text
{teacher}
student:
  {student}
objective:
  - {{kind: cross_entropy, weight: 0.5}}
  {term}
data: {{train: train.jsonl, held_out: held_out.jsonl, {dev}tokenizer: {tokenizer}, length: 64}}
training: {{steps: {steps}, batch_size: 8, learning_rate: 3e-2, checkpoint_every: 7, threads: 1{more}}}
evaluation: {{bootstrap_draws: 200, batch_size: 16, show_documents: 1}}
"""
STOP = ", early_stop: {every: 5, patience: 2}, keep_best: true, trackers: [tensorboard]"


def write_case(folder: Path) -> None:
    """The documents and both recipes."""
    with gzip.open(KJV / "student.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = file.readlines()
    start = 0
    for name, count in DOCUMENTS.items():
        (folder / f"{name}.jsonl").write_text("".join(lines[start : start + count]), encoding="utf-8")
        start += count
    common = {"tokenizer": KJV / "tokenizer"}
    begin = {"teacher": "", "student": f"config: {KJV / 'configs' / 'student'}", "term": "", "dev": "", "more": ""}
    teach = {
        "teacher": "teacher: {model: teacher/student}",
        "student": "layers: 1\n  lora: {rank: 4, targets: [q_proj, v_proj], dropout: 0.2}\n  budget_share: 0.5",
        "term": "- {kind: kl, weight: 0.5}",
        "dev": "dev: dev.jsonl, ",
        "more": STOP,
    }
    (folder / "teacher.yaml").write_text(RECIPE.format(**common, **begin, steps=20), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE.format(**common, **teach, steps=80), encoding="utf-8")


def start(folder: Path, recipe: str, out: str, *more: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    words = ["distill", recipe, "--out", out, "--device", "cpu", "--quiet", "--ledger", "ledger.db", *more]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "TUTELAGE_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "tutelage", *words]
    return subprocess.Popen(command, cwd=folder, env=settings, stdout=subprocess.DEVNULL)


def finish(folder: Path, recipe: str, out: str, *more: str) -> None:
    """The command, to its end."""
    code = start(folder, recipe, out, *more).wait()
    if code != 0:
        raise RuntimeError(f"the run ended with {code}")


def mark_of(run: Path) -> tuple[int, int]:
    """Changes when a process makes the folder, or takes the log back to its checkpoint."""
    return tuple(file.stat().st_ino if file.exists() else 0 for file in (run / "run.json", run / "log.jsonl"))  # type: ignore[return-value]


def wait_until_at_work(process: subprocess.Popen[bytes], run: Path, before: tuple[int, int]) -> None:
    """Return when the process has begun or resumed its run, or has ended."""
    while mark_of(run) == before and process.poll() is None:
        time.sleep(0.005)


def kill_at(folder: Path, out: str, seconds: float) -> dict[str, Any] | None:
    """Start or resume the run and kill it so long after it began to work; None if it was done by then."""
    run = folder / out
    before, resumed = mark_of(run), (run / "run.json").exists()
    process = start(folder, "recipe.yaml", out, *(["--resume"] if resumed else []))
    wait_until_at_work(process, run, before)
    time.sleep(seconds)
    if process.poll() is not None:
        return None
    process.kill()
    process.wait()
    log = run / "log.jsonl"
    lines = log.read_bytes().count(b"\n") if log.exists() else 0
    checkpoints = sorted(path.name for path in (run / "checkpoints").glob("*")) if run.exists() else []
    return {"run": out, "after_seconds": round(seconds, 2), "steps_logged": lines, "checkpoints": checkpoints}


def numbers_of(run: Path) -> dict[str, Any]:
    """The result without what is a time, a place or a version."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    training = {name: value for name, value in result["training"].items() if name != "seconds"}
    names = ("systems", "scores", "law", "comparisons", "alignment", "samples", "trainable")
    return {"training": training, **{name: result[name] for name in names}}


def scalars_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would show."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def differences(run: Path, straight: Path) -> list[str]:
    """What is not the same in two runs."""
    names = ("log.jsonl", "dev.jsonl", "student/model.safetensors", "adapter/adapter_model.safetensors")
    found = [name for name in names if (run / name).read_bytes() != (straight / name).read_bytes()]
    one, other = numbers_of(run), numbers_of(straight)
    found += [f"result.json: {name}" for name in other if one[name] != other[name]]
    if scalars_of(run) != scalars_of(straight):
        found.append("tensorboard")
    return found


def measure(folder: Path, wanted: int) -> dict[str, Any]:
    """Kill until there were so many kills; every run is let through in the end and compared."""
    generator = np.random.default_rng(SEED)
    write_case(folder)
    finish(folder, "teacher.yaml", "teacher")
    straight = folder / "straight"
    process = start(folder, "recipe.yaml", "straight")
    wait_until_at_work(process, straight, (0, 0))
    began = time.perf_counter()
    if process.wait() != 0:
        raise RuntimeError("the straight run failed")
    duration = time.perf_counter() - began
    kills: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    while len(kills) < wanted:
        out, mine = f"run{len(runs)}", 0
        while mine < KILLS_A_RUN and len(kills) < wanted:
            kill = kill_at(folder, out, float(generator.uniform(0, duration)))
            if kill is None:
                break
            kills.append(kill)
            mine += 1
        if not (folder / out / "result.json").exists():
            finish(folder, "recipe.yaml", out, *(["--resume"] if (folder / out / "run.json").exists() else []))
        runs.append({"run": out, "kills": mine, "differences": differences(folder / out, straight)})
        print(f"{len(kills)} kills, {len(runs)} runs", file=sys.stderr, flush=True)
    training = numbers_of(straight)["training"]
    return {
        "straight": {name: training[name] for name in ("steps", "stopped_early", "kept_step", "best")},
        "seconds_at_work": round(duration, 2),
        "kills": kills,
        "runs": runs,
    }


def main() -> int:
    """Measure and print."""
    began = time.perf_counter()
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), wanted)
    document = {
        "benchmark": "kills",
        "command": f"python benchmarks/kills.py {wanted}",
        "seed": SEED,
        "signal": "SIGKILL",
        "count": len(found["kills"]),
        "resumed_to_the_same": sum(run["kills"] for run in found["runs"] if not run["differences"]),
        **found,
        "cost_seconds": round(time.perf_counter() - began, 1),
        "environment": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "transformers", "numpy", "tensorboard")},
            "machine": platform.platform(),
        },
    }
    print(json.dumps(document, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
