"""A page as one HTML file that needs nothing else.

Covers: the template, the style sheet and the drawings put together; the same page gives the same bytes. Does not cover:
what the page says.
"""

from __future__ import annotations

import re
from importlib import resources

from tutelage import __version__
from tutelage.errors import MissingExtraError
from tutelage.reports.canvas import drawings
from tutelage.reports.content import Page, Section


def render(page: Page, source: str) -> str:
    """The HTML of a page.

    Args:
        page: What it says.
        source: SHA-256 of the input, for the footer.

    Returns:
        One document without a script and without a reference to anything outside of it. Every text is escaped.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise MissingExtraError("jinja2", "report") from error

    folder = resources.files("tutelage.reports")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["bound"] = _bound
    template = environment.from_string((folder / "page.html.jinja").read_text("utf-8"))
    # What is marked safe is ours: the style sheet, and drawings whose text was escaped when they were written as XML.
    style = Markup((folder / "page.css").read_text("utf-8"))
    svg = {figure.id: [Markup(drawing) for drawing in drawings(figure)] for figure in page.figures}
    sections = [part for part in page.sections if part != Section(part.title)]
    return template.render(page=page, sections=sections, style=style, svg=svg, version=__version__, source=source[:16])


def _bound(text: str) -> str:
    """The text with each number bound to its per cent sign, so that no line breaks between them."""
    return re.sub(r"(?<=\d) %", "\u00a0%", text)
