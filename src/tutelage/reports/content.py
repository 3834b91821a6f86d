"""What a page says, as frozen values: tables, figures, sections.

Covers: the values, checked for what every page owes its reader (a figure has a finding and a table). Does not cover:
what a law or a plan has to say (`law_report`, `plan_report`), drawing (`canvas`), nor HTML (`render`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tutelage.reports.canvas import Canvas

Tone = Literal["plain", "good", "warn", "bad"]
_UNITS = re.compile(r"\bto\b|[kMBT](?![a-z])")
_NUMBER = re.compile(r"[+\-−±]?\d[^A-Za-z]*|–|")


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column names the row.

    Args:
        headers: One a column.
        rows: Cells, each row as long as `headers`; a line break sets an interval below its value.
        title: What the table shows.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.headers) for row in self.rows):
            raise ValueError("each row of a table has one cell a column")

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers alone, and so are set flush right; never the first, which names the row."""
        _, *columns = zip(*self.rows, strict=True)
        return (
            False,
            *(any(column) and all(_NUMBER.fullmatch(_UNITS.sub("", cell)) for cell in column) for column in columns),
        )


@dataclass(frozen=True)
class Figure:
    """A drawing with what it shows.

    Args:
        id: Unique on the page, a letter first, of letters, digits and hyphens.
        title: What is drawn, a few words.
        finding: What the numbers say, computed from them; the caption.
        reading: How to read the drawing.
        table: The numbers behind it.
        draw: Draws it.
        height: Height over width of the wide drawing.
    """

    id: str
    title: str
    finding: str
    reading: str
    table: Table
    draw: Callable[[Canvas], None]
    height: float = 0.52

    def __post_init__(self) -> None:
        if not self.finding or not self.table.rows:
            raise ValueError(f"the figure {self.id} has no finding or no numbers")

    def to_dict(self) -> dict[str, str]:
        """What the document of `tutelage report` says of it."""
        return {"id": self.id, "title": self.title, "finding": self.finding}


@dataclass(frozen=True)
class Piece:
    """A part of a line.

    Args:
        text: Words.
        kind: "lost" is struck out, "added" underlined, "none" said softly; "" is plain.
    """

    text: str
    kind: Literal["", "lost", "added", "none"] = ""


@dataclass(frozen=True)
class Line:
    """One text of an example.

    Args:
        label: Whose it is.
        pieces: The text, in order.
    """

    label: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Example:
    """Texts that belong together, one below the other.

    Args:
        title: What they are of.
        lines: The texts.
    """

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Section:
    """A part of a page, in the order: paragraphs, tables, figures, examples, items.

    Args:
        title: Its heading.
        paragraphs: Text.
        tables: Tables that are always open.
        figures: Figures.
        examples: Texts side by side.
        items: A list, one sentence an item.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    items: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Banner:
    """What stands on top: the status of a law, the verdict of a plan.

    Args:
        tone: How loud it is.
        headline: A few words in large type.
        lines: Sentences below.
    """

    tone: Tone
    headline: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole page.

    Args:
        kicker: The kind of report, above the title.
        title: What the report is about.
        subtitle: One line below.
        banners: The status first.
        facts: Label and value, in the order of reading.
        sections: The parts; empty ones are left out when the page is made.
        footer: Where the numbers came from.
    """

    kicker: str
    title: str
    subtitle: str
    banners: tuple[Banner, ...]
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    footer: tuple[str, ...] = field(default=())

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Every figure, in the order of the page."""
        return tuple(figure for section in self.sections for figure in section.figures)
