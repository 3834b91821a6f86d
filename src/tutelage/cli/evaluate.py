"""Score models on a manifest: word and character error rates with 95 % intervals, each compared with the first model.

MODEL is a folder or a hub name; the manifest is JSON lines {"id", "audio", "text", "duration"}.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tutelage.cli.options import add_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage evaluate`."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a model folder or a hub name")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="manifest of the clips")
    parser.add_argument("--language", metavar="CODE", help="language of the clips, for example es (default: English)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="clips decoded together (default: 16)")
    add_options(parser, "--seed", "--device", "--out", "--force")


def run(arguments: argparse.Namespace) -> int:
    """Print the scores; returns the exit code."""
    from tutelage.cli.output import print_document, progress, talk
    from tutelage.cli.scores import comparison_lines, score_table
    from tutelage.errors import InputError
    from tutelage.records.files import write_json
    from tutelage.runs.evaluate import Examination, evaluate

    if arguments.batch_size < 1:
        raise InputError(f"--batch-size is {arguments.batch_size}; it must be a whole number from 1.")
    if arguments.seed is not None and arguments.seed < 0:
        raise InputError(f"--seed is {arguments.seed}; it must be a whole number from 0.")
    if arguments.out is not None and arguments.out.exists() and not arguments.force:
        raise InputError(f"{arguments.out} exists. Replace it with --force, or choose another --out.")
    examination = Examination(
        tuple(arguments.models),
        arguments.data,
        arguments.language,
        arguments.device or "auto",
        arguments.seed or 0,
        batch_size=arguments.batch_size,
    )
    document = evaluate(examination, progress=progress(arguments.quiet), talk=talk(arguments.quiet))
    if arguments.out is not None:
        write_json(arguments.out, document.to_dict())
    body = document.body
    human = "\n".join([score_table(body["models"]), *comparison_lines(body["comparisons"])])
    print_document(document, as_json=arguments.json, human=human)
    return 0
