"""Recipe files to frozen objects: the only parser of recipes.

A recipe is YAML 1.2 (so `1e-4` is a number). All faults of a file are reported at once, each with the place it stands
at; unknown keys come with the nearest known one. A dataset named on the command line is read as a recipe's is. Does not
cover what a recipe means (`runs.recipe` and the settings it is made of). Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import io
import json
import math
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tutelage.errors import InputError
from tutelage.runs.recipe import Recipe
from tutelage.runs.tasks import RECIPES
from tutelage.tasks.sources import AudioSource, DatasetSource

_Settings = TypeVar("_Settings")


def load_recipe(path: Path, overrides: Sequence[str] = (), seed: int | None = None) -> Recipe:
    """Read a recipe file.

    Args:
        path: YAML 1.2 in UTF-8. Relative paths inside are relative to its folder.
        overrides: `a.b=value` each; the value is read as YAML, and a number addresses an item of a list.
        seed: Replaces the recipe's seed, where given.

    Raises:
        InputError: All faults, one line each.
    """
    document = _read_yaml(path)
    for override in overrides:
        _override(document, override)
    if seed is not None:
        document["seed"] = seed
    kind = _kind_of(document, path)
    faults = [f"{path}: {fault}" for fault in [*_unknown_keys(kind, document, ""), *_infinities(document, "")]]
    recipe = _validate(kind, document, str(path), faults)
    anchored: Recipe = _anchored(recipe, path.parent)
    return anchored


def load_source(given: str, task: str, option: str = "--data") -> Path | DatasetSource:
    """Data that the command line names: a file, or a dataset as recipes write it, `{dataset: FOLDER, split: test}`.

    Args:
        given: The words. What begins with a brace is a dataset, an `AudioSource` for speech; a folder in it is relative
            to the working directory.
        task: The kind of models that the data are for.
        option: Where the words stand, for messages.

    Raises:
        InputError: All faults, one line each.
    """
    if not given.lstrip().startswith("{"):
        return Path(given)
    document = _parse_yaml(given, option)
    kind = DatasetSource if task == "text" else AudioSource
    faults = [f"{option}: {fault}" for fault in _unknown_keys(kind, document, "")]
    return _validate(kind, document, option, faults)


def dump_recipe(recipe: Recipe) -> str:
    """A resolved recipe as YAML that `load_recipe` reads back."""
    from ruamel.yaml import YAML

    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(recipe.to_dict(), stream)
    return stream.getvalue()


def _kind_of(document: dict[str, Any], path: Path) -> type[Recipe]:
    """What the recipe is read as; speech where it does not say."""
    task = document.get("task", "speech")
    if not isinstance(task, str) or task not in RECIPES:
        raise InputError(f"{path}: task: {task!r} should be one of {', '.join(RECIPES)}.")
    return RECIPES[task]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"There is no recipe {path}. Ready-made ones are in the folder recipes/.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start} cannot be read); save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"The recipe {path} cannot be read: {error.strerror}.") from None
    document = _parse_yaml(text, str(path))
    if not isinstance(document, dict):
        raise InputError(f"{path} is not a recipe: it must be a mapping of keys such as name, teacher and student.")
    return document


def _parse_yaml(text: str, origin: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = (error.problem or "it cannot be parsed").splitlines()[0]
        raise InputError(f"{origin}{place}: not YAML: {problem}.") from None
    except YAMLError as error:
        raise InputError(f"{origin}: not YAML: {str(error).splitlines()[0]}") from None


def _override(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"--set {override!r} is not of the form a.b=value.")
    value = _parse_yaml(text, f"--set {override!r}")
    *parents, last = key.split(".")
    place: Any = document
    for name in parents:
        if isinstance(place, dict) and place.get(name) is None:
            place[name] = {}
        place = _item(place, name, override)
    if isinstance(place, dict):
        place[last] = value
    else:
        _item(place, last, override)  # refuses what cannot be addressed
        place[int(last)] = value


def _item(place: Any, name: str, override: str) -> Any:
    if isinstance(place, dict):
        return place[name]
    if isinstance(place, list) and name.isdigit() and int(name) < len(place):
        return place[int(name)]
    found = f"a list of {len(place)} items, counted from 0" if isinstance(place, list) else repr(place)
    raise InputError(f"--set {override!r}: there is no {name!r} in {found}.")


def _unknown_keys(kind: Any, value: Any, place: str) -> Iterator[str]:
    """Keys that no settings object has, anywhere in the document, with a suggestion for near misses."""
    if isinstance(value, list):
        inner = next((option for option in _options(kind) if typing.get_origin(option) is tuple), None)
        for index, item in enumerate(value):
            yield from _unknown_keys(typing.get_args(inner)[0] if inner else None, item, f"{place}.{index}")
        return
    settings = next((option for option in _options(kind) if dataclasses.is_dataclass(option)), None)
    if settings is None or not isinstance(value, dict):
        return
    known = typing.get_type_hints(settings)
    for key, item in value.items():
        where = f"{place}.{key}".lstrip(".")
        if key in known:
            yield from _unknown_keys(known[key], item, where)
            continue
        near = difflib.get_close_matches(str(key), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}."
        yield f"{where}: unknown key; {hint}"


def _options(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def _infinities(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place.lstrip('.')}: {value} is not a finite number."
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in children:
        yield from _infinities(item, f"{place}.{key}")


def _validate(kind: type[_Settings], document: dict[str, Any], origin: str, faults: list[str]) -> _Settings:
    """Types and ranges by pydantic, strictly, from JSON (where a list may be a tuple and a text a path)."""
    from pydantic import TypeAdapter, ValidationError

    try:
        settings = TypeAdapter(kind).validate_json(json.dumps(document, default=str), strict=True)
    except ValidationError as error:
        faults += [f"{origin}: {fault}" for fault in _readable(error, document)]
        settings = None
    if faults or settings is None:
        raise InputError(dict.fromkeys(faults))
    return settings


def _readable(error: Any, document: dict[str, Any]) -> Iterator[str]:
    """One line a place; the branches of a union are joined with "or"."""
    expected: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    for fault in error.errors(include_url=False):
        place, value = _place_of(fault["loc"], document)
        if isinstance(value, float) and not math.isfinite(value):
            continue  # said already
        if fault["type"] == "missing":
            yield f"{place}: this key is required."
        elif fault["type"] == "value_error":  # a sentence of our own settings
            sentence = str(fault["msg"]).removeprefix("Value error, ").rstrip(".")
            yield f"{place}: {sentence}." if place else f"{sentence}."
        else:
            expected.setdefault(place, []).append(str(fault["msg"]).removeprefix("Input should be ").rstrip("."))
            values[place] = value
    for place, kinds in expected.items():
        yield f"{place}: {values[place]!r} should be {' or '.join(dict.fromkeys(kinds))}."


def _place_of(location: tuple[int | str, ...], document: Any) -> tuple[str, Any]:
    """The part of pydantic's location that stands in the document (it adds the names of union branches)."""
    names: list[str] = []
    value = document
    for index, step in enumerate(location):
        if (isinstance(value, dict) and step in value) or (
            isinstance(value, list) and isinstance(step, int) and step < len(value)
        ):
            value = value[step]  # type: ignore[index]
            names.append(str(step))
        elif index == len(location) - 1 and isinstance(value, dict):
            names.append(str(step))  # a key that is missing
    return ".".join(names), value


def _anchored(settings: Any, folder: Path) -> Any:
    """Relative paths made relative to the recipe's folder; a `model` or `dataset` without a folder is a hub name."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Path):
            changes[field.name] = folder / value
        elif field.name in ("model", "dataset") and isinstance(value, str):
            changes[field.name] = _model(value, folder)
        elif dataclasses.is_dataclass(value):
            changes[field.name] = _anchored(value, folder)
        elif isinstance(value, tuple) and any(dataclasses.is_dataclass(item) for item in value):
            changes[field.name] = tuple(_anchored(item, folder) for item in value)
    return dataclasses.replace(settings, **changes)


def _model(reference: str, folder: Path) -> str:
    local = folder / reference
    return str(local) if reference.startswith(("./", "../", "/", "~")) or local.is_dir() else reference
