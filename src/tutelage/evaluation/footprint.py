"""What a model takes: peak memory of a process of its own, peak memory of the GPU, bytes on disk.

Peak memory is a process's largest resident set: weights, activations, interpreter and libraries. A number that cannot
be had on this machine is NaN (null in JSON) whose method says "not measured" and why. Not here: time (`speed`,
`latency`), and memory foreseen from a configuration (`planning`).
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError, TutelageError
from tutelage.records.estimate import Estimate

WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".onnx", ".gguf")

# A process inherits, in Linux's accounts, the peak of the process that starts it. This small one stands between, so
# that a measuring process which holds a model itself adds nothing.
_STARTER = """
import json, os, sys
process = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(process, 0)
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), usage.ru_maxrss], file)
"""


@dataclass(frozen=True)
class FolderSize:
    """What a model folder takes on disk.

    Args:
        bytes: Of all files, those that links lead to included, each counted once.
        weight_bytes: Of the files that hold weights.
        files: How many files.
    """

    bytes: int
    weight_bytes: int
    files: int

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def measure_folder(folder: Path) -> FolderSize:
    """Sizes of the files of a model folder and its subfolders.

    Raises:
        InputError: The folder is not there or holds no file.
    """
    found: dict[tuple[int, int], tuple[int, bool]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            stat = path.stat()
            weights = path.suffix in WEIGHT_FILES
            size, known = found.get((stat.st_dev, stat.st_ino), (stat.st_size, False))
            found[stat.st_dev, stat.st_ino] = (size, weights or known)
    if not found:
        raise InputError(f"{folder} holds no file, so that it has no size. Give a model folder.")
    sizes = found.values()
    return FolderSize(sum(size for size, _ in sizes), sum(size for size, weights in sizes if weights), len(found))


def measure_peak_memory(command: Sequence[str], *, timeout: float | None = None) -> Estimate:
    """Largest resident set, in bytes, of a command that is run in a process of its own.

    Memory of processes that the command starts itself is not added. The least that can be told is the size of a bare
    interpreter, about 10 MB.

    Args:
        command: Program and arguments.
        timeout: Seconds after which the command is given up.

    Raises:
        TutelageError: The command fails, cannot be started or takes too long.
    """
    if not hasattr(os, "wait4"):
        return _not_measured("this system does not account for a process's memory")
    with tempfile.TemporaryDirectory() as folder:
        account = Path(folder, "account.json")
        code, message = _run([str(account), *command], timeout)
        code, peak = json.loads(account.read_text("utf-8")) if account.exists() else (code, 0)
    if code != 0:
        last = (message.strip().splitlines() or ["it wrote no message"])[-1]
        raise TutelageError(f"{command[0]} ended with exit code {code}, so its memory means nothing: {last}")
    return Estimate(float(peak * _unit()), method="largest resident set of a process of its own")


def peak_memory() -> Estimate:
    """Largest resident set, in bytes, of this process so far."""
    try:
        status = Path("/proc/self/status").read_text("ascii", errors="replace")
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return Estimate(float(line.split()[1]) * 1024, method="largest resident set of this process")
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return _not_measured("this system does not account for a process's memory")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Estimate(float(peak * _unit()), method="largest resident set of this process")


def gpu_peak_memory() -> Estimate:
    """Most bytes that torch's tensors held on CUDA devices at once, summed over the devices that this process used.

    Since the process began, or since `torch.cuda.reset_peak_memory_stats`. Torch is asked only where it is loaded.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return _not_measured("no GPU was used")
    peaks = [torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count())]
    used = [peak for peak in peaks if peak]
    return Estimate(float(sum(used)), method=f"most allocated by torch on {len(used)} CUDA devices")


def _run(account_and_command: Sequence[str], timeout: float | None) -> tuple[int, str]:
    """Exit code and error stream of the starter; nothing of what is given up keeps running."""
    words = [sys.executable, "-I", "-S", "-c", _STARTER, *account_and_command]
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            _, message = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise TutelageError(
                f"{account_and_command[1]} was still running after {timeout} s. Give it more time."
            ) from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, message


def _unit() -> int:
    return 1 if sys.platform == "darwin" else 1024  # bytes that ru_maxrss counts in


def _not_measured(reason: str) -> Estimate:
    return Estimate(math.nan, method=f"not measured: {reason}")
