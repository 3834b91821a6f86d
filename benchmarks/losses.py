"""Losses in chunks against the plain ones: time, peak memory, and whether loss and gradient agree.

    python benchmarks/losses.py [--rounds 3] [--out FILE]

From final states of student and teacher to the gradient on the student's states, both heads frozen, as in a LoRA run.
Methods: `plain` makes all logits and calls torch's own loss (the dumb baseline); `logits` makes all logits, then our
loss in chunks; `states` makes logits in chunks too; `trl` is TRL's chunked divergence, where TRL can be imported.
Every measurement is a process of its own, in turn; CPU seconds of the median micro-batch on one thread (TRL, which is
slow here, does two at most), peak memory above what was resident with the inputs loaded (VmHWM, set back, over VmRSS).
Prints one JSON document: ratios to `plain` of the same round, median and range over rounds.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cases import CaseError, measure_case, run_benchmark, spread

WIDTH = 256
TEMPERATURE = 2.0


@dataclass(frozen=True)
class Size:
    """Positions of a micro-batch, how many of those, and the vocabulary."""

    positions: int
    batches: int
    vocabulary: int


SIZES = (Size(16384, 1, 8192), Size(2048, 8, 32768))  # plain needs 2.5 GB and 1.3 GB
METHODS = {"kl": ("plain", "logits", "states", "trl"), "cross_entropy": ("plain", "logits", "states")}


def make_losses(size: Size) -> tuple[Any, dict[tuple[str, str], Callable[[], Any]]]:
    """The student's states, and every loss over them by term and method."""
    import torch
    from torch.nn.functional import cross_entropy as torch_cross_entropy
    from torch.nn.functional import kl_div

    from tutelage.objectives.likelihood import cross_entropy
    from tutelage.objectives.logits import DeferredLogits, Head
    from tutelage.objectives.position_terms import divergence
    from tutelage.objectives.terms import Term

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    n, v = size.positions, size.vocabulary
    h_S, h_T = (torch.randn(1, n, WIDTH, generator=generator) for _ in range(2))
    w_S, w_T = (torch.randn(v, WIDTH, generator=generator) / WIDTH**0.5 for _ in range(2))
    labels = torch.randint(v, (1, n), generator=generator)
    keep = torch.ones(1, n, dtype=torch.bool)
    h_S.requires_grad_()
    term = Term("kl", temperature=TEMPERATURE)
    deferred = [DeferredLogits(h, Head(lambda x, w=w: x @ w.T, v, (w,))) for h, w in ((h_S, w_S), (h_T, w_T))]

    def plain_kl() -> Any:
        log_q, log_p = ((h @ w.T / TEMPERATURE).log_softmax(-1) for h, w in ((h_S, w_S), (h_T, w_T)))
        return kl_div(log_q, log_p, reduction="sum", log_target=True)

    def trl_kl() -> Any:
        from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

        return ChunkedDivergenceFunction.apply(h_S[0], w_S, None, h_T[0], w_T, None, 0.0, TEMPERATURE)[0].sum()

    return h_S, {
        ("kl", "plain"): plain_kl,
        ("kl", "logits"): lambda: divergence(term, h_S @ w_S.T, h_T @ w_T.T, keep).total,
        ("kl", "states"): lambda: divergence(term, *deferred, keep).total,
        ("kl", "trl"): trl_kl,
        ("cross_entropy", "plain"): lambda: torch_cross_entropy((h_S @ w_S.T)[0], labels[0], reduction="sum"),
        ("cross_entropy", "logits"): lambda: cross_entropy(h_S @ w_S.T, labels, keep).total,
        ("cross_entropy", "states"): lambda: cross_entropy(deferred[0], labels, keep).total,
    }


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """One measurement, in this process; the gradient goes into a file."""
    import numpy as np
    import torch

    size = Size(**case["size"])
    states, losses = make_losses(size)
    loss = losses[case["term"], case["method"]]
    if case["method"] == "trl":
        import trl.kernels.chunked_divergence  # noqa: F401  (its import is not the loss's memory)
    before = begin_memory()
    seconds = []
    for _ in range(min(size.batches, 2) if case["method"] == "trl" else size.batches):
        start = time.process_time()
        (gradient,) = torch.autograd.grad(found := loss(), states)
        seconds.append(time.process_time() - start)
    peak = read_memory("VmHWM")
    np.save(case["gradient"], gradient.numpy())
    return {"seconds": statistics.median(seconds), "bytes": 1024 * (peak - before), "loss": found.item()}


def begin_memory() -> int:
    """Forget the peak so far, which may be the parent's; returns what is resident now, KiB."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # no /proc: the best that is left is the peak so far
        return read_memory("VmHWM")
    return read_memory("VmRSS")


def read_memory(name: str) -> int:
    """VmRSS (now) or VmHWM (the peak), KiB; the peak of the whole process where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def measure(size: Size, term: str, rounds: int, folder: Path) -> dict[str, Any]:
    """Every method in turn, round after round."""
    import numpy as np

    found: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS[term]}
    agree: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for method in METHODS[term]:
            file = folder / f"{method}.npy"
            case = {"size": asdict(size), "term": term, "method": method, "gradient": str(file)}
            try:
                found[method].append(measure_case(case, TRL_EXPERIMENTAL_SILENCE="1"))
            except CaseError:
                if method != "trl":
                    raise
                continue  # TRL is not installed, or cannot be imported
            if method != "plain" and method not in agree:
                ours, plain = (np.load(folder / f"{name}.npy") for name in (method, "plain"))
                value, exact = found[method][0]["loss"], found["plain"][0]["loss"]
                agree[method] = {
                    "gradient": float(np.linalg.norm(ours - plain) / np.linalg.norm(plain)),
                    "loss": abs(value - exact) / exact,
                }
    row: dict[str, Any] = {"term": term, **asdict(size), "width": WIDTH}
    for method, runs in found.items():
        row[method] = summarise(runs, found["plain"], agree.get(method)) if runs else None
    return row


def summarise(
    runs: list[dict[str, Any]], plain: list[dict[str, Any]], agree: dict[str, float] | None
) -> dict[str, Any]:
    """Absolute numbers of the median round, ratios to the plain loss of the same round, and the agreement."""
    row: dict[str, Any] = {key: statistics.median(run[key] for run in runs) for key in ("seconds", "bytes")}
    for key in ("seconds", "bytes"):
        row[f"{key}_over_plain"] = spread([run[key] / base[key] for run, base in zip(runs, plain, strict=True)])
    return {**row, "relative_difference": agree}


def tabulate(rounds: int) -> dict[str, Any]:
    """The whole table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(size, term, rounds, Path(folder)) for size in SIZES for term in METHODS]
    return {"rows": rows, "trl": trl_version()}


def trl_version() -> str | None:
    """The version that was compared with; None where it is not installed and was not measured."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("trl")
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    run_benchmark("losses", __doc__, run_case, tabulate)
