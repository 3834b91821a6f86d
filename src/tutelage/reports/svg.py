"""A drawing of matplotlib as a part of a page: no ids that collide, no colours of its own, real text.

Covers: what is taken out of the file and what is renamed in it. Does not cover: drawing (`canvas`).
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tutelage.reports.palette import VARIABLES

NAMESPACE = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_DROPPED = {"metadata", "style"}
"""A style element would reach out of its drawing into the whole page."""
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_TURN = re.compile(r"rotate\(-?0 [^)]*\)")


def embed(drawing: str, name: str, title: str, description: str, css_class: str) -> str:
    """The SVG element of a page from a stand-alone file.

    Args:
        drawing: The file, as matplotlib writes it.
        name: Unique on the page; every id begins with it.
        title: Accessible name.
        description: Accessible description.
        css_class: The class of the element.

    Returns:
        One `svg` element that scales with its container.
    """
    root = ElementTree.fromstring(drawing)
    _drop(root)
    used = _references(root)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        _rename(element, name, used)
        _plain(element)
    head = {
        "xmlns": NAMESPACE,
        "class": css_class,
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
    }
    root.attrib.clear()
    root.attrib.update(head)
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        label = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        label.text = text
        root.insert(position, label)
    return ElementTree.tostring(root, encoding="unicode")


def _drop(element: ElementTree.Element) -> None:
    for child in list(element):
        if child.tag.rpartition("}")[2] in _DROPPED:
            element.remove(child)
        else:
            _drop(child)
            if child.tag.endswith("}defs") and len(child) == 0:
                element.remove(child)


def _references(root: ElementTree.Element) -> set[str]:
    """Ids that something in the drawing points to."""
    found = set()
    for element in root.iter():
        found.add(element.attrib.get(_LINK, "").removeprefix("#"))
        for value in element.attrib.values():
            found |= set(_REFERENCE.findall(value))
    return found


def _rename(element: ElementTree.Element, name: str, used: set[str]) -> None:
    attributes = element.attrib
    own = attributes.pop("id", None)
    if own in used:
        attributes["id"] = f"{name}-{own}"
    link = attributes.pop(_LINK, None)
    if link is not None:
        attributes["href"] = f"#{name}-{link.removeprefix('#')}"
    for key, value in attributes.items():
        attributes[key] = _REFERENCE.sub(rf"url(#{name}-\1)", value)


def _plain(element: ElementTree.Element) -> None:
    """Shorten numbers, name colours, leave the typeface to the page."""
    attributes = element.attrib
    if "style" in attributes:
        parts = (part.strip() for part in attributes["style"].split(";"))
        kept = [part for part in parts if part and not part.startswith("font-family")]
        text = ";".join(kept).replace("font-weight: 700", "font-weight: 600")
        for placeholder, variable in VARIABLES.items():
            text = text.replace(placeholder, variable)
        attributes["style"] = text
    for key in ("d", "x", "y", "transform", "width", "height", "points"):
        if key in attributes:
            short = _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.2f}", attributes[key])
            attributes[key] = " ".join(short.split())
    if _TURN.fullmatch(attributes.get("transform", "")):
        del attributes["transform"]
    if element.tag not in ("text", "tspan"):
        element.text = None
    element.tail = None
