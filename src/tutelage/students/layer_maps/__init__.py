"""Layer maps by name, one file each: a module here that lists `MEMBERS` is found and tested.

A new map is a new file; nothing else names it (docs/howto/add-a-layer-map.md). Its contract tests are in
`tests/students/test_layer_map_contract.py`. Loads without torch. Does not cover explicit pairs or faults (`layer_map`).

Convention: blocks are counted from 1; 0 is the embedding output, which no map may name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class NamedMap:
    """A rule that pairs student blocks with teacher blocks.

    Args:
        kind: Its name in a recipe.
        pairs: From the student's and the teacher's number of blocks, and the teacher block that each student block was
            copied from (from 1; None where they were not), to pairs (student, teacher) by rising student block.
        needs_origins: Whether it makes sense only for a student whose blocks were copied from the teacher.
    """

    kind: str
    pairs: Callable[[int, int, Sequence[int] | None], Pairs]
    needs_origins: bool = False


@cache
def layer_maps() -> Mapping[str, NamedMap]:
    """Every map by kind, in the order of the modules' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return MappingProxyType({member.kind: member for module in modules for member in module.MEMBERS})
