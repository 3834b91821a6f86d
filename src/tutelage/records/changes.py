"""What differs between two settings documents, in words. Not here: what a difference means for a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def compare_recipes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs, as lines `optimisation.steps was 300 and is 400`, sorted by name."""
    old, new = _flatten(before), _flatten(after)
    return [
        f"{name} was {_shown(old, name)} and is {_shown(new, name)}."
        for name in sorted({*old, *new})
        if _shown(old, name) != _shown(new, name)
    ]


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {name: value}
    flat: dict[str, Any] = {} if items else {name: type(value)()}
    for key, item in items:
        flat |= _flatten(item, f"{name}.{key}" if name else key)
    return flat


def _shown(flat: Mapping[str, Any], name: str) -> str:
    return json.dumps(flat[name], ensure_ascii=False) if name in flat else "not set"
