"""`log.jsonl`: one line a step, each step once and in order, over any number of interruptions.

Covers appending, taking back the steps after a checkpoint, and reading. Does not cover drawing (`reports`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tutelage.records.files import explain_write_failure, write_atomically
from tutelage.training.step import StepReport


class StepLog:
    """Appends step reports to a file.

    Args:
        path: The file; made on the first append.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, report: StepReport) -> None:
        """Add one line and hand it to the operating system, so that a kill of this process cannot lose it."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(report.to_dict(), ensure_ascii=False) + "\n")
        except OSError as error:
            raise explain_write_failure(error, self.path) from error

    def sync(self) -> None:
        """Make what was appended durable; before a checkpoint, so that the log never lacks a step that it covers."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def rewind(self, step: int) -> None:
        """Drop the lines of steps after `step`, and a line that a kill cut off. They will be taken again."""
        if not self.path.exists():
            return
        kept = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self._lines() if line["step"] <= step)
        write_atomically(self.path, kept)

    def read(self) -> tuple[StepReport, ...]:
        """Every complete line, in order."""
        return tuple(StepReport(**line) for line in self._lines()) if self.path.exists() else ()

    def _lines(self) -> list[dict[str, Any]]:
        """The parsed lines up to the first that is not one."""
        lines: list[dict[str, Any]] = []
        for text in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
        return lines
