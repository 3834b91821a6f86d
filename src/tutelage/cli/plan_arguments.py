"""The arguments of `tutelage plan` and the question that they ask, read together so that every fault is reported.

Covers: options, their groups, teachers and hardware from words and from YAML. Does not cover: what the question means
(`tutelage.planning.question`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.errors import InputError

if TYPE_CHECKING:
    from tutelage.cli.quantities import Faults
    from tutelage.planning.hardware import Hardware
    from tutelage.planning.lora import LoraStudent
    from tutelage.planning.question import Question
    from tutelage.planning.scenarios import Teacher
    from tutelage.planning.storage import TeacherCache

BUDGETS = ("compute", "gpu_hours", "money", "tokens", "target_loss")
TEACHER_KEYS = ("name", "params", "loss")
TEACHER_EXAMPLE = "name=7B,params=7.7e9,loss=2.02"
HARDWARE_EXAMPLE = "H100,mfu=0.4,price=2.5"
CACHE_EXAMPLE = "topk=128"
_CONTEXT = 4096
_STAND_IN = 1e9
"""Takes the place of a number that is at fault, so that what is left of the question can be checked."""


def add_question(parser: argparse.ArgumentParser) -> None:
    """The options that make the question, in groups."""
    group = parser.add_argument_group("the student and its budget (give one of the five)")
    add = group.add_argument
    add("--student-params", metavar="N", help="parameters of the student; with --target-loss alone it may be left out")
    add("--compute", metavar="C", help="FLOPs for one student, its share of the teacher included")
    add("--gpu-hours", metavar="H", help="hours of one device of --hardware")
    add("--money", metavar="M", help="money for hours of --hardware, in USD")
    add("--tokens", metavar="D", help="tokens that the student is trained on")
    add("--target-loss", metavar="L", help="loss that the student should reach, nats per token")

    add = parser.add_argument_group("teachers").add_argument
    add(
        "--teacher",
        action="append",
        default=[],
        metavar=TEACHER_EXAMPLE,
        help="a teacher that exists, with its measured loss; may be repeated",
    )
    add("--teachers", type=Path, metavar="FILE.yaml", help="a list of {name, params, loss}")
    add("--students", default="1", metavar="K", help="students that share a teacher and its logits (default: 1)")
    add(
        "--cached-teacher",
        metavar=CACHE_EXAMPLE,
        help="size of a cache of the teacher's signal, and what it saves: topk=K, sampled=K or hidden=WIDTH; "
        "vocabulary=V decides the bytes of an id",
    )

    add = parser.add_argument_group("cost and data").add_argument
    add(
        "--hardware",
        metavar="NAME|FILE.yaml",
        help="A100, H100, H200, B200, L4 or CPU, with your own numbers behind it, such as "
        f"{HARDWARE_EXAMPLE} (also watts, pue, carbon, peak); or a YAML file of them with a name",
    )
    add("--served-tokens", metavar="D", help="tokens that the finished student will process: lifetime cost")
    add("--serving-hardware", metavar="NAME|FILE.yaml", help="what serves the student (default: --hardware)")
    add("--unique-tokens", metavar="U", help="distinct tokens that there are; ordinary training then repeats them")

    add = parser.add_argument_group("LoRA students").add_argument
    add("--lora", metavar="N|SHARE%", help="train adapters alone: their parameters, or their share such as 1%%")
    add(
        "--student-config",
        type=Path,
        metavar="FILE.json",
        help="count the student's FLOPs from its config.json instead of the law's F(N)",
    )
    add("--context", metavar="T", help=f"tokens of a sequence, with --student-config (default: {_CONTEXT})")


def read_question(arguments: argparse.Namespace, faults: Faults) -> Question | None:
    """The question that the arguments ask; None where they are at fault."""
    from tutelage.planning.question import Question

    size = faults.quantity(arguments.student_params, "--student-params")
    if arguments.student_params is None and arguments.target_loss is None:
        faults.add("--student-params is missing; the size is looked for only where --target-loss is given")
    hardware = _hardware(arguments.hardware, "--hardware", faults)
    serving = _hardware(arguments.serving_hardware, "--serving-hardware", faults)
    budget, asked = _budget(arguments, hardware, faults)
    served = faults.quantity(arguments.served_tokens, "--served-tokens")
    unique = faults.quantity(arguments.unique_tokens, "--unique-tokens")
    teachers = _teachers(arguments, faults)
    students = faults.count(arguments.students, "--students")
    lora, cache = _lora(arguments, faults), _cache(arguments.cached_teacher, faults)
    if arguments.serving_hardware is not None and arguments.served_tokens is None:
        faults.add("--serving-hardware is given without --served-tokens")
    if arguments.student_params is None and arguments.target_loss is not None and arguments.unique_tokens is not None:
        faults.add("--unique-tokens needs --student-params: the size for a target is looked for with fresh tokens")
        unique = None

    bare = partial(
        Question,
        _STAND_IN if size is None and (arguments.student_params or arguments.target_loss is None) else size,
        compute=budget.get("compute"),
        tokens=budget.get("tokens"),
        target_loss=budget.get("target_loss"),
    )
    faults.attempt(lambda: bare().require_within_bounds())
    return faults.attempt(
        lambda: bare(
            teachers=teachers,
            students=students or 1,
            hardware=hardware,
            serving=serving if served else None,
            served_tokens=served,
            unique_tokens=unique,
            lora=lora,
            cache=cache,
            asked=asked,
        )
    )


def _budget(arguments: argparse.Namespace, hardware: Hardware | None, faults: Faults) -> tuple[dict[str, float], str]:
    """The budget as the question takes it, and how it was asked for; a stand-in where it is at fault."""
    stand_in = {"target_loss": 2.0} if arguments.student_params is None else {"compute": _STAND_IN}
    values = {name: faults.quantity(getattr(arguments, name), _option(name)) for name in BUDGETS}
    given = [name for name in BUDGETS if getattr(arguments, name) is not None]
    if len(given) != 1:
        said = f"{' and '.join(map(_option, given))} are given" if given else "no budget"
        listed = ", ".join(map(_option, BUDGETS[:-1]))
        faults.add(f"{said}: give exactly one of {listed} and {_option(BUDGETS[-1])}")
        return stand_in, ""
    name, value = given[0], values[given[0]]
    if name not in ("gpu_hours", "money"):
        return ({name: value} if value is not None else stand_in), ""
    if arguments.hardware is None:
        faults.add(f"{_option(name)} needs --hardware NAME, which says how many FLOPs an hour does")
    if value is None or hardware is None:
        return stand_in, ""
    if name == "gpu_hours":
        return {"compute": hardware.flops_for_hours(value)}, f"{value:g} device-hours of {hardware.name}"
    compute = faults.attempt(lambda: hardware.flops_for_money(value))
    return ({"compute": compute} if compute else stand_in), f"{value:g} USD of {hardware.name}"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _hardware(text: str | None, option: str, faults: Faults) -> Hardware | None:
    """The device that `NAME,key=value,...` or a YAML file describes."""
    from tutelage.planning.hardware import find_hardware

    if text is None:
        return None
    pairs: Mapping[str, Any] | None
    if text.endswith((".yaml", ".yml")):
        pairs = faults.attempt(lambda: _mapping(_read_yaml(Path(text), option), f"{option} {text}"))
    else:
        named = text if "=" in text.partition(",")[0] else f"name={text}"
        pairs = faults.mapping([named], option, HARDWARE_EXAMPLE)
    if not pairs:
        return None
    name = str(pairs.get("name", ""))
    if not name:
        faults.add(f"{option} {text!r}: no name; write it as {HARDWARE_EXAMPLE}")
        return None
    numbers = {
        key: faults.quantity(str(value), f"{option} {name}: {key}") for key, value in pairs.items() if key != "name"
    }
    sound = {key: value for key, value in numbers.items() if value is not None}
    if len(sound) < len(numbers):
        return None
    return faults.attempt(lambda: find_hardware(name, sound))


def _teachers(arguments: argparse.Namespace, faults: Faults) -> tuple[Teacher, ...]:
    found = [_teacher(_words(text), f"--teacher {text!r}", faults) for text in arguments.teacher]
    if arguments.teachers is not None:
        path = arguments.teachers
        entries = faults.attempt(lambda: _list(_read_yaml(path, "--teachers"), f"--teachers {path}"))
        for number, entry in enumerate(entries or (), 1):
            label = f"--teachers {path}: teacher {number}"
            pairs = faults.attempt(lambda entry=entry, label=label: _mapping(entry, label))  # type: ignore[misc]
            if pairs is not None:
                found.append(_teacher(pairs, label, faults))
    return tuple(teacher for teacher in found if teacher is not None)


def _words(text: str) -> dict[str, str]:
    return {key.strip(): value.strip() for key, _, value in (part.partition("=") for part in text.split(","))}


def _teacher(parts: Mapping[str, Any], label: str, faults: Faults) -> Teacher | None:
    """The teacher that name, params and loss describe, or None where it is at fault."""
    from tutelage.planning.scenarios import Teacher

    unknown = [key for key in parts if key not in TEACHER_KEYS]
    missing = [key for key in TEACHER_KEYS if parts.get(key) in (None, "")]
    if unknown or missing:
        said = [f"unknown {', '.join(map(repr, unknown))}"] if unknown else []
        said += [f"missing {', '.join(missing)}"] if missing else []
        faults.add(f"{label}: {'; '.join(said)}; a teacher has {', '.join(TEACHER_KEYS)}, as in {TEACHER_EXAMPLE}")
        return None
    where = f"{label.split(' ')[0]} {parts['name']}"
    params = faults.quantity(str(parts["params"]), f"{where}: params")
    loss = faults.quantity(str(parts["loss"]), f"{where}: loss")
    return None if params is None or loss is None else Teacher(str(parts["name"]), params, loss)


def _lora(arguments: argparse.Namespace, faults: Faults) -> LoraStudent | None:
    from tutelage.planning.lora import LoraStudent

    if arguments.lora is None:
        given = {"--student-config": arguments.student_config, "--context": arguments.context}
        faults.add(*(f"{name} is given without --lora" for name, value in given.items() if value is not None))
        return None
    text = arguments.lora.strip()
    share = text.endswith("%")
    value = faults.quantity(text.rstrip("%"), "--lora")
    if value is not None and not share and value < 1:
        faults.add(f"--lora is {text}: less than one parameter; write a share as {100 * value:g}%")
        value = None
    config = faults.attempt(lambda: _read_config(arguments.student_config)) if arguments.student_config else None
    context = _CONTEXT if arguments.context is None else faults.count(arguments.context, "--context")
    if arguments.context is not None and arguments.student_config is None:
        faults.add("--context is given without --student-config; F(N) has the law's own context")
    if value is None or context is None:
        return None
    return faults.attempt(
        lambda: LoraStudent(None if share else value, value / 100.0 if share else None, config, context)
    )


def _cache(text: str | None, faults: Faults) -> TeacherCache | None:
    from tutelage.planning.storage import TeacherCache

    if text is None:
        return None
    pairs = faults.mapping([text], "--cached-teacher", CACHE_EXAMPLE)
    vocabulary = (
        faults.count(pairs.pop("vocabulary"), "--cached-teacher: vocabulary") if "vocabulary" in pairs else None
    )
    if len(pairs) != 1:
        if "=" in text:
            named = f"{len(pairs)} formats" if pairs else "no format"
            faults.add(f"--cached-teacher {text!r} names {named}; give one, as in {CACHE_EXAMPLE}")
        return None
    ((kind, size),) = pairs.items()
    number = faults.quantity(size, f"--cached-teacher: {kind}")
    return None if number is None else faults.attempt(lambda: TeacherCache(kind, number, vocabulary))


def _list(document: object, label: str) -> list[Any]:
    if not (isinstance(document, list) and document):
        raise InputError(f"{label} is not a list of teachers; write each as - {{name: .., params: .., loss: ..}}")
    return document


def _mapping(document: object, label: str) -> Mapping[str, Any]:
    if not isinstance(document, dict):
        raise InputError(f"{label} is not a mapping of keys to values")
    return {str(key): value for key, value in document.items()}


def _read_text(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{option}: there is no file {path}") from None
    except UnicodeDecodeError:
        raise InputError(f"{option}: {path} is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{option}: {path} cannot be read: {error.strerror}") from None


def _read_yaml(path: Path, option: str) -> object:
    """A YAML 1.2 document, in which 1e9 is a number."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    text = _read_text(path, option)
    try:
        document: object = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise InputError(f"{option}: {path} is not YAML: {str(error).splitlines()[0]}") from None
    return document


def _read_config(path: Path) -> Mapping[str, Any]:
    text = _read_text(path, "--student-config")
    try:
        return _mapping(json.loads(text), f"--student-config {path}")
    except json.JSONDecodeError as error:
        raise InputError(f"--student-config: {path} is not JSON: {error}") from None
