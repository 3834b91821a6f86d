"""Units as type aliases, and quantities as people write them ("7B", "1.5T", "1e21").

Covers: the names of the units used in signatures, and reading and printing large counts. Does not cover: time, money or
energy, nor conversion between units (a law never converts: its inputs are plain counts).
"""

from __future__ import annotations

import math
import re
from typing import TypeAlias

from tutelage.errors import InputError

Params: TypeAlias = float
"""A number of parameters; non-embedding parameters unless the law says that it counts otherwise."""
Tokens: TypeAlias = float
"""A number of tokens, repeats included."""
Flops: TypeAlias = float
"""A number of floating-point operations; a multiplication with its addition is two."""
Nats: TypeAlias = float
"""Cross-entropy in nats per token."""
Seconds: TypeAlias = float
"""Wall-clock seconds."""

_SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_PRINTED = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_QUANTITY = re.compile(r"([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]?)", re.IGNORECASE)
_NOT_A_COUNT = {"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"}


def parse_quantity(text: str | float, name: str = "quantity") -> float:
    """Read a positive, finite quantity; k, M, B (or G) and T stand for 1e3, 1e6, 1e9 and 1e12 in either case.

    Args:
        text: What the user wrote, for example "7B", "1.5T", "1e21", "20_000", or a number.
        name: What the quantity is, for the message.

    Returns:
        The value, greater than 0 and finite.

    Raises:
        InputError: One fault that names the quantity and its value.

    Example:
        >>> parse_quantity("7B")
        7000000000.0
    """
    written = str(text).strip()
    if written.lower() in _NOT_A_COUNT:
        raise InputError(f"{name} is {written}; it must be a finite number greater than 0")
    match = _QUANTITY.fullmatch(written)
    suffix = match.group(2).lower() if match else ""
    if match is None or (suffix and suffix not in _SUFFIXES):
        raise InputError(f"{name} is {written!r}, which is not a number; write it as 1e21, 143M, 7B or 1.5T")
    digits = match.group(1).replace("_", "")
    scale = _SUFFIXES.get(suffix, 1.0)
    # One conversion of the whole decimal keeps "7.7B" equal to 7.7e9 to the last bit.
    value = float(digits) if scale == 1.0 else float(_shifted(digits, scale))
    if not math.isfinite(value) or value <= 0.0:
        raise InputError(f"{name} is {written}; it must be a finite number greater than 0")
    return value


def _shifted(digits: str, scale: float) -> str:
    mantissa, _, exponent = digits.lower().partition("e")
    return f"{mantissa}e{int(exponent or 0) + round(math.log10(scale))}"


def format_quantity(value: float, digits: int = 3) -> str:
    """Print a count to `digits` significant digits, with k, M, B or T up to 1e15 and as a power of ten beyond.

    Example:
        >>> format_quantity(7e9)
        '7B'
        >>> format_quantity(1e21)
        '1e21'
    """
    if math.isnan(value):
        return "?"
    if math.isinf(value):
        return "unlimited" if value > 0 else "-unlimited"
    rounded = float(f"{value:.{digits - 1}e}")
    size = abs(rounded)
    if size and not 1e-3 <= size < 1e15:
        mantissa, exponent = f"{rounded:.{digits - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    for scale, suffix in _PRINTED:
        if size >= scale:
            return (
                f"{rounded / scale:.{digits}g}{suffix}" if size / scale < 10**digits else f"{rounded / scale:g}{suffix}"
            )
    return f"{rounded:.{digits}g}"
