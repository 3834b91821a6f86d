"""Divide a budget between teacher and student; distil or train?

Give one budget: --compute (FLOPs that one student may cost), --gpu-hours or --money (with --hardware), --tokens (what
the student is trained on) or --target-loss (the least compute is looked for). Scenarios: best (the teacher is free),
inference (pay for its logits), pretraining (train it; its logits are stored and free), both, shared (both, divided by
--students), existing (the best --teacher). Numbers may be written as 1e21, 143M, 7B or 1.5T.
"""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING

from tutelage.cli.options import add_options
from tutelage.cli.plan_arguments import add_question, read_question

if TYPE_CHECKING:
    from tutelage.planning.plan import Plan

_WIDTH = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage plan`."""
    add_options(parser, "--law", "--accept-unidentified")
    add_question(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; returns the exit code."""
    from tutelage.cli.output import print_document
    from tutelage.cli.quantities import Faults
    from tutelage.planning.plan import plan

    faults = Faults()
    law = faults.law(arguments.law, arguments.accept_unidentified)
    question = read_question(arguments, faults)
    faults.raise_if_any()
    # What was read without a fault is there; the checker cannot know.
    assert law is not None and question is not None  # noqa: PT018
    answer = plan(question, law)
    print_document(answer.document(), as_json=arguments.json, human=render(answer))
    return 0


def render(answer: Plan) -> str:
    """The tables of a plan, then its words, within a terminal's width."""
    from tutelage.cli.output import table
    from tutelage.planning.economics_words import ASSUMPTION_HEADERS, assumption_rows, cost_headers, cost_rows
    from tutelage.planning.words import HEADERS, in_words, rows

    tables = [
        (rows(answer), HEADERS),
        (cost_rows(answer.economics), cost_headers(answer.economics)),
        (assumption_rows(answer.economics.hardware), ASSUMPTION_HEADERS),
    ]
    drawn = [table(body, headers) for body, headers in tables if body]
    asked = [f"Budget: {answer.question.asked}"] if answer.question.asked else []
    return "\n\n".join([*asked, *drawn, wrapped(in_words(answer))])


def wrapped(text: str) -> str:
    """`text` with long lines broken; what belongs to an indented or a listed line is indented below it."""
    lines = []
    for line in text.splitlines():
        start = len(line) - len(line.lstrip(" -"))
        lines += textwrap.wrap(line, _WIDTH, subsequent_indent=" " * start, break_long_words=False) or [""]
    return "\n".join(lines)
