"""A cohort against the same students one after the other, and against a process each: time a step, and memory.

    python benchmarks/cohort.py [--rounds 3] [--out FILE]

A language model of random weights teaches copies of another (cross-entropy and KL, a live teacher). `top`: adapters in
the upper half, so that teacher and lower half run once for all; `all`: adapters everywhere, so that the teacher alone
does; `small`: `top` at half the width and twice the vocabulary, where a step has more of what no FLOP count holds.
Every measurement is a process of its own on one thread, in turn: CPU seconds a step, the first step left out.
`sequential` is K times one ordinary run (`training.loop.train`) of the same round, the dumb baseline; `processes` is
the wall-clock of K such runs at once over that of the cohort, which uses one core; `stacked` is the members' step with
stacked adapters over theirs in turn, in the same process (below 1 it is faster). The FLOP bound of the speed-up is
K (T + P + S) / (T + P + K S): teacher T, shared blocks P, a student's own part S, counted from the configurations.
Memory: peak of the process with the most members less that with one, per further member (the allocator told to give
freed tensors back at once), beside what a member's adapters, their gradients and moments take; and how much higher the
peak with most members is where they are stacked. On a GPU: not measured.
Prints one JSON document: medians and ranges over rounds.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cases import finish_case, measure_case, run_benchmark, spread, start_case

MEMBERS = (1, 2, 4, 8)
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # tensors above 64 KiB are mapped one by one
STEPS, BATCH, POSITIONS = 4, 4, 128
TEACHER_BLOCKS, STUDENT_BLOCKS, RANK = 8, 6, 8
TARGETS = ("q_proj", "v_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Variant:
    """Where adapters begin, and the models' size."""

    first_block: int
    width: int = 512
    vocabulary: int = 1024


VARIANTS = {
    "top": Variant(STUDENT_BLOCKS // 2),
    "all": Variant(0),
    "small": Variant(STUDENT_BLOCKS // 2, width=256, vocabulary=2048),
}


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


def configuration(variant: Variant, blocks: int) -> Any:
    """A small Llama."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=variant.vocabulary,
        hidden_size=variant.width,
        intermediate_size=round(variant.width * 8 / 3),
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=POSITIONS,
    )


def make_members(variant: Variant, count: int) -> tuple[Any, list[Any]]:
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
    teacher, base = (LlamaForCausalLM(configuration(variant, blocks)) for blocks in (TEACHER_BLOCKS, STUDENT_BLOCKS))

    def forward(model: Any, batch: Rows, _layers: Any = ()) -> Signal:
        return Signal(model(input_ids=batch.input_ids_BT, use_cache=False).logits, {})

    live = LiveTeacher(teacher, (), forward)
    lora = Lora(rank=RANK, targets=TARGETS, first_block=variant.first_block)
    settings = Optimisation(steps=STEPS, batch_size=BATCH, checkpoint_every=STEPS, threads=1)
    members = []
    for seed in range(count):
        student = add_lora(share_weights(base), lora, RANK, seed)
        objective = Objective((Term("cross_entropy"), Term("kl")))
        lesson = Lesson(student, {}, objective, lambda batch, student=student: forward(student, batch), live.signal)
        members.append(Member(f"m{seed}", lesson, settings, seed))
    return live, members


def count_bound(variant: Variant, count: int) -> float:
    """The speed-up that FLOPs allow."""
    from transformers import LlamaForCausalLM

    from tutelage.laws.architecture import count_flops
    from tutelage.models.compute import row_training_flops
    from tutelage.students.design import Lora
    from tutelage.students.lora import target_modules

    model = LlamaForCausalLM(configuration(variant, STUDENT_BLOCKS))
    adapted = target_modules(model, Lora(rank=RANK, targets=TARGETS, first_block=variant.first_block))
    teacher = count_flops(configuration(variant, TEACHER_BLOCKS).to_dict(), POSITIONS).forward
    blocks = count_flops(configuration(variant, STUDENT_BLOCKS).to_dict(), POSITIONS).decoder
    shared = sum(block.forward for block in blocks[: variant.first_block])
    own = row_training_flops(model, adapted, RANK, POSITIONS) - shared
    return count * (teacher + shared + own) / (teacher + shared + count * own)


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """One measurement, in this process, of each way that is asked for; waits for a line where it begins with others."""
    import torch

    torch.set_num_threads(1)
    if case.get("wait"):
        print("ready", flush=True)
        sys.stdin.readline()
    found = {way: train(Variant(**case["variant"]), case["count"], way) for way in case["ways"]}
    return {**found, "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def train(variant: Variant, count: int, way: str) -> dict[str, float]:
    """Seconds a step, and the parameters that a member trains.

    Args:
        variant: What is trained.
        count: Members.
        way: "alone" for an ordinary run, or a cohort's `members_step`.
    """
    import torch

    from tutelage.training import loop
    from tutelage.training.cohort import Cohort, train_cohort
    from tutelage.training.device import open_accelerator

    live, members = make_members(variant, count)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(variant.vocabulary, (BATCH, POSITIONS + 1), generator=generator)
    rows = Rows(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), torch.ones(BATCH, POSITIONS, dtype=torch.bool))
    marks: dict[int, tuple[float, float]] = {}

    def on_step(report: Any) -> None:  # of the last member, when all are through the step
        marks[report.step] = (time.process_time(), time.monotonic())

    stream, watch = loop.Stream(Sampler(), lambda _indices: rows), loop.Watch(on_step=on_step)
    with tempfile.TemporaryDirectory() as folder:
        keeping, accelerator = loop.Keeping(Path(folder), {}), open_accelerator("cpu")
        if way == "alone":
            (one,) = members
            loop.train(one.lesson, stream, one.settings, keeping, accelerator, one.seed, watch)
        else:
            cohort = Cohort(tuple(members), live.signal, members_step=way)  # type: ignore[arg-type]  # its own word
            train_cohort(cohort, stream, keeping, accelerator, watch)
    cpu, wall = (marks[STEPS][part] - marks[1][part] for part in (0, 1))
    trained = sum(parameter.numel() for parameter in members[0].lesson.trainable().values())
    return {"cpu": cpu / (STEPS - 1), "wall": wall / (STEPS - 1), "trained": trained}


def at_once(variant: Variant, count: int) -> float:
    """Wall-clock seconds a step of the slowest of `count` ordinary runs that begin together."""
    case = {"variant": asdict(variant), "count": 1, "ways": ["alone"], "wait": True}
    running = [start_case(case) for _ in range(count)]
    for process in running:
        process.stdout.readline()  # type: ignore[union-attr]  # it is a pipe
    for process in running:
        process.stdin.write("\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    return max(finish_case(process)["alone"]["wall"] for process in running)


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Every K in turn, round after round."""
    variant = VARIANTS[name]
    found: dict[int, list[dict[str, Any]]] = {count: [] for count in MEMBERS}
    for _ in range(rounds):
        for count in MEMBERS:
            ways = ["alone", "in_turn"] if count == 1 else ["in_turn", "stacked"]
            found[count].append(measure_case({"variant": asdict(variant), "count": count, "ways": ways}))
    alone = [one["alone"]["cpu"] for one in found[1]]
    rows = [summarise(variant, count, runs, alone) for count, runs in found.items()]
    if name == "top":
        for row in rows[1:]:
            wall = statistics.median(one["in_turn"]["wall"] for one in found[row["members"]])
            row["processes_wall_over_cohort_wall"] = at_once(variant, row["members"]) / wall
    return {"adapters": name, **asdict(variant), "rows": rows, "memory": measure_memory(variant)}


def summarise(variant: Variant, count: int, runs: list[dict[str, Any]], alone: list[float]) -> dict[str, Any]:
    """One K over rounds; `alone` is the ordinary run of the same round."""
    bound, cpu = count_bound(variant, count), [run["in_turn"]["cpu"] for run in runs]
    speedups = [count * base / own for base, own in zip(alone, cpu, strict=True)]
    row: dict[str, Any] = {
        "members": count,
        "flop_bound": bound,
        "cpu_seconds_a_step": spread(cpu),
        "sequential_cpu_seconds_a_step": spread([count * base for base in alone]),
        "speedup_over_sequential": spread(speedups),
        "share_of_flop_bound": spread([speedup / bound for speedup in speedups]),
    }
    if count > 1:
        row["stacked_over_in_turn"] = spread([run["stacked"]["cpu"] / run["in_turn"]["cpu"] for run in runs])
    return row


def measure_memory(variant: Variant) -> dict[str, Any]:
    """Bytes that a further member takes, and that stacking takes."""
    cases = ((1, "in_turn"), (MEMBERS[-1], "in_turn"), (MEMBERS[-1], "stacked"))
    one, most, stacked = (
        measure_case({"variant": asdict(variant), "count": count, "ways": [way]}, **GIVE_BACK) for count, way in cases
    )
    return {
        "peak_with_one": one["peak"],
        "bytes_an_extra_member": (most["peak"] - one["peak"]) / (MEMBERS[-1] - 1),
        "bytes_of_its_adapters": 4 * 4 * one["in_turn"]["trained"],  # weights, gradients, two moments
        "bytes_an_extra_member_stacked": (stacked["peak"] - one["peak"]) / (MEMBERS[-1] - 1),
    }


def tabulate(rounds: int) -> dict[str, Any]:
    """The whole table."""
    model = {"teacher_blocks": TEACHER_BLOCKS, "student_blocks": STUDENT_BLOCKS, "rank": RANK}
    return {
        "model": {**model, "positions": BATCH * POSITIONS},
        "cores": os.cpu_count(),
        "variants": [measure(name, rounds) for name in VARIANTS],
    }


if __name__ == "__main__":
    run_benchmark("cohort", __doc__, run_case, tabulate)
