"""A number with its interval: the one shape in which every estimate is reported."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Estimate:
    """A point with its interval; a point without an interval has None for `low`, `high` and `level`.

    Args:
        value: The point estimate, in the unit that the name beside it gives.
        low: Lower end of the interval.
        high: Upper end of the interval.
        level: Coverage of the interval, in (0, 1).
        method: How the interval was made, for example "group bootstrap, 2000 draws".
    """

    value: float
    low: float | None = None
    high: float | None = None
    level: float | None = None
    method: str = "point"

    def to_dict(self) -> dict[str, float | str | None]:
        """The JSON form: `{"value", "low", "high", "level", "method"}`."""
        return asdict(self)
