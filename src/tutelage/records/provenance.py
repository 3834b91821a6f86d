"""Where a result came from: versions, machine, commit, time and command line.

Nothing is imported to learn its version. Not here: seeds, recipe and data hashes, which belong to the run itself.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy",
    "scipy",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "accelerate",
    "safetensors",
    "soundfile",
    "soxr",
    "jiwer",
)
"""Packages whose version can change a number."""


@dataclass(frozen=True)
class Provenance:
    """What a number's reader needs to make it again.

    Args:
        created: UTC time, ISO 8601 with seconds.
        command: The command line.
        tutelage: Version of this package.
        commit: Commit of the checkout that this package runs from, with "+changes" when tracked files differ; None
            for an installed wheel.
        python: Version of Python.
        packages: Name to version of `PACKAGES`, None where it is not installed.
        platform: Operating system, kernel and machine.
        cpu: Model name of the processor.
        cpus: Processors that this process may use.
        threads: Threads of torch where torch is loaded, else what `$OMP_NUM_THREADS` asks for, else None.
    """

    created: str
    command: str
    tutelage: str
    commit: str | None
    python: str
    packages: Mapping[str, str | None]
    platform: str
    cpu: str
    cpus: int
    threads: int | None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def collect_provenance() -> Provenance:
    """The provenance of what this process does now."""
    return Provenance(
        created=utc_now(),
        command=command_line(sys.argv),
        tutelage=version_of("tutelage") or "unknown",
        commit=commit_of_checkout(),
        python=platform.python_version(),
        packages={name: version_of(name) for name in PACKAGES},
        platform=platform.platform(),
        cpu=cpu_model(),
        cpus=usable_cpus(),
        threads=threads(),
    )


def utc_now() -> str:
    """UTC time to the microsecond, ISO 8601, so that text order is time order: 2026-01-31T12:00:00.000000+00:00."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def command_line(words: list[str]) -> str:
    """The words as one would type them, the program by its name alone."""
    return shlex.join([Path(words[0]).name, *words[1:]]) if words else ""


def version_of(package: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit_of_checkout(package_folder: Path | None = None) -> str | None:
    """Commit of the checkout whose `src/tutelage` this is, or None.

    Only a `src` folder at the root of a checkout counts: an environment that lies inside somebody's own repository
    must not report that repository's commit.
    """
    folder = package_folder or Path(__file__).resolve().parents[1]
    root = folder.parent.parent
    if folder.parent.name != "src" or not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")


def _git(root: Path, *words: str) -> str | None:
    # Optional locks are off: reading a commit must not disturb a user who is committing.
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def cpu_model() -> str:
    """Model name of the processor, or the machine's architecture where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cpus() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int | None:
    """Threads of torch where torch is loaded already, else `$OMP_NUM_THREADS`, else None."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return int(torch.get_num_threads())
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() else None
