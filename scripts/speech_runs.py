"""Runs on the captions that a script makes, finds again and scores from their transcripts.

Covers what the scripts of cohorts and specialists share. Does not cover which runs are made or what is compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.evaluation.bootstrap import GroupSums, stack_seeds, sum_by_group
from tutelage.evaluation.normalisers import whisper_normaliser
from tutelage.evaluation.wer import Metric, score_transcripts

ROOT = Path(__file__).resolve().parents[1]
CAPTIONS = ROOT / "examples" / "captions_es"
METRICS: tuple[Metric, ...] = ("wer", "cer", "capped_wer", "loop_rate")
QUICK = ("training.threads=1", "evaluation.stock_clips=0", "evaluation.speed_clips=0", "training.checkpoint_every=20")
ADAPTERS = ("student.lora.first_block=0", "student.layer_map=origin")  # in every block, each beside its own origin

Line = Mapping[str, Any]
"""A line of a file of transcripts: id, reference, transcript, group, hit_cap."""


@dataclass(frozen=True)
class Runs:
    """A folder of runs and their ledger.

    Args:
        folder: Where they are.
    """

    folder: Path

    def distil(self, recipe: str, name: str, seed: int, overrides: Iterable[str]) -> Path:
        """One run of a shipped recipe, unless it is finished; an unfinished one is resumed. Returns its folder."""
        out = self.folder / name
        if not (out / "result.json").is_file():
            options = [word for override in (*QUICK, *overrides) for word in ("--set", override)]
            more = ["--resume"] if (out / "run.json").is_file() else []
            place = ["--seed", str(seed), "--out", str(out), "--ledger", str(self.folder / "ledger.db")]
            self.tutelage("distill", str(ROOT / "recipes" / recipe), *place, *options, *more)
        return out

    def tutelage(self, *words: str) -> None:
        """Run the command, which must succeed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        print("tutelage", *words[:2], file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "tutelage", *words, "--quiet"], check=True, stdout=subprocess.DEVNULL)


def result(run: Path) -> dict[str, Any]:
    """A run's document."""
    document: dict[str, Any] = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return document


def read_last(transcripts: Path) -> dict[str, Line]:
    """By id, what the last system of a file of transcripts wrote."""
    lines = [json.loads(line) for line in transcripts.read_text(encoding="utf-8").splitlines()]
    return {line["id"]: line for line in lines if line.get("system") == lines[-1].get("system")}


def sum_errors(lines: Mapping[str, Line]) -> dict[Metric, GroupSums]:
    """Sums within groups of every metric, clips in the order of their names."""
    rows = [lines[name] for name in sorted(lines)]
    caps, groups = [row.get("hit_cap") for row in rows], [row["group"] for row in rows]
    scored = score_transcripts(
        [row["reference"] for row in rows],
        [row["transcript"] for row in rows],
        whisper_normaliser("es"),
        groups=groups,
        hit_cap=None if None in caps else [bool(cap) for cap in caps],
    )
    return {metric: sum_by_group(*scored.counts(metric), groups) for metric in METRICS}


def mean_errors(members: Iterable[GroupSums]) -> GroupSums:
    """Errors averaged over members, group by group."""
    stacked = stack_seeds(list(members))
    return GroupSums(stacked.errors_SG.mean(axis=0, keepdims=True), stacked.units_G, stacked.bounded)


def rate_by_seed(sums: GroupSums) -> list[float]:
    """The rate of every seed."""
    return [float(rate) for rate in sums.errors_SG.sum(axis=1) / sums.units_G.sum()]
