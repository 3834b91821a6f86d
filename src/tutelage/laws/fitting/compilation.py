"""The minimiser of each family as machine code, compiled once for a machine and kept on disk.

Covers: a copy of `solver`'s functions for each family with that family's kernel inside, numba's cache on disk, and the
time that compiling took. Does not cover: the algorithm (`solver`).

numba keys its cache by the file, name and first line of the entry function, and knows nothing of what that calls. So
the entry's name holds the family and a hash of the kernel's code: an edited kernel never meets old machine code. The
kernel is a global of the copies, because a function taken as an argument or a closure is never found in the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any, TypeAlias

import numpy as np

from tutelage.errors import MissingExtraError
from tutelage.laws.families import families
from tutelage.laws.family import Family
from tutelage.laws.fitting import solver
from tutelage.laws.numbers import FloatArray
from tutelage.records.hashing import sha256_json

Solve: TypeAlias = Callable[..., FloatArray]
_INNER = ("evaluate", "factorise", "substitute", "bend_of", "propose", "empty_place", "descend")
"""The functions of `solver` that its entry calls, callees first."""


@dataclass(frozen=True)
class Compiled:
    """A family's `solver.solve` as machine code.

    Args:
        solve: Takes and returns what `solver.solve` does.
        seconds: What compiling it, or reading it from the cache, took in this process.
        cached: Whether it was read from the cache.
    """

    solve: Solve
    seconds: float
    cached: bool


def compile_solver(family: Family) -> Compiled:
    """The minimiser of `family`, from this process, the cache on disk, or compiled now.

    Raises:
        MissingExtraError: numba is not installed.
    """
    if families().get(family.name) is family:
        return _compiled(family.name)
    return _compile(family)


@cache
def _compiled(name: str) -> Compiled:
    return _compile(families()[name])


def _compile(family: Family) -> Compiled:
    start = time.perf_counter()
    try:
        solve = _jitted(family, cached=True)
        _call_once(solve, family)
    except (RuntimeError, OSError):
        # numba found no folder that it may write its cache to, or could not write there.
        solve = _jitted(family, cached=False)
        _call_once(solve, family)
    return Compiled(solve, time.perf_counter() - start, bool(sum(solve.stats.cache_hits.values())))


def _jitted(family: Family, cached: bool) -> Any:
    try:
        from numba import njit
    except ImportError as error:
        raise MissingExtraError("numba", "fit") from error
    names: dict[str, Any] = dict(vars(solver))
    names["kernel"] = njit(family.kernel, error_model="numpy")
    for name in _INNER:
        names[name] = njit(FunctionType(getattr(solver, name).__code__, names), error_model="numpy")
    entry = FunctionType(solver.solve.__code__, names)
    entry.__qualname__ = f"solve_{family.name.replace('-', '_')}_{kernel_hash(family)}"
    return njit(entry, error_model="numpy", cache=cached)


def kernel_hash(family: Family) -> str:
    """Twelve hexadecimal digits that change with the kernel's code and the numbers it refers to."""
    code, names = family.kernel.__code__, family.kernel.__globals__
    numbers = {name: repr(names[name]) for name in code.co_names if isinstance(names.get(name), int | float)}
    return sha256_json([code.co_code.hex(), repr(code.co_consts), list(code.co_names), numbers])[:12]


def _call_once(solve: Solve, family: Family) -> None:
    """Compile for the types of every later call, by a problem without runs."""
    count = len(family.parameters)
    nothing = np.empty((1, 0, 4))
    pairs = np.zeros((1, 2), dtype=np.int64)
    solve(np.zeros((1, count)), nothing, np.empty(0), np.empty((1, 0)), pairs, np.zeros((2, count)), np.zeros(3))
