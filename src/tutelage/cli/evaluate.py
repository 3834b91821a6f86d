"""Score models on held-out data with 95 % intervals, each compared with the first model.

Speech: word and character error rates on a manifest of JSON lines {"id", "audio", "text", "duration"}. Text: nats per
token, perplexity and bits per byte on documents (.txt, .jsonl, .parquet or a folder). MODEL is a folder or a hub name.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.cli.options import add_options

if TYPE_CHECKING:
    from tutelage.records.document import Document


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage evaluate`."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a model folder or a hub name")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="manifest of the clips, or documents")
    parser.add_argument("--task", choices=("speech", "text"), default="speech", help="what the models do (%(default)s)")
    parser.add_argument("--language", metavar="CODE", help="language of the clips, for example es (default: English)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="clips or rows at once (default: 16)")
    parser.add_argument("--length", type=int, default=512, metavar="N", help="text: tokens in a row (default: 512)")
    parser.add_argument(
        "--packing",
        choices=("documents", "stream"),
        default="documents",
        help="text: documents kept apart in their rows, or read one after the other (default: documents)",
    )
    add_options(parser, "--seed", "--device", "--out", "--force")


def run(arguments: argparse.Namespace) -> int:
    """Print the scores; returns the exit code."""
    from tutelage.cli.output import print_document
    from tutelage.cli.scores import comparison_lines, score_table
    from tutelage.errors import InputError
    from tutelage.records.files import write_json

    if arguments.batch_size < 1:
        raise InputError(f"--batch-size is {arguments.batch_size}; it must be a whole number from 1.")
    if arguments.seed is not None and arguments.seed < 0:
        raise InputError(f"--seed is {arguments.seed}; it must be a whole number from 0.")
    if arguments.out is not None and arguments.out.exists() and not arguments.force:
        raise InputError(f"{arguments.out} exists. Replace it with --force, or choose another --out.")
    document = _evaluate_text(arguments) if arguments.task == "text" else _evaluate_speech(arguments)
    if arguments.out is not None:
        write_json(arguments.out, document.to_dict())
    body = document.body
    human = "\n".join([score_table(body["models"]), *comparison_lines(body["comparisons"])])
    print_document(document, as_json=arguments.json, human=human)
    return 0


def _evaluate_speech(arguments: argparse.Namespace) -> Document:
    from tutelage.cli.output import progress, talk
    from tutelage.runs.speech.evaluate import Examination, evaluate

    examination = Examination(
        tuple(arguments.models),
        arguments.data,
        arguments.language,
        arguments.device or "auto",
        arguments.seed or 0,
        batch_size=arguments.batch_size,
    )
    return evaluate(examination, progress=progress(arguments.quiet), talk=talk(arguments.quiet))


def _evaluate_text(arguments: argparse.Namespace) -> Document:
    from tutelage.cli.output import progress, talk
    from tutelage.errors import InputError
    from tutelage.runs.text.evaluate import TextExamination, evaluate_text

    if arguments.language is not None:
        raise InputError(f"--language {arguments.language} belongs to speech; leave it out for text.")
    examination = TextExamination(
        tuple(arguments.models),
        arguments.data,
        arguments.length,
        arguments.packing,
        arguments.device or "auto",
        arguments.seed or 0,
        batch_size=arguments.batch_size,
    )
    return evaluate_text(examination, progress=progress(arguments.quiet), talk=talk(arguments.quiet))
