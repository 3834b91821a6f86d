"""The colours of a page by name, and the stand-ins that a drawing is made with.

Covers: names, placeholders, how lines of one drawing differ in dash and marker as well. Does not cover: the colours
themselves, which are custom properties of `page.css`, one value for light and one for dark.
"""

from __future__ import annotations

from typing import TypeAlias

Dash: TypeAlias = "str | tuple[float, tuple[float, ...]]"

NEUTRALS = ("ink", "soft", "rule", "paper", "shade", "mark")
"""Text, secondary text, axes and grids, the ground, what lies outside the fitted range, points."""
HUES = ("hue1", "hue2", "hue3", "hue4", "hue5", "hue6")
"""Categories. Apart from one another, and 3:1 from the ground, for every common kind of colour vision."""
STEPS = ("step1", "step2", "step3", "step4", "step5")
"""An order, from little to much."""
NAMES = (*NEUTRALS, *HUES, *STEPS)

_PLACEHOLDERS = {name: f"#f0{index:02x}0f" for index, name in enumerate(NAMES)}
VARIABLES = {placeholder: f"var(--{name})" for name, placeholder in _PLACEHOLDERS.items()}
"""The custom property that each placeholder stands for."""

DASHES: tuple[Dash, ...] = (
    "-",
    (0, (6.0, 2.0)),
    (0, (2.0, 1.6)),
    (0, (8.0, 2.0, 1.6, 2.0)),
    (0, (10.0, 2.5, 1.5, 2.5, 1.5, 2.5)),
    "-",
)
MARKERS = ("o", "s", "^", "D", "v", "P")


def colour(name: str) -> str:
    """The placeholder of a named colour.

    Raises:
        KeyError: There is no such colour.
    """
    return _PLACEHOLDERS[name]
