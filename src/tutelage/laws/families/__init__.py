"""The families of laws, one file each: a module here that defines `FAMILIES` is found, fitted, filed and tested.

A new family is a new file; nothing else names it. Its contract tests are `tests/laws/test_family_contract.py`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from tutelage.errors import InputError
from tutelage.laws.family import Family


@cache
def families() -> Mapping[str, Family]:
    """Every family by name, in the order of the modules' names."""
    found: dict[str, Family] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        for family in importlib.import_module(f"{__name__}.{module.name}").FAMILIES:
            found[family.name] = family
    return MappingProxyType(found)


def find_family(name: str) -> Family:
    """The family called `name`.

    Raises:
        InputError: There is none.
    """
    if name not in families():
        raise InputError(f"family {name!r} is not known; it must be one of {', '.join(families())}")
    return families()[name]
