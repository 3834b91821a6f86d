"""Say what this installation has and lacks, and how to mend it.

Loads torch and the audio libraries where they are installed, because a library that is there and does not load is
the commonest fault. Exit code 0 when the speech path works, else 1, with the remedies listed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tutelage.cli.options import add_options
from tutelage.cli.output import print_document, table
from tutelage.errors import TutelageError
from tutelage.records.document import Document, Status
from tutelage.records.files import free_bytes, nearest_folder
from tutelage.records.ledger import Ledger
from tutelage.records.locations import CACHE_VARIABLE, cache_folder, ledger_path
from tutelage.records.provenance import collect_provenance, version_of

OLDEST_PYTHON = (3, 11)
FREE_BYTES_WANTED = 2_000_000_000
"""Room for the demo: a checkpoint, its converted copy, the encoder outputs of its clips and the run folder."""

LOADED = ("torch", "soundfile", "soxr", "jiwer")
"""Loaded for real. The rest of the speech extra is looked up only: importing peft and transformers costs seconds."""

LOAD_FAILURES = (ImportError, OSError, RuntimeError, AttributeError, ValueError)
"""What broken binaries raise: a missing library, a failed dlopen, another numpy's memory layout."""

_REQUIREMENT = re.compile(r"""^(?P<name>[\w.-]+).*;.*extra\s*==\s*["'](?P<extra>[\w.-]+)["']""")


@dataclass(frozen=True)
class Check:
    """One line of the examination.

    Args:
        name: What was looked at.
        ok: False is a fault.
        finding: What was found.
        remedy: What to do about a fault.
    """

    name: str
    ok: bool
    finding: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own arguments."""
    add_options(parser, "--ledger")


def run(arguments: argparse.Namespace) -> int:
    """Examine the installation; 0 where the speech path works."""
    checks = list(examine(arguments.ledger))
    faults = [check for check in checks if not check.ok]
    status = Status()
    if faults:
        remedies = " ".join(dict.fromkeys(check.remedy for check in faults))
        status = Status("incomplete", f"not working: {', '.join(check.name for check in faults)}.", remedies)
    body = {
        "checks": [asdict(check) for check in checks],
        "extras": {name: _extra_status(name) for name in extras()},
        "environment": collect_provenance().to_dict(),
    }
    rows = [["ok" if check.ok else "FAULT", check.name, check.finding] for check in checks]
    rows += [["ok" if not extra["missing"] else "-", f"extra {name}", _finding(extra)] for name, extra in optional()]
    human = table(rows, ["", "what", "found"])
    print_document(Document("doctor", body, status=status), as_json=arguments.json, human=human)
    return 1 if faults else 0


def examine(ledger: Path | None) -> Iterator[Check]:
    """Every check, in the order in which one would mend."""
    yield _check_python()
    if "speech" not in extras():
        # The names of the packages come from the installed package's own description.
        yield Check("tutelage", False, "runs from files, not installed", f"Run {_install('speech')}.")
        return
    missing = _extra_status("speech")["missing"]
    for package in extras()["speech"]:
        yield _check_package(package)
    yield _check_device(installed="torch" not in missing)
    yield _check_cache()
    yield _check_ledger(ledger_path(ledger))
    yield _check_space(cache_folder())


def extras() -> dict[str, list[str]]:
    """The extras that the installed package declares, each with its packages."""
    found: dict[str, list[str]] = {}
    for line in metadata.requires("tutelage") or []:
        match = _REQUIREMENT.match(line)
        if match:
            found.setdefault(match["extra"], []).append(match["name"])
    return found


def optional() -> Iterator[tuple[str, dict[str, Any]]]:
    """The extras that a user may do without; what contributors install is not among them."""
    yield from ((name, _extra_status(name)) for name in extras() if name not in ("speech", "dev"))


def _finding(extra: dict[str, Any]) -> str:
    if extra["missing"]:
        return f"optional, lacks {', '.join(extra['missing'])}: {extra['install']}"
    return ", ".join(f"{package} {version}" for package, version in extra["versions"].items())


def _extra_status(extra: str) -> dict[str, Any]:
    versions = {package: version_of(package) for package in extras().get(extra, ())}
    missing = [package for package, version in versions.items() if version is None]
    return {"versions": versions, "missing": missing, "install": _install(extra) if missing else ""}


def _install(extra: str) -> str:
    return f"pip install 'tutelage[{extra}]'"


def _check_python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return Check("Python", sys.version_info >= OLDEST_PYTHON, version, f"Install Python {oldest} or newer.")


def _check_package(package: str) -> Check:
    version = version_of(package)
    if version is None:
        return Check(package, False, "not installed", f"Run {_install('speech')}.")
    if package in LOADED:
        try:
            importlib.import_module(package)
        except LOAD_FAILURES as error:
            return Check(package, False, f"{version} does not load: {error}", f"Reinstall it: {_install('speech')}.")
    return Check(package, True, version)


def _check_device(installed: bool) -> Check:
    if not installed:
        return Check("device", False, "no torch", f"Run {_install('speech')}.")
    try:
        import torch
    except LOAD_FAILURES:
        return Check("device", False, "torch does not load", "Reinstall torch.")
    if torch.cuda.is_available():
        return Check("device", True, f"cuda ({torch.cuda.get_device_name()})")
    if torch.backends.mps.is_available():
        return Check("device", True, "mps")
    return Check("device", True, f"cpu, {torch.get_num_threads()} of {os.cpu_count()} threads")


def _check_cache() -> Check:
    folder = cache_folder()
    near = nearest_folder(folder)
    remedy = f"Set ${CACHE_VARIABLE} to a folder that you may write to."
    try:
        with tempfile.TemporaryFile(dir=near):
            pass
    except OSError as error:
        return Check("cache", False, f"{folder}: {error.strerror}", remedy)
    if folder.exists() and not folder.is_dir():
        return Check("cache", False, f"{folder} is not a folder", remedy)
    return Check("cache", True, f"{folder}{'' if near == folder else ' (made when needed)'}")


def _check_ledger(path: Path) -> Check:
    """A ledger that exists is opened to write and to read; one that does not is not made."""
    try:
        if path.exists():
            Ledger(path).check_writable()
        runs = Ledger(path).runs()
        if not path.exists():
            with tempfile.TemporaryFile(dir=nearest_folder(path.parent)):
                pass
    except TutelageError as error:
        return Check("ledger", False, str(error), "Name another file with --ledger or $TUTELAGE_LEDGER.")
    except OSError as error:
        return Check("ledger", False, f"{path}: {error.strerror}", "Name another file with --ledger.")
    return Check("ledger", True, f"{path} ({len(runs)} runs)" if path.exists() else f"{path} (made when needed)")


def _check_space(folder: Path) -> Check:
    free = free_bytes(folder)
    wanted = f"Free {FREE_BYTES_WANTED / 1e9:.0f} GB, or set ${CACHE_VARIABLE} to a larger disk."
    return Check("disk space", free >= FREE_BYTES_WANTED, f"{free / 1e9:.1f} GB free for the cache", wanted)
