"""Score models on held-out data with 95 % intervals, and compare any two of them.

Speech: word and character error rates on a manifest of JSON lines {"id", "audio", "text", "duration"}. Text: bits per
byte and perplexity on documents (.txt, .jsonl, .parquet or a folder). Either may be a dataset, written as in recipes:
--data '{dataset: FOLDER_OR_NAME, split: test, text: sentence}'. Both: loss, calibration, agreement with a teacher,
time, memory, size. MODEL is a folder, a run's folder (its student) or a hub name.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, cast

from tutelage.cli.options import add_options

if TYPE_CHECKING:
    from pathlib import Path

    from tutelage.records.document import Document
    from tutelage.runs.systems import Systems
    from tutelage.tasks.sources import AudioSource, DatasetSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage evaluate`."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="a model folder, a run's folder or a hub name")
    parser.add_argument("--data", required=True, metavar="DATA", help="manifest of the clips, documents, or a dataset")
    parser.add_argument("--task", choices=("speech", "text"), default="speech", help="what the models do (%(default)s)")
    parser.add_argument("--language", metavar="CODE", help="language of the clips, for example es (default: English)")
    parser.add_argument(
        "--system",
        action="append",
        default=[],
        dest="systems",
        metavar="NAME=MODEL[,MODEL...]",
        help="runs of one recipe under different seeds as one system, or a name for one model; may be repeated",
    )
    parser.add_argument("--baseline", metavar="NAME", help="whom all others are compared with (default: the first)")
    parser.add_argument("--all-pairs", action="store_true", help="compare every two systems")
    parser.add_argument(
        "--teacher", metavar="NAME", help="whose answers agreement is measured with (default: the first)"
    )
    parser.add_argument(
        "--speed",
        type=int,
        default=8,
        metavar="N",
        help="clips or documents that are timed one at a time, and memory measured on; 0: none (default: %(default)s)",
    )
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="clips or rows at once (default: 16)")
    parser.add_argument(
        "--beams", type=int, default=1, metavar="N", help="speech: beams of the search (default: greedy)"
    )
    parser.add_argument(
        "--long",
        choices=("refuse", "chunk"),
        default="refuse",
        help="speech: clips longer than a model's window are refused, or read in overlapping pieces (%(default)s)",
    )
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
    from tutelage.cli.evaluation_tables import evaluation_lines
    from tutelage.cli.output import print_document
    from tutelage.records.files import write_json

    systems, data = _check(arguments)
    document = (_evaluate_text if arguments.task == "text" else _evaluate_speech)(arguments, systems, data)
    if arguments.out is not None:
        write_json(arguments.out, document.to_dict())
    human = "" if arguments.json else "\n".join(evaluation_lines(document.to_dict()))
    print_document(document, as_json=arguments.json, human=human)
    return 0


def _check(arguments: argparse.Namespace) -> tuple[Systems, Path | DatasetSource]:
    """The systems and the data; every fault of the arguments together."""
    from tutelage.config import load_source
    from tutelage.errors import InputError

    faults = []
    least = {"batch_size": 1, "speed": 0, "seed": 0, "beams": 1}
    for name, low in least.items():
        value = getattr(arguments, name)
        if value is not None and value < low:
            faults.append(f"--{name.replace('_', '-')} is {value}; it must be a whole number from {low}.")
    if arguments.out is not None and arguments.out.exists() and not arguments.force:
        faults.append(f"{arguments.out} exists. Replace it with --force, or choose another --out.")
    if arguments.task == "text" and arguments.language is not None:
        faults.append(f"--language {arguments.language} belongs to speech; leave it out for text.")
    if arguments.task == "text" and (arguments.beams > 1 or arguments.long != "refuse"):
        faults.append("--beams and --long belong to speech; leave them out for text.")
    try:
        data = load_source(arguments.data, arguments.task)
    except InputError as error:
        faults += error.faults
    try:
        systems = _systems(arguments, faults)
    except InputError as error:
        faults += error.faults
    if faults:
        raise InputError(faults)
    return systems, data


def _systems(arguments: argparse.Namespace, faults: list[str]) -> Systems:
    """Models and systems; a system that cannot be read is added to `faults`."""
    from tutelage.runs.systems import System, Systems

    systems = [System(model, (model,)) for model in arguments.models]
    for given in arguments.systems:
        name, _, listed = given.partition("=")
        models = tuple(model.strip() for model in listed.split(","))
        if not name or not all(models):
            faults.append(f"--system {given} is not NAME=MODEL or NAME=MODEL,MODEL,...")
        else:
            systems.append(System(name, models))
    return Systems(tuple(systems), arguments.baseline, arguments.all_pairs, arguments.teacher)


def _evaluate_speech(arguments: argparse.Namespace, systems: Systems, data: Path | DatasetSource) -> Document:
    from tutelage.cli.output import progress, talk
    from tutelage.runs.speech.evaluate import Examination, evaluate

    examination = Examination(
        systems=systems,
        manifest=cast("Path | AudioSource", data),
        language=arguments.language,
        device=arguments.device or "auto",
        seed=arguments.seed or 0,
        batch_size=arguments.batch_size,
        speed_items=arguments.speed,
        beams=arguments.beams,
        long=arguments.long,
    )
    return evaluate(examination, progress=progress(arguments.quiet), talk=talk(arguments.quiet))


def _evaluate_text(arguments: argparse.Namespace, systems: Systems, data: Path | DatasetSource) -> Document:
    from tutelage.cli.output import progress, talk
    from tutelage.runs.text.evaluate import TextExamination, evaluate_text

    examination = TextExamination(
        systems=systems,
        documents=data,
        length=arguments.length,
        packing=arguments.packing,
        device=arguments.device or "auto",
        seed=arguments.seed or 0,
        batch_size=arguments.batch_size,
        speed_items=arguments.speed,
    )
    return evaluate_text(examination, progress=progress(arguments.quiet), talk=talk(arguments.quiet))
