"""A finished run's student, its adapter, or the student converted for another engine, as a folder of its own.

Covers checking the run's files against the hashes that the run wrote, copying, converting, comparing the converted
model with the student on held-out data, and putting the folder in place whole. Does not cover the conversion itself
(`students.ctranslate2_export`) or writing a student in the first place (`students.export`). Nothing here imports torch
before the run, the data and the place were found to be good.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from tutelage.errors import InputError
from tutelage.models.layout import window_seconds
from tutelage.models.verify import read_config
from tutelage.progress import Progress, Talk, no_progress, say_nothing
from tutelage.records.document import Caution, Document
from tutelage.records.files import explain_write_failure, write_json
from tutelage.records.hashing import sha256_file
from tutelage.runs.finished import FinishedRun, read_finished
from tutelage.students.ctranslate2_export import (
    QUANTIZATIONS,
    WHISPER_SECONDS,
    convert_student,
    frames_of,
    require_ctranslate2,
    write_speech_card,
)
from tutelage.tasks.sources import AudioSource, DatasetSource
from tutelage.tasks.speech.manifest import Manifest, read_manifest
from tutelage.tasks.text.documents import Corpus, read_documents

Form = Literal["hf", "adapter", "ctranslate2"]
RECORD = "export.json"
"""What marks a folder as an export: only such a folder is ever replaced."""


@dataclass(frozen=True)
class ExportOrder:
    """What is asked for.

    Args:
        run: The folder of a finished run.
        to: The form.
        out: The folder to write.
        quantization: How converted weights are stored; None keeps float32. For ctranslate2 alone.
        data: Held-out data to compare a converted model on; None takes the run's own, where it still lies there.
        samples: Clips or documents compared, evenly spread.
        force: Replace an earlier export.
    """

    run: Path
    to: Form
    out: Path
    quantization: str | None = None
    data: Path | DatasetSource | None = None
    samples: int = 32
    force: bool = False


@dataclass(frozen=True)
class ExportPlan:
    """An order without faults.

    Args:
        order: The order.
        finished: The run.
        source: The folder that is copied or converted.
        files: SHA-256 of its files by name.
        held_out: What a converted model is compared on; None where there is nothing.
        cautions: Soft faults.
    """

    order: ExportOrder
    finished: FinishedRun
    source: Path
    files: Mapping[str, str]
    held_out: Manifest | Corpus | None
    cautions: tuple[Caution, ...]

    def body(self) -> dict[str, Any]:
        """The document's keys that are known before anything is written."""
        order = self.order
        return {
            "path": str(order.out),
            "run": str(order.run),
            "to": order.to,
            "quantization": _storage(order) if order.to == "ctranslate2" else None,
            "task": self.finished.task,
            "source": {"path": str(self.source), "sha256": dict(self.files)},
            "compare_on": None if self.held_out is None else self.held_out.sha256,
        }


def plan_export(order: ExportOrder) -> ExportPlan:
    """Check an order without writing or loading a model.

    Raises:
        InputError: Every fault of the order; or the run is not finished, or a file of it is not what the run wrote.
        MissingExtraError: A conversion was asked for and CTranslate2 is not installed.
    """
    faults = [*_faults_of_options(order), *_faults_of_place(order)]
    if faults:
        raise InputError(faults)
    if order.to == "ctranslate2":
        require_ctranslate2()
    finished = read_finished(order.run)
    source, files = finished.adapter() if order.to == "adapter" else finished.student()
    if order.to != "ctranslate2":
        return ExportPlan(order, finished, source, files, None, ())
    held_out = _read_held_out(order, finished)
    cautions = [*_caution_of_window(finished, source), *_caution_of_data(order, finished, held_out)]
    return ExportPlan(order, finished, source, files, held_out, tuple(cautions))


def export_run(plan: ExportPlan, progress: Progress = no_progress, talk: Talk = say_nothing) -> Document:
    """Write the folder, whole or not at all; a converted model is compared with the student before it is put there.

    Raises:
        InputError: The place cannot be written, or the student cannot be converted.
        TutelageError: The converted model does not compute what the student does.
    """
    order, agreement = plan.order, None
    try:
        order.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=order.out.parent, prefix=f".{order.out.name}-") as scratch:
            built = Path(scratch) / "new"
            if order.to == "ctranslate2":
                talk(f"converting {plan.source}, weights stored as {_storage(order)}")
                _convert(plan, built)
                agreement = _compare(plan, built, progress)
            else:
                built.mkdir()
                for name in plan.files:
                    shutil.copyfile(plan.source / name, built / name)
            written = {file.name: sha256_file(file) for file in sorted(built.iterdir())}
            size = sum(file.stat().st_size for file in built.iterdir())
            body = {**plan.body(), "agreement": agreement, "sha256": written, "bytes": size}
            document = Document("export", body, warnings=plan.cautions)
            write_json(built / RECORD, _record(document))
            _put(built, order.out, Path(scratch) / "old")
    except OSError as error:
        raise explain_write_failure(error, order.out) from error
    return document


def _record(document: Document) -> dict[str, Any]:
    """The document without the paths of this machine: exports are passed on."""
    record = {key: value for key, value in document.to_dict().items() if key not in ("path", "run", "warnings")}
    return {**record, "source": record["source"]["sha256"]}


def _put(built: Path, out: Path, aside: Path) -> None:
    """Rename `built` to `out`; what was there is moved aside first and comes back if that fails."""
    replaced = out.exists()
    if replaced:
        out.rename(aside)
    try:
        built.rename(out)
    except OSError:
        if replaced:
            aside.rename(out)
        raise


def _storage(order: ExportOrder) -> str:
    return order.quantization or "float32"


def _convert(plan: ExportPlan, built: Path) -> None:
    convert_student(plan.source, built, _storage(plan.order), plan.finished.task)
    if plan.finished.task == "speech":
        language, task = plan.finished.spoken
        spoken = [f"<|{language}|>", f"<|{task}|>"] if language else []
        prompt = ["<|startoftranscript|>", *spoken, "<|notimestamps|>"]
        write_speech_card(built, plan.finished.name, read_config(plan.source), prompt)


def _compare(plan: ExportPlan, built: Path, progress: Progress) -> dict[str, Any] | None:
    """How far the converted model agrees with the student; None where there is no data."""
    order, finished = plan.order, plan.finished
    if plan.held_out is None:
        return None
    if isinstance(plan.held_out, Manifest):
        from tutelage.runs.speech import converted as speech

        clips = plan.held_out.spread(order.samples)
        return speech.compare_converted(plan.source, built, _storage(order), clips, finished.spoken, progress)
    from tutelage.runs.text import converted as text

    documents = plan.held_out.spread(order.samples)
    length = int(finished.data["length"])
    return text.compare_converted(plan.source, built, _storage(order), documents, length, progress)


def _faults_of_options(order: ExportOrder) -> list[str]:
    faults = []
    if order.to != "ctranslate2":
        given = {"--quantization": order.quantization, "--data": order.data}
        names = [f"{name} {value}" for name, value in given.items() if value is not None]
        faults += [f"{name} belongs to --to ctranslate2; --to {order.to} copies files as they are." for name in names]
    if order.quantization is not None and order.quantization not in QUANTIZATIONS:
        faults.append(f"--quantization is {order.quantization}; CTranslate2 knows {', '.join(QUANTIZATIONS)}.")
    if order.samples < 1:
        faults.append(f"--samples is {order.samples}; it must be a whole number from 1.")
    return faults


def _faults_of_place(order: ExportOrder) -> list[str]:
    out, run = order.out.resolve(), order.run.resolve()
    if out == run or out in run.parents:
        return [f"{order.out} holds the run itself; choose another --out."]
    if order.out.is_symlink() or (order.out.exists() and not order.force):
        way = "Replace it with --force, or choose" if (order.out / RECORD).is_file() else "Choose"
        return [f"{order.out} exists. {way} another --out."]
    if order.out.exists() and not (order.out / RECORD).is_file():
        return [f"{order.out} holds no {RECORD}, so it is no earlier export and --force does not replace it."]
    nearest = next(parent for parent in order.out.absolute().parents if parent.exists())
    return [] if nearest.is_dir() else [f"{order.out} cannot be made: {nearest} is not a folder. Choose another --out."]


def _read_held_out(order: ExportOrder, finished: FinishedRun) -> Manifest | Corpus | None:
    """The data of the comparison, all of it checked; None where the run's own is not there any more."""
    source = finished.find_held_out(order.data)
    if source is None:
        return None
    if finished.task == "text":
        return read_documents(source)
    window = window_seconds(read_config(finished.path / "student"))
    overlong: Literal["error", "drop"] = "drop" if finished.data.get("overlong") == "drop" else "error"
    return read_manifest(cast("Path | AudioSource", source), window_seconds=window, overlong=overlong)


def _caution_of_window(finished: FinishedRun, source: Path) -> list[Caution]:
    """What a program that takes 30 s for granted makes of a student with a shorter window."""
    if finished.task != "speech":
        return []
    config = read_config(source)
    window = window_seconds(config)
    if window >= WHISPER_SECONDS:
        return []
    text = (
        f"The student hears {window:g} s at once. CTranslate2 opens it and takes features of {frames_of(config)} "
        "frames; faster-whisper pads every clip to 3000 and is refused until it is told otherwise: README.md of the "
        "export shows how."
    )
    return [Caution("short-window", "window_seconds", window, (WHISPER_SECONDS, WHISPER_SECONDS), text)]


def _caution_of_data(order: ExportOrder, finished: FinishedRun, held_out: Manifest | Corpus | None) -> list[Caution]:
    if held_out is None:
        named = str(finished.held_out)
        text = (
            f"The converted model was not compared with the student: the run's held-out data is not at {named} any "
            "more. Name some with --data."
        )
        return [Caution("not-compared", "data", named, None, text)]
    if order.data is None and held_out.sha256 != finished.held_out_sha256:
        text = f"The held-out data at {finished.held_out} changed since the run; the comparison is on the new."
        return [Caution("other-data", "data", held_out.sha256, None, text)]
    return []
