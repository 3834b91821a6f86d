"""Predict the loss of a student from its size, its tokens and its teacher.

The teacher is given by its measured loss, or by its size and tokens, from which the law predicts its loss; without a
teacher only the supervised loss and the best teacher are printed. Numbers may be written as 1e21, 143M, 7B or 1.5T.
"""

from __future__ import annotations

import argparse

from tutelage.cli.options import add_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage predict`."""
    parser.add_argument("--student-params", required=True, metavar="N", help="parameters of the student")
    parser.add_argument("--student-tokens", required=True, metavar="D", help="tokens that the student is trained on")
    parser.add_argument("--teacher-loss", metavar="L", help="the teacher's measured loss, nats per token")
    parser.add_argument("--teacher-params", metavar="N", help="parameters of the teacher, with --teacher-tokens")
    parser.add_argument("--teacher-tokens", metavar="D", help="tokens of the teacher, with --teacher-params")
    parser.add_argument(
        "--unique-tokens", metavar="U", help="distinct tokens among them, for a data-constrained law (default: all)"
    )
    add_options(parser, "--law", "--accept-unidentified")


def run(arguments: argparse.Namespace) -> int:
    """Print the prediction; returns the exit code."""
    from tutelage.cli.output import print_document, table
    from tutelage.cli.quantities import Faults
    from tutelage.planning.prediction import predict

    faults = Faults()
    law = faults.law(arguments.law, arguments.accept_unidentified)
    student_params = faults.quantity(arguments.student_params, "--student-params")
    student_tokens = faults.quantity(arguments.student_tokens, "--student-tokens")
    given = {
        name: faults.quantity(getattr(arguments, name), f"--{name.replace('_', '-')}")
        for name in ("teacher_loss", "teacher_params", "teacher_tokens", "unique_tokens")
    }
    size_given = [name for name in ("teacher_params", "teacher_tokens") if getattr(arguments, name) is not None]
    if arguments.teacher_loss is not None and size_given:
        faults.add("--teacher-loss and --teacher-params/--teacher-tokens are both given; give one kind of teacher")
    elif len(size_given) == 1:
        faults.add("--teacher-params and --teacher-tokens belong together; give both, or --teacher-loss")
    faults.raise_if_any()
    # What is required and was read without a fault is there; the checker cannot know.
    assert law is not None and student_params is not None and student_tokens is not None  # noqa: PT018
    prediction = predict(law, student_params, student_tokens, **given)
    rows = [[name, *values] for name, values in prediction.rows()]
    human = table(rows, ("", "nats per token", "low", "high", "")) + f"\n\nlaw: {law.name} ({law.source})"
    print_document(prediction.document(), as_json=arguments.json, human=human)
    return 0
