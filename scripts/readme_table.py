"""Write the demo's figures into README.md from results/*.json (`make docs`; a test checks that they are current).

With --check nothing is written, and the exit code says whether the table is current.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.cli.scores import percent, points
from tutelage.runs.speech.card import score_lines

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- demo: begin (made by `make docs`) -->\n", "<!-- demo: end -->\n"


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the table is out of date")
    arguments = parser.parse_args()
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    if not tail:
        print(f"README.md lacks the lines {BEGIN!r} and {END!r}", file=sys.stderr)
        return 2
    after = head + BEGIN + table() + END + tail
    if arguments.check:
        return int(after != before)
    readme.write_text(after, encoding="utf-8")
    return 0


def table() -> str:
    """The demo's scores, size and speed, and the comparison over seeds, as Markdown."""
    demo, acceptance = (
        json.loads((ROOT / "results" / name).read_text(encoding="utf-8")) for name in ("demo.json", "acceptance.json")
    )
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


if __name__ == "__main__":
    raise SystemExit(main())
