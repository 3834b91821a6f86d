"""From a law, a plan or a run to a page: what `tutelage report` calls.

Covers: what a source is, by its schema; a page with its hash and its figures. Does not cover: writing it (the caller's,
with `records.files`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError
from tutelage.laws import files
from tutelage.laws.published import PUBLISHED
from tutelage.laws.validity import status_cautions
from tutelage.records.document import Caution
from tutelage.records.hashing import sha256_json
from tutelage.reports import run_files
from tutelage.reports.content import Figure, Page
from tutelage.reports.law_report import law_page
from tutelage.reports.plan_document import Part
from tutelage.reports.plan_report import plan_page
from tutelage.reports.render import render
from tutelage.reports.run_report import run_page

PLAN_SCHEMA = {"name": "tutelage.plan", "version": 1}


@dataclass(frozen=True)
class Report:
    """A page that was made.

    Args:
        html: The file's content.
        figures: Its figures, with what each found.
        warnings: What readers of the page must be told beside it.
    """

    html: str
    figures: tuple[Figure, ...]
    warnings: tuple[Caution, ...] = ()

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.html.encode("utf-8")).hexdigest()


def report(source: str) -> Report:
    """The page about what `source` names.

    Args:
        source: A published law by name, a law file, a file with the document of `tutelage plan --json`, a run's folder
            or its result.json.

    Returns:
        The page; the same source gives the same bytes.

    Raises:
        InputError: There is no such file, or it is none of these.
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    if source in PUBLISHED:
        law = PUBLISHED[source]
        return _made(law_page(law), sha256_json(files.law_to_dict(law)), status_cautions(law))
    path = Path(source)
    if path.is_dir():
        return _of_run(path)
    content, document = _read(path)
    digest = hashlib.sha256(content).hexdigest()
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema == files.SCHEMA:
        law = files.read_law(path)
        return _made(law_page(law), digest, status_cautions(law))
    if schema == run_files.SCHEMA:
        return _of_run(path)
    if schema == PLAN_SCHEMA:
        try:
            return _made(plan_page(Part(document, "")), digest)
        except InputError as error:
            raise InputError(f"{path}: {fault}" for fault in error.faults) from error
    written = "no schema" if schema is None else f"the schema {json.dumps(schema, ensure_ascii=True)[:80]}"
    raise InputError(
        f"{path} has {written}; a report is made from a law file (schema {json.dumps(files.SCHEMA)}), from what "
        f"`tutelage plan --json` prints (schema {json.dumps(PLAN_SCHEMA)}), or from a run's folder"
    )


def _of_run(path: Path) -> Report:
    """The page about a run, whose warnings are on it."""
    try:
        run = run_files.read_run(path)
        return _made(run_page(run), run.sha256)
    except InputError as error:
        raise InputError(fault if str(path) in fault else f"{path}: {fault}" for fault in error.faults) from error


def _read(path: Path) -> tuple[bytes, Any]:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(
            f"no file {str(path)!r}; give a run's folder, a law file, what `tutelage plan --json` printed, or a "
            f"published law ({', '.join(PUBLISHED)})"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give a law file or a plan's document") from error
    try:
        return content, json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not JSON ({error}); give a law file or what `tutelage plan --json` printed"
        ) from error


def _made(page: Page, digest: str, warnings: tuple[Caution, ...] = ()) -> Report:
    return Report(render(page, digest), page.figures, warnings)
