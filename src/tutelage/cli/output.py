"""Printing: data to stdout, talk and progress to stderr. Nothing else in the package prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tutelage.progress import Advance, Progress, Talk, no_progress, say_nothing
from tutelage.records.document import Document


def print_document(document: Document, *, as_json: bool, human: str) -> None:
    """Print the one document on stdout, or its human rendering with the warnings on stderr."""
    if as_json:
        print(document.to_json())
        return
    for warning in document.warnings:
        print(f"warning: {warning.text}", file=sys.stderr)
    if document.status.text and document.status.kind != "done":
        print(f"{document.status.kind}: {document.status.text} {document.status.remedy}".rstrip(), file=sys.stderr)
    print(human)


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """A plain text table; numbers are aligned on their decimal point."""
    import tabulate

    tabulate.MIN_PADDING = 0  # a header takes no more room than it needs: tables fit a terminal
    return tabulate.tabulate(rows, headers=headers, tablefmt="simple")


def talk(quiet: bool) -> Talk:
    """The function that says one line to the user."""
    return say_nothing if quiet else _say


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def progress(quiet: bool) -> Progress:
    """Bars with the time left on stderr."""
    return no_progress if quiet else _bar


@contextmanager
def _bar(title: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    from tqdm import tqdm

    interactive = sys.stderr.isatty()
    with tqdm(
        total=total, initial=done, desc=title, unit=unit, mininterval=0.2 if interactive else 10.0, dynamic_ncols=True
    ) as bar:

        def advance(count: int = 1, note: str = "") -> None:
            if note:
                bar.set_postfix_str(note, refresh=False)
            bar.update(count)

        yield advance
