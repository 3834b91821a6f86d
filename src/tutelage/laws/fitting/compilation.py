"""The minimiser of each family as machine code, compiled once for a machine and kept on disk.

Covers: a copy of `solver`'s functions for each family with that family's kernel inside, numba's cache on disk, and the
time that compiling took. Does not cover: the algorithm (`solver`).

numba keys its cache by the file, name and first line of the entry function, and knows nothing of what that calls. So
the name of every function holds the family and a hash of the kernel's and the minimiser's code: an edited kernel never
meets old machine code, and two families read from the cache never share a symbol (they would call each other's). The
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
_SAME = 1e-9
"""Relative: machine code may order a sum otherwise, another kernel is far off."""
_INNER = (
    "make_workspace",
    "evaluate",
    "accumulate",
    "factorise",
    "substitute",
    "measure_bend",
    "hold_at_bounds",
    "propose",
    "promised",
    "change_of_damping",
    "descend",
)
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
        _check(solve, family)
    except (RuntimeError, OSError):
        # numba found no folder that it may write its cache to, could not write there, or read what it should not have.
        solve = _jitted(family, cached=False)
        _check(solve, family)
    return Compiled(solve, time.perf_counter() - start, bool(sum(solve.stats.cache_hits.values())))


def _jitted(family: Family, cached: bool) -> Any:
    try:
        from numba import njit
    except ImportError as error:
        raise MissingExtraError("numba", "fit") from error
    tag = f"{family.name.replace('-', '_')}_{code_hash(family)}"
    names: dict[str, Any] = dict(vars(solver))
    for name in ("kernel", *_INNER, "solve"):
        function: Any = family.kernel if name == "kernel" else getattr(solver, name)
        copied = FunctionType(function.__code__, function.__globals__ if name == "kernel" else names)
        copied.__qualname__ = f"{name}_{tag}"
        names[name] = njit(copied, error_model="numpy", cache=cached and name == "solve")
    return names["solve"]


def code_hash(family: Family) -> str:
    """Twelve hexadecimal digits that change with the kernel, the numbers it refers to, and the minimiser."""
    functions = [family.kernel, *(getattr(solver, name) for name in (*_INNER, "solve"))]
    return sha256_json([_code_of(function) for function in functions])[:12]


def _code_of(function: Any) -> list[Any]:
    code, names = function.__code__, function.__globals__
    numbers = {name: repr(names[name]) for name in code.co_names if isinstance(names.get(name), int | float)}
    return [code.co_code.hex(), repr(code.co_consts), list(code.co_names), numbers]


def _check(solve: Solve, family: Family) -> None:
    """Compile for the types of every later call, by the objective of one run, and compare it with the plain kernel's.

    Raises:
        RuntimeError: They differ, so this is not the machine code of this kernel.
    """
    theta = np.array([[0.5 * (parameter.starts[0] + parameter.starts[1]) for parameter in family.parameters]])
    x, delta = np.linspace(0.9, 0.4, 8).reshape(1, 1, -1) * 20.0, 1.0
    expected = abs(family.kernel(theta[0], x[0, 0], np.empty(theta.size)))
    expected = 0.5 * expected**2 if expected <= delta else delta * (expected - 0.5 * delta)
    pairs, bounds = np.zeros((1, 2), dtype=np.int64), np.concatenate([theta, theta])
    found = solve(theta.copy(), x, np.zeros(1), np.ones((1, 1)), pairs, bounds, np.array([delta, 0.0, 0.0]))[0]
    if not abs(found - expected) <= _SAME * abs(expected):
        raise RuntimeError(f"the compiled {family.name} gives {found} where its kernel gives {expected}")
