"""Runs and builds of a cache that are killed at random moments and resumed: do they end in the bytes of one left alone?

Prints one JSON document. Two parts, both through the command, each process SIGKILLed at a moment drawn uniformly from
the time that a straight one takes from its first file to its last; after some kills it is let through. A process that
had written its last file by then does not count as killed.

run    A small language model learns from a smaller one's teacher (LoRA with dropout, a dev split, early stop, the best
       step kept, TensorBoard) on verses of the King James Bible. Compared are log, dev split's checks, exported weights
       (byte for byte), every number of the result, and what TensorBoard would show.
cache  The same teacher's targets (random draws) on more of the book, in nine shards. Compared are the names and bytes
       of all files: shards and manifest.

The dumb baseline is one kill without a resume: no result, no manifest.
Run: `python benchmarks/kills.py [KILLS] > results/kills.json` (some minutes). One part anew, the other kept:
`python benchmarks/kills.py --parts cache --beside results/kills.json`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
KJV = ROOT / "examples" / "kjv"
SEED = 0
KILLS = 20
KILLS_A_JOB = 4
DOCUMENTS = {"train": 24, "dev": 4, "held_out": 4, "cached": 100}
DRAWS = 12  # a position
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
AT_ONCE = ("--device", "cpu", "--quiet")


class Job(ABC):
    """A command that fills a folder, is killed, and is given again.

    Args:
        folder: The case's; outputs are in it.
    """

    LAST: str
    """The file that is there when it is done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def words(self, out: str) -> list[str]:
        """The command that begins it, or goes on."""

    @abstractmethod
    def mark(self, out: str) -> object:
        """Changes when a process begins to work in the folder."""

    @abstractmethod
    def state(self, out: str) -> dict[str, Any]:
        """How far a killed one was."""

    @abstractmethod
    def differences(self, out: str, straight: str) -> list[str]:
        """What is not the same in two outputs."""

    @abstractmethod
    def describe(self, out: str) -> dict[str, Any]:
        """What one that was left alone made."""

    def done(self, out: str) -> bool:
        """Whether it came to its end."""
        return (self.folder / out / self.LAST).exists()

    def finish(self, out: str) -> float:
        """The command, to its end; returns the seconds of its work."""
        before = self.mark(out)
        process = start(self.folder, *self.words(out))
        self.wait_until_at_work(process, out, before)
        began = time.perf_counter()
        while not self.done(out) and process.poll() is None:
            time.sleep(0.005)
        seconds = time.perf_counter() - began
        if process.wait() != 0:
            raise RuntimeError(f"{out} ended with {process.returncode}")
        return seconds

    def kill_after(self, out: str, seconds: float) -> dict[str, Any] | None:
        """Begin or go on, and kill it so long after it began to work; None if it was done by then."""
        before = self.mark(out)
        process = start(self.folder, *self.words(out))
        self.wait_until_at_work(process, out, before)
        time.sleep(seconds)
        process.kill()
        process.wait()
        if self.done(out):
            return None
        return {"after_seconds": round(seconds, 2), **self.state(out)}

    def wait_until_at_work(self, process: subprocess.Popen[bytes], out: str, before: object) -> None:
        """Return when the process has begun to work, or has ended."""
        while self.mark(out) == before and process.poll() is None:
            time.sleep(0.005)


class Run(Job):
    """`tutelage distill`, and `--resume`."""

    LAST = "result.json"

    def words(self, out: str) -> list[str]:
        """It resumes what was begun."""
        more = ["--resume"] if (self.folder / out / "run.json").exists() else []
        return ["distill", "recipe.yaml", "--out", out, "--ledger", "ledger.db", *AT_ONCE, *more]

    def mark(self, out: str) -> object:
        """Of making the folder, and of taking the log back to its checkpoint."""
        files = (self.folder / out / name for name in ("run.json", "log.jsonl"))
        return [file.stat().st_ino if file.exists() else 0 for file in files]

    def state(self, out: str) -> dict[str, Any]:
        """Lines of the log, and checkpoints."""
        run = self.folder / out
        log = run / "log.jsonl"
        lines = log.read_bytes().count(b"\n") if log.exists() else 0
        return {"steps_logged": lines, "checkpoints": sorted(path.name for path in (run / "checkpoints").glob("*"))}

    def differences(self, out: str, straight: str) -> list[str]:
        """Of files, numbers and curves."""
        names = ("log.jsonl", "dev.jsonl", "student/model.safetensors", "adapter/adapter_model.safetensors")
        run, other = self.folder / out, self.folder / straight
        found = [name for name in names if (run / name).read_bytes() != (other / name).read_bytes()]
        mine, theirs = numbers_of(run), numbers_of(other)
        found += [f"result.json: {name}" for name in theirs if mine[name] != theirs[name]]
        if scalars_of(run) != scalars_of(other):
            found.append("tensorboard")
        return found

    def describe(self, out: str) -> dict[str, Any]:
        """When it stopped, and what it kept."""
        training = numbers_of(self.folder / out)["training"]
        return {name: training[name] for name in ("steps", "stopped_early", "kept_step", "best")}


class Build(Job):
    """`tutelage cache`, given again."""

    LAST = "manifest.json"

    def words(self, out: str) -> list[str]:
        """The same to go on."""
        draws = ["--kind", "systematic", "--size", str(DRAWS)]
        return ["cache", "recipe.yaml", "--out", out, "--set", "data.train=cached.jsonl", *draws, *AT_ONCE]

    def mark(self, out: str) -> object:
        """Of opening a shard: its name until it is finished is new."""
        return sorted(path.name for path in (self.folder / out).glob("*"))

    def state(self, out: str) -> dict[str, Any]:
        """Shards, and what is in the one that was being written."""
        cache = self.folder / out
        open_now = max(cache.glob(".*.part"), key=lambda path: path.stat().st_mtime_ns, default=None)
        return {
            "finished_shards": len(list(cache.glob("shard-*.arrow"))),
            "bytes_of_an_open_shard": None if open_now is None else open_now.stat().st_size,
        }

    def differences(self, out: str, straight: str) -> list[str]:
        """Names of files that only one has, or with other bytes."""
        mine, theirs = (
            {path.name: path.read_bytes() for path in (self.folder / name).iterdir()} for name in (out, straight)
        )
        return sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))

    def describe(self, out: str) -> dict[str, Any]:
        """How much was kept."""
        manifest = json.loads((self.folder / out / self.LAST).read_text(encoding="utf-8"))
        rows, total = (sum(one[name] for one in manifest["shards"]) for name in ("samples", "bytes"))
        return {"shards": len(manifest["shards"]), "rows": rows, "bytes": total}


JOBS = {"run": Run, "cache": Build}


def write_case(folder: Path) -> None:
    """The documents and both recipes."""
    with gzip.open(KJV / "student.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = file.readlines()
    begin = 0
    for name, count in DOCUMENTS.items():
        (folder / f"{name}.jsonl").write_text("".join(lines[begin : begin + count]), encoding="utf-8")
        begin += count
    common = {"tokenizer": KJV / "tokenizer"}
    first = {"teacher": "", "student": f"config: {KJV / 'configs' / 'student'}", "term": "", "dev": "", "more": ""}
    teach = {
        "teacher": "teacher: {model: teacher/student}",
        "student": "layers: 1\n  lora: {rank: 4, targets: [q_proj, v_proj], dropout: 0.2}\n  budget_share: 0.5",
        "term": "- {kind: kl, weight: 0.5}",
        "dev": "dev: dev.jsonl, ",
        "more": STOP,
    }
    (folder / "teacher.yaml").write_text(RECIPE.format(**common, **first, steps=20), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE.format(**common, **teach, steps=80), encoding="utf-8")


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "TUTELAGE_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "tutelage", *words]
    return subprocess.Popen(command, cwd=folder, env=settings, stdout=subprocess.DEVNULL)


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


def measure(job: Job, part: str, wanted: int) -> dict[str, Any]:
    """Kill until there were so many kills; each output is let through in the end and compared."""
    began = time.perf_counter()
    generator = np.random.default_rng(SEED)
    straight = f"{part}-straight"
    duration = job.finish(straight)
    kills: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    while len(kills) < wanted:
        out, mine = f"{part}{len(ends)}", 0
        while mine < KILLS_A_JOB and len(kills) < wanted:
            kill = job.kill_after(out, float(generator.uniform(0, duration)))
            if kill is None:
                break
            kills.append({part: out, **kill})
            mine += 1
        if not job.done(out):
            job.finish(out)
        ends.append({part: out, "kills": mine, "differences": job.differences(out, straight)})
        print(f"{part}: {len(kills)} kills, {len(ends)} ended", file=sys.stderr, flush=True)
    return {
        "count": len(kills),
        "resumed_to_the_same": sum(end["kills"] for end in ends if not end["differences"]),
        "straight": job.describe(straight),
        "seconds_at_work": round(duration, 2),
        "kills": kills,
        "ends": ends,
        "cost_seconds": round(time.perf_counter() - began, 1),
        "environment": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "transformers", "numpy", "tensorboard")},
            "machine": platform.platform(),
        },
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Kill runs and builds of a cache, and resume them.")
    parser.add_argument("kills", type=int, nargs="?", default=KILLS, metavar="KILLS", help="of each part")
    parser.add_argument("--parts", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--beside", type=Path, metavar="FILE", help="an earlier document, whose other parts are kept")
    arguments = parser.parse_args()
    parts = {} if arguments.beside is None else json.loads(arguments.beside.read_text(encoding="utf-8"))["parts"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_case(folder)
        if start(folder, "distill", "teacher.yaml", "--out", "teacher", *AT_ONCE).wait() != 0:
            raise RuntimeError("the teacher was not trained")
        for part in arguments.parts:
            command = f"python benchmarks/kills.py {arguments.kills} --parts {part}"
            parts[part] = {"command": command, **measure(JOBS[part](folder), part, arguments.kills)}
    document = {"benchmark": "kills", "seed": SEED, "signal": "SIGKILL", "parts": parts}
    print(json.dumps(document, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
