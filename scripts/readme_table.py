"""Write the figures of README.md from results/*.json (`make docs`; a test checks that they are current).

With --check nothing is written, and the exit code says whether the table is current.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tutelage.cli.scores import percent, points
from tutelage.runs.speech.card import score_lines

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the table is out of date")
    arguments = parser.parse_args()
    readme = ROOT / "README.md"
    before = after = readme.read_text(encoding="utf-8")
    for name, make in BLOCKS.items():
        begin, end = f"<!-- {name}: begin (made by `make docs`) -->\n", f"<!-- {name}: end -->\n"
        head, _, rest = after.partition(begin)
        _, _, tail = rest.partition(end)
        if not tail:
            print(f"README.md lacks the lines {begin!r} and {end!r}", file=sys.stderr)
            return 2
        after = head + begin + make() + end + tail
    if arguments.check:
        return int(after != before)
    readme.write_text(after, encoding="utf-8")
    return 0


def read(name: str) -> Any:
    """A result file."""
    return json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))


def demo_table() -> str:
    """The demo's scores, size and speed, and the comparison over seeds, as Markdown."""
    demo, acceptance = read("demo.json"), read("acceptance.json")
    lines = [*facts(demo), between_arms(acceptance)]
    return "\n".join([*score_lines(demo), "", *(f"- {line}" for line in lines), ""])


def between_arms(acceptance: Mapping[str, Any]) -> str:
    """What distilling adds to cross-entropy alone, over paired seeds."""
    compared = acceptance["differences"]["wer"]
    return (
        f"Distilled against cross-entropy alone, {len(acceptance['seeds'])} paired seeds: "
        f"{points(compared['difference'])} points of WER ({compared['verdict']})."
    )


def facts(document: Mapping[str, Any]) -> list[str]:
    """Sentences under the table."""
    trained, student, speed = document["trainable"], document["student"], document["speed"]
    compared = document["comparisons"][0]
    factors = speed["real_time_factor"]
    difference = points(compared["difference"])
    versus = f"Student against its teacher at the same window: {difference} points of WER ({compared['verdict']})."
    size = (
        f"Trained: {trained['params']:,} parameters, **{trained['share']:.2%} of the teacher's** "
        f"({trained['lora_share']:.2%} without the projectors). Student: {student['params'] / 1e6:.1f} M parameters "
        f"({student['share_of_teacher_params']:.0%}), {student['bytes'] / 1e6:.0f} MB."
    )
    time = (
        f"Processing time **{percent(speed['saving'], 0)} % below** the stock teacher's (real-time factor "
        f"{factors['stock']['value']:.2f} to {factors['both']['value']:.2f}); of that saving the window accounts for "
        f"{percent(speed['window'], 0)} %, the layers for {percent(speed['layers'], 0)} %."
    )
    return [versus, size, time]


def fit_table() -> str:
    """The fit against its peers on the same runs: time and what each misses of the best objective, as Markdown."""
    document = read("fit.json")
    lines = ["| task | ours, CPU s | against | its starts (run) | its time over ours | its objective above ours |"]
    lines.append("|---|---|---|---|---|---|")
    tasks = {
        "4,096 starts, 5 constants, 80 runs": document["many_starts"]["hoffmann"],
        "4,096 starts, 9 constants, 300 runs": document["many_starts"]["distillation-eq8"],
        "one fit, 5 constants, 240 runs": document["one_fit_of_240_runs"],
    }
    for task, measured in tasks.items():
        ours = measured["ours"]
        for peer, theirs in measured.items():
            if not isinstance(theirs, dict) or peer == "ours" or "time_ratio" not in theirs:
                continue
            starts = f"{theirs['starts']:,} ({theirs['starts_run']:,})"
            lines.append(
                f"| {task} | {ours['seconds']['value']:.2g} | {peer} | {starts} | "
                f"{_ratio(theirs['time_ratio'])} | {theirs['gap'] - ours['gap']:.0e} |"
            )
    drawn = document["bootstrap"]["distillation-eq8"]
    tail = (
        "Baselines ran the starts in brackets: their time is extrapolated, their objective what these starts reached. "
        f"4,096 bootstrap fits of the nine-constant law take {drawn['seconds_for_4096']:.3g} CPU s on one core, with a "
        f"median excess of {drawn['median_excess']:.0e} over {drawn['judged_against']}."
    )
    return "\n".join([*lines, "", tail, ""])


def _ratio(ratio: Mapping[str, Any]) -> str:
    ends = "" if ratio["low"] is None else f" [{ratio['low']:.3g}, {ratio['high']:.3g}]"
    return f"{ratio['value']:,.3f}{ends}" if ratio["value"] < 10 else f"{ratio['value']:,.0f}{ends}"


BLOCKS: Mapping[str, Callable[[], str]] = {"demo": demo_table, "fit": fit_table}
"""What README holds between the lines `NAME: begin` and `NAME: end`."""

if __name__ == "__main__":
    raise SystemExit(main())
