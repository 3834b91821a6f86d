"""A cohort against the same students one after the other, and against a process each: time a step, and memory.

    python benchmarks/cohort.py [--rounds 3] [--out FILE]

A language model of random weights teaches copies of another (cross-entropy and KL, a live teacher). `top`: adapters in
the upper half, so that teacher and lower half run once for all; `all`: adapters everywhere, so that the teacher alone
does. Every measurement is a process of its own on one thread, in turn: CPU seconds a step, the first step left out.
`sequential` is K times one ordinary run (`training.loop.train`) of the same round, the dumb baseline; `processes` is
the wall-clock of K such runs at once over that of the cohort, which uses one core. The FLOP bound of the speed-up is
K (T + P + S) / (T + P + K S): teacher T, shared blocks P, a student's own part S, counted from the configurations.
Memory: peak of the process with the most members less that with one, per further member (the allocator told to give
freed tensors back at once), beside what a member's adapters, their gradients and moments take.
Prints one JSON document: medians and ranges over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.records.files import write_json
from tutelage.records.provenance import collect_provenance

MEMBERS = (1, 2, 4, 8)
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # tensors above 64 KiB are mapped one by one
STEPS, BATCH, POSITIONS, VOCABULARY, WIDTH = 4, 4, 128, 1024, 512
TEACHER_BLOCKS, STUDENT_BLOCKS, RANK = 8, 6, 8
TARGETS = ("q_proj", "v_proj", "up_proj", "down_proj")
FIRST_BLOCK = {"top": STUDENT_BLOCKS // 2, "all": 0}


@dataclass(frozen=True)
class Rows:
    """Random rows of text; every position is supervised."""

    input_ids_BT: Any
    labels_BT: Any
    keep_BT: Any


class Sampler:
    """The same few rows for ever."""

    def next_batch(self) -> list[int]:
        """Their positions."""
        return list(range(BATCH))

    def state_dict(self) -> dict[str, int]:
        """Nothing to save."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to load."""


def configuration(blocks: int) -> Any:
    """A small Llama."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=round(WIDTH * 8 / 3),
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=POSITIONS,
    )


def make_members(variant: str, count: int) -> tuple[Any, list[Any]]:
    """The teacher, and the members as `training.cohort_member.Member`s on one backbone."""
    import torch
    from transformers import LlamaForCausalLM

    from tutelage.objectives.objective import Objective
    from tutelage.objectives.signal import Signal
    from tutelage.objectives.terms import Term
    from tutelage.students.cohort import share_weights
    from tutelage.students.design import Lora
    from tutelage.students.lora import add_lora
    from tutelage.teachers.live import LiveTeacher
    from tutelage.training.cohort_member import Member
    from tutelage.training.optimisation import Optimisation
    from tutelage.training.step import Lesson

    torch.manual_seed(0)
    teacher, base = LlamaForCausalLM(configuration(TEACHER_BLOCKS)), LlamaForCausalLM(configuration(STUDENT_BLOCKS))

    def forward(model: Any, batch: Rows, _layers: Any = ()) -> Signal:
        return Signal(model(input_ids=batch.input_ids_BT, use_cache=False).logits, {})

    live = LiveTeacher(teacher, (), forward)
    lora = Lora(rank=RANK, targets=TARGETS, first_block=FIRST_BLOCK[variant])
    settings = Optimisation(steps=STEPS, batch_size=BATCH, checkpoint_every=STEPS, threads=1)
    members = []
    for seed in range(count):
        student = add_lora(share_weights(base), lora, RANK, seed)
        objective = Objective((Term("cross_entropy"), Term("kl")))
        lesson = Lesson(student, {}, objective, lambda batch, student=student: forward(student, batch), live.signal)
        members.append(Member(f"m{seed}", lesson, settings, seed))
    return live, members


def count_bound(variant: str, count: int) -> float:
    """The speed-up that FLOPs allow."""
    from transformers import LlamaForCausalLM

    from tutelage.laws.architecture import count_flops
    from tutelage.models.compute import row_training_flops
    from tutelage.students.design import Lora
    from tutelage.students.lora import target_modules

    model = LlamaForCausalLM(configuration(STUDENT_BLOCKS))
    adapted = target_modules(model, Lora(rank=RANK, targets=TARGETS, first_block=FIRST_BLOCK[variant]))
    teacher = count_flops(configuration(TEACHER_BLOCKS).to_dict(), POSITIONS).forward
    blocks = count_flops(configuration(STUDENT_BLOCKS).to_dict(), POSITIONS).decoder
    shared = sum(block.forward for block in blocks[: FIRST_BLOCK[variant]])
    own = row_training_flops(model, adapted, RANK, POSITIONS) - shared
    return count * (teacher + shared + own) / (teacher + shared + count * own)


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """One measurement, in this process; waits for a line where it is to begin with others."""
    import torch

    from tutelage.training.cohort import Cohort, train_cohort
    from tutelage.training.device import open_accelerator
    from tutelage.training.loop import Keeping, Stream, Watch, train

    torch.set_num_threads(1)
    live, members = make_members(case["variant"], case["count"])
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (BATCH, POSITIONS + 1), generator=generator)
    rows = Rows(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), torch.ones(BATCH, POSITIONS, dtype=torch.bool))
    marks: dict[int, tuple[float, float]] = {}

    def on_step(report: Any) -> None:
        marks[report.step] = (time.process_time(), time.monotonic())

    stream, watch = Stream(Sampler(), lambda _indices: rows), Watch(on_step=on_step)
    if case.get("wait"):
        print("ready", flush=True)
        sys.stdin.readline()
    with tempfile.TemporaryDirectory() as folder:
        keeping, accelerator = Keeping(Path(folder), {}), open_accelerator("cpu")
        if case["alone"]:
            (one,) = members
            train(one.lesson, stream, one.settings, keeping, accelerator, one.seed, watch)
        else:
            train_cohort(Cohort(tuple(members), live.signal), stream, keeping, accelerator, watch)
    cpu, wall = (marks[STEPS][part] - marks[1][part] for part in (0, 1))
    trained = sum(parameter.numel() for parameter in members[0].lesson.trainable().values())
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"cpu": cpu / (STEPS - 1), "wall": wall / (STEPS - 1), "peak": peak, "trained": trained}


def start_case(case: dict[str, Any], **settings: str) -> subprocess.Popen[str]:
    """A process that measures."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
    words = [sys.executable, __file__, "--case", json.dumps(case)]
    return subprocess.Popen(words, env=settings, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def finish_case(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it measured."""
    said, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(process.returncode)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def at_once(variant: str, count: int) -> float:
    """Wall-clock seconds a step of the slowest of `count` ordinary runs that begin together."""
    running = [start_case({"variant": variant, "count": 1, "alone": True, "wait": True}) for _ in range(count)]
    for process in running:
        process.stdout.readline()  # type: ignore[union-attr]  # it is a pipe
    for process in running:
        process.stdin.write("\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    return max(finish_case(process)["wall"] for process in running)


def measure(variant: str, rounds: int) -> dict[str, Any]:
    """Every K in turn, round after round."""
    found: dict[int, list[dict[str, Any]]] = {count: [] for count in MEMBERS}
    for _ in range(rounds):
        alone = finish_case(start_case({"variant": variant, "count": 1, "alone": True}))
        for count in MEMBERS:
            one = finish_case(start_case({"variant": variant, "count": count, "alone": False}))
            bound = count_bound(variant, count)
            speedup = count * alone["cpu"] / one["cpu"]
            found[count].append({**one, "alone": alone["cpu"], "speedup": speedup, "share_of_bound": speedup / bound})
    rows = []
    for count, runs in found.items():
        row: dict[str, Any] = {"members": count, "flop_bound": count_bound(variant, count)}
        row["cpu_seconds_a_step"] = spread([run["cpu"] for run in runs])
        row["sequential_cpu_seconds_a_step"] = spread([count * run["alone"] for run in runs])
        row["speedup_over_sequential"] = spread([run["speedup"] for run in runs])
        row["share_of_flop_bound"] = spread([run["share_of_bound"] for run in runs])
        if variant == "top" and count > 1:
            wall = statistics.median(run["wall"] for run in runs)
            row["processes_wall_over_cohort_wall"] = at_once(variant, count) / wall
        rows.append(row)
    return {"adapters": variant, "first_block": FIRST_BLOCK[variant], "rows": rows, "memory": measure_memory(variant)}


def measure_memory(variant: str) -> dict[str, Any]:
    """Bytes that a further member takes."""
    cases = [{"variant": variant, "count": count, "alone": False} for count in (1, MEMBERS[-1])]
    one, most = (finish_case(start_case(case, **GIVE_BACK)) for case in cases)
    return {
        "peak_with_one": one["peak"],
        "bytes_an_extra_member": (most["peak"] - one["peak"]) / (MEMBERS[-1] - 1),
        "bytes_of_its_adapters": 4 * 4 * one["trained"],  # weights, gradients, two moments
    }


def spread(values: list[float]) -> dict[str, Any]:
    """Median and range."""
    return {
        "value": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "level": None,
        "method": f"median and range of {len(values)} rounds",
    }


def main() -> None:
    """Run the whole table, or one measurement of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(run_case(json.loads(arguments.case))))
        return
    start = time.monotonic()
    document = {
        "benchmark": "cohort",
        "model": {
            "teacher_blocks": TEACHER_BLOCKS,
            "student_blocks": STUDENT_BLOCKS,
            "width": WIDTH,
            "vocabulary": VOCABULARY,
            "positions": BATCH * POSITIONS,
            "rank": RANK,
        },
        "cores": os.cpu_count(),
        "variants": [measure(variant, arguments.rounds) for variant in FIRST_BLOCK],
        "cost_seconds": round(time.monotonic() - start, 1),
        "provenance": collect_provenance().to_dict(),
    }
    if arguments.out:
        write_json(arguments.out, document)
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
