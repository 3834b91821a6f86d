"""The JSON document that every verb of the command line answers with: schema, status, warnings, and its own keys."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Status:
    """What came of the work. A soft failure is a status whose remedy says what to do, not an exception."""

    kind: str = "done"
    text: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Caution:
    """A warning that travels with a result.

    Args:
        code: Stable identifier, for example "outside-fitted-range".
        input: Name of the input concerned.
        value: Its value.
        range: The range in which no warning would be given, or None.
        text: One sentence for people.
    """

    code: str
    input: str
    value: float | str | None
    range: tuple[float, float] | None
    text: str


@dataclass(frozen=True)
class Document:
    """A result as the command line prints it with `--json`."""

    name: str
    body: Mapping[str, Any]
    version: int = 1
    status: Status = field(default_factory=Status)
    warnings: Sequence[Caution] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; NaN and infinities become null."""
        head = {
            "schema": {"name": f"tutelage.{self.name}", "version": self.version},
            "status": asdict(self.status),
            "warnings": [asdict(warning) for warning in self.warnings],
        }
        return {key: jsonable(value) for key, value in {**head, **self.body}.items()}

    def to_json(self) -> str:
        """One JSON document."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)


def jsonable(value: Any) -> Any:
    """`value` with every object turned into plain JSON values (`to_dict` is used where there is one)."""
    if hasattr(value, "to_dict"):
        return jsonable(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "item"):
        return jsonable(value.item())
    return str(value)
