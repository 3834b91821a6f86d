"""Alignments of hidden states, one file a family: a module here that lists `MEMBERS` is found and tested.

A new alignment is a new file; nothing else names it (docs/howto/add-an-objective.md). Its contract tests are
`tests/objectives/test_term_contract.py` and `tests/objectives/test_alignment_contract.py`. Loads without torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from tutelage.objectives.members import Alignment


@cache
def alignments() -> Mapping[str, Alignment]:
    """Every alignment by kind, in the order of the modules' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return MappingProxyType({member.kind: member for module in modules for member in module.MEMBERS})
