"""Turns Ctrl-C and SIGTERM into a request that the loop answers at the end of a step.

Covers the main thread of a process. Does not cover saving (`loop`) or SIGKILL, which nothing can answer: that is why
checkpoints are complete at any moment.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether the user asked to stop."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def stop_on_signals(patient: bool = False) -> Iterator[StopRequest]:
    """Within this context the first Ctrl-C or SIGTERM is only noted; a second acts as it did before, at once.

    Args:
        patient: Only note the later ones too: with several processes one Ctrl-C arrives twice, from the terminal and
            from the launcher, which kills in the end what does not stop (torchrun after 30 s).

    Outside the main thread, where Python allows no handlers, nothing is changed and nothing is noted.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def put_back() -> None:
        for number, handler in before.items():
            # A handler that was not installed from Python reads as None and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(_number: int, _frame: FrameType | None) -> None:
        stop.requested = True
        if not patient:
            put_back()

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        put_back()
