"""Divide a budget between teacher and student; distil or train?

Give one budget: --compute (FLOPs that one student may cost), --tokens (what the student is trained on) or --target-loss
(the least compute is looked for). Scenarios: best (the teacher is free), inference (pay for its logits), pretraining
(train it; its logits are stored and free), both, shared (both, divided by --students), existing (the best --teacher).
Numbers may be written as 1e21, 143M, 7B or 1.5T.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tutelage.cli.options import add_options

if TYPE_CHECKING:
    from tutelage.cli.quantities import Faults
    from tutelage.planning.scenarios import Teacher

_TEACHER_KEYS = ("name", "params", "loss")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage plan`."""
    parser.add_argument("--student-params", required=True, metavar="N", help="parameters of the student")
    parser.add_argument(
        "--compute", metavar="C", help="budget in FLOPs for one student, its share of the teacher included"
    )
    parser.add_argument("--tokens", metavar="D", help="tokens that the student is trained on")
    parser.add_argument("--target-loss", metavar="L", help="loss that the student should reach, nats per token")
    parser.add_argument(
        "--teacher",
        action="append",
        default=[],
        metavar="name=7B,params=7.7e9,loss=2.02",
        help="a teacher that exists, with its measured loss; may be repeated",
    )
    parser.add_argument("--students", default="1", metavar="K", help="students that share a teacher (default: 1)")
    add_options(parser, "--law")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; returns the exit code."""
    from tutelage.cli.output import print_document, table
    from tutelage.cli.quantities import Faults
    from tutelage.planning.plan import plan
    from tutelage.planning.question import Question
    from tutelage.planning.words import HEADERS, in_words, rows

    faults = Faults()
    law = faults.law(arguments.law)
    size = faults.quantity(arguments.student_params, "--student-params")
    compute = faults.quantity(arguments.compute, "--compute")
    tokens = faults.quantity(arguments.tokens, "--tokens")
    target_loss = faults.quantity(arguments.target_loss, "--target-loss")
    if [arguments.compute, arguments.tokens, arguments.target_loss].count(None) != 2:
        faults.add("give exactly one of --compute, --tokens and --target-loss")
    teachers = tuple(teacher for text in arguments.teacher if (teacher := _teacher(text, faults)) is not None)
    students = _students(arguments.students, faults)
    faults.raise_if_any()
    # What is required and was read without a fault is there; the checker cannot know.
    assert law is not None and size is not None  # noqa: PT018
    answer = plan(Question(size, compute, tokens, target_loss, teachers, students), law)
    body = table(rows(answer), HEADERS)
    print_document(answer.document(), as_json=arguments.json, human=f"{body}\n\n{in_words(answer)}")
    return 0


def _students(text: str, faults: Faults) -> int:
    count = faults.quantity(text, "--students")
    if count is not None and count != int(count):
        faults.add(f"--students is {text}; it must be a whole number")
    return int(count or 1)


def _teacher(text: str, faults: Faults) -> Teacher | None:
    """The teacher that `name=..,params=..,loss=..` describes, or None where it is at fault."""
    from tutelage.planning.scenarios import Teacher

    parts = dict(part.partition("=")[::2] for part in text.split(","))
    unknown = [key for key in parts if key not in _TEACHER_KEYS]
    missing = [key for key in _TEACHER_KEYS if not parts.get(key)]
    if unknown or missing:
        said = [f"unknown {', '.join(map(repr, unknown))}"] if unknown else []
        said += [f"missing {', '.join(missing)}"] if missing else []
        faults.add(f"--teacher {text!r}: {'; '.join(said)}; write it as name=7B,params=7.7e9,loss=2.02")
        return None
    label = f"--teacher {parts['name']}"
    params = faults.quantity(parts["params"], f"{label}: params")
    loss = faults.quantity(parts["loss"], f"{label}: loss")
    if params is None or loss is None:
        return None
    return Teacher(parts["name"], params, loss)
