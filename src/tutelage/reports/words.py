"""Numbers as a report writes them: losses, counts, powers of ten, per cents, intervals.

Covers: one way to write each kind. Does not cover: sentences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from tutelage.records.estimate import Estimate
from tutelage.units import format_quantity

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_NOTHING = 1e-12
"""What is left of a 0 after a sum."""
_CERTAIN = 0.995
"""Two digits would round what is larger to 100."""
NONE = "–"
"""A cell without a value."""


def nats(value: float, digits: int = 3) -> str:
    """A loss in nats per token."""
    return f"{value:.{digits}f}" if math.isfinite(value) else NONE


def count(value: float, digits: int = 3) -> str:
    """A size or a number of tokens: 546M, 1.2T."""
    if math.isfinite(value) and abs(value) >= 1e15:
        return power(value, digits)
    return format_quantity(value, digits) if not math.isnan(value) else NONE


def power(value: float, digits: int = 2) -> str:
    """A number as a power of ten: 10²¹, 3.2×10²⁰."""
    if not math.isfinite(value) or value == 0:
        return NONE if not math.isfinite(value) else "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    raised = f"10{str(int(exponent)).translate(_RAISED)}"
    return raised if mantissa == "1" else f"{mantissa}×{raised}"


def number(value: float, digits: int = 4) -> str:
    """Any number to a few significant digits."""
    if not math.isfinite(value):
        return NONE
    if abs(value) < _NOTHING:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        return power(value, digits)
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def named(name: str, value: float) -> str:
    """A number as what its key says that it is."""
    if "loss" in name or "floor" in name:
        return nats(value, 4)
    if any(part in name for part in ("flops", "compute")):
        return power(value, 3)
    if any(part in name for part in ("params", "tokens", "bytes")) and "per" not in name:
        return count(value)
    return number(value)


def named_ends(name: str, found: Estimate) -> str:
    """The interval of an estimate, likewise."""
    return between(found.low, found.high, lambda end: named(name, end))


def chance(probability: float) -> str:
    """A probability from a finite number of draws, which is never said to be certain."""
    return percent(probability) if probability < _CERTAIN else "over 99.9 %" if probability > 0.999 else "over 99 %"


def percent(share: float, digits: int = 2) -> str:
    """A share as per cent, to some significant digits."""
    return f"{_rounded(100 * share, digits)} %"


def _rounded(value: float, digits: int) -> str:
    if not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def spread(estimate: Estimate) -> str:
    """What the interval of an estimate is: "90 % interval", "rounding band"."""
    return interval_name(estimate.level, estimate.method)


def interval_name(level: float | None, method: str) -> str:
    """What an interval is called in a sentence."""
    return f"{100 * level:g} % interval" if level is not None else method


def between(low: float | None, high: float | None, write: Callable[[float], str] = number) -> str:
    """The ends of an interval, or a dash."""
    if low is None or high is None or not math.isfinite(low + high):
        return NONE
    return f"{write(low)} to {write(high)}"


_E_NOTATION = re.compile(r"\b\d(?:\.\d+)?e\+?\d+\b")
_HYPHEN_MINUS = re.compile(r"(?<![^\s(\[])-(?=\d)")


def prose(text: str) -> str:
    """A sentence of a document with its powers of ten and minus signs as a page writes them."""
    return _HYPHEN_MINUS.sub("−", _E_NOTATION.sub(lambda match: power(float(match[0]), 3), text))


def signed(value: float, digits: int = 4) -> str:
    """A number with its sign."""
    return f"{value:+.{digits}f}".replace("-", "−") if math.isfinite(value) else NONE


def with_ends(value: str, low: float | None, high: float | None, write: Callable[[float], str]) -> str:
    """A cell: a number with its interval, where it has one, on a line below."""
    ends = between(low, high, write)
    return value if ends == NONE else f"{value}\n{ends}"


def sentence(text: str) -> str:
    """The text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def plural(count_of: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{count_of} {noun}{'' if count_of == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


_SPELLED = {"params": "parameters", "param": "parameter", "flops": "FLOPs", "lora": "LoRA"}
_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "'": "′", "_prime": "′"}


def formula(text: str) -> str:
    """An equation or the name of a coefficient with its Greek letters and primes."""
    for name, letter in _GREEK.items():
        text = text.replace(name, letter)
    return text


def label(name: str) -> str:
    """A key as words."""
    return " ".join(_SPELLED.get(part, part) for part in formula(name).split("_"))
