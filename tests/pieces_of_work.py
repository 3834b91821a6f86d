"""What the engines' tests have done: functions that other processes can import."""

from __future__ import annotations

import os
import time
from pathlib import Path


def double_or_die(number: int) -> int:
    """Twice the number; 13 ends the process as a killer from outside would."""
    if number == 13:
        os._exit(9)
    return 2 * number


def sleep_and_tell(job: tuple[str, float]) -> int:
    """Leave a file, then sleep; the process's number."""
    path, seconds = job
    Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)
    return os.getpid()


def raise_what_is_given(error: BaseException) -> None:
    """A fault of the work itself."""
    raise error
