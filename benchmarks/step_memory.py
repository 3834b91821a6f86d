"""A whole training step of a text student from deferred logits against made ones: peak memory and time.

    python benchmarks/step_memory.py [--rounds 3] [--out results/step_memory.json]

A Llama of two blocks is trained whole on cross-entropy and KL at temperature 2 beside a frozen Llama of two blocks of
the same vocabulary. Methods: `made`, both models hand over their logits (the dumb baseline); `deferred`, both hand over
final states and their head, as runs do. Every measurement is a process of its own, in turn; CPU seconds of the median
step after the first, on one thread; peak memory of all steps above what was resident before them (VmHWM, set back, over
VmRSS). Prints one JSON document: ratios to `made` of the same round, median and range over rounds, and how far the
gradients of the first step are apart.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from cases import measure_case, run_benchmark, spread
from losses import begin_memory, read_memory

SIZES = ({"vocabulary": 8192, "rows": 32}, {"vocabulary": 16384, "rows": 16})
LENGTH, WIDTH, STEPS = 128, 128, 4
METHODS = ("made", "deferred")


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """One measurement, in this process; the first step's gradient goes into a file."""
    import numpy as np
    import torch

    stepper, batch, trained = make_stepper(case)
    seconds = []
    before = begin_memory()
    for step in range(STEPS):
        start = time.process_time()
        report = stepper.take(step + 1, [batch], 1e-3)
        seconds.append(time.process_time() - start)
        if step == 0:
            np.save(case["gradient"], torch.cat([one.grad.flatten() for one in trained]).numpy())
            first = report.total
    peak = read_memory("VmHWM")
    return {"seconds": statistics.median(seconds[1:]), "bytes": 1024 * (peak - before), "loss": first}


def make_stepper(case: dict[str, Any]) -> tuple[Any, Any, list[Any]]:
    """What takes the steps, its batch, and the student's parameters."""
    import torch
    from accelerate import Accelerator
    from transformers import LlamaConfig, LlamaForCausalLM

    from tutelage.objectives.objective import Objective
    from tutelage.objectives.terms import Term
    from tutelage.tasks.text.batch import TextBatch
    from tutelage.tasks.text.forward import read
    from tutelage.teachers.live import LiveTeacher
    from tutelage.training.step import Lesson, Stepper

    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=case["vocabulary"], max_position_embeddings=LENGTH, **sizes)
    student, teacher = LlamaForCausalLM(config).train(), LlamaForCausalLM(config)
    names, shape = tuple(map(str, range(case["rows"]))), (case["rows"], LENGTH)
    inputs, labels = (torch.randint(case["vocabulary"], shape) for _ in range(2))
    everywhere = torch.ones(shape, dtype=torch.bool)
    batch = TextBatch(names, names, inputs, labels, everywhere, everywhere.long(), False)
    defer = case["method"] == "deferred"
    live = LiveTeacher(teacher, (), lambda model, batch, layers: read(model, batch, layers, defer=defer))
    objective = Objective([Term("cross_entropy", 0.5), Term("kl", 0.5, temperature=2.0)])
    lesson = Lesson(student, {}, objective, lambda batch: read(student, batch, defer=defer), live.signal)
    trained = list(lesson.trainable().values())
    return Stepper(lesson, torch.optim.AdamW(trained), 1e9, Accelerator(cpu=True)), batch, trained


def tabulate(rounds: int) -> dict[str, Any]:
    """Every size, both methods in turn, round after round."""
    with tempfile.TemporaryDirectory() as folder:
        return {"rows": [measure(size, rounds, Path(folder)) for size in SIZES]}


def measure(size: dict[str, int], rounds: int, folder: Path) -> dict[str, Any]:
    """One size."""
    import numpy as np

    found: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
    for _ in range(rounds):
        for method in METHODS:
            case = {**size, "method": method, "gradient": str(folder / f"{method}.npy")}
            found[method].append(measure_case(case))
    made, deferred = (np.load(folder / f"{method}.npy") for method in METHODS)
    row: dict[str, Any] = {**size, "length": LENGTH, "width": WIDTH, "logits_bytes": 4 * size["rows"] * LENGTH}
    row["logits_bytes"] *= size["vocabulary"]
    for method in METHODS:
        row[method] = {key: statistics.median(run[key] for run in found[method]) for key in ("seconds", "bytes")}
    for key in ("seconds", "bytes"):
        pairs = zip(found["deferred"], found["made"], strict=True)
        row[f"{key}_deferred_over_made"] = spread([one[key] / base[key] for one, base in pairs])
    row["relative_difference"] = {
        "gradient": float(np.linalg.norm(deferred - made) / np.linalg.norm(made)),
        "loss": abs(found["deferred"][0]["loss"] / found["made"][0]["loss"] - 1),
    }
    return row


if __name__ == "__main__":
    run_benchmark("step_memory", __doc__, run_case, tabulate)
