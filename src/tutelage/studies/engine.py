"""Where independent pieces of work are done: the one interface, and the engine of one machine.

Covers handing work out and handing results back as they come, each piece in a process of its own, so that one that dies
takes no other with it. Does not cover many machines (`ray_engine`), or what is tried again (`study`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from tutelage.errors import InputError, MissingExtraError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Outcome(Generic[JobT, ResultT]):
    """What became of one piece of work.

    Args:
        job: The piece.
        result: What it gave; None where its process died.
        died: How its process died; empty where it gave a result.
    """

    job: JobT
    result: ResultT | None
    died: str = ""


class Engine(Protocol):
    """Does independent pieces of work."""

    def run(self, work: Callable[[JobT], ResultT], jobs: Sequence[JobT]) -> Iterator[Outcome[JobT, ResultT]]:
        """Outcomes in the order in which they come; what is not asked for any more is stopped.

        Args:
            work: A function of a module, which raises nothing that it does not want to be a fault of its own.
            jobs: Plain values; they travel to other processes.
        """


class LokyEngine:
    """Processes on this machine, a fresh one for each piece of work: its memory is given back, and a killed one (out of
    memory, say) costs nothing but itself.

    Args:
        workers: Processes at once.

    Raises:
        InputError: Fewer than one worker.
        MissingExtraError: loky is not installed.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise InputError(f"There must be at least one worker, not {workers}.")
        try:
            import loky  # noqa: F401 - found out before the work is prepared
        except ImportError as error:
            raise MissingExtraError("loky", "engines") from error
        self.workers = workers

    def run(self, work: Callable[[JobT], ResultT], jobs: Sequence[JobT]) -> Iterator[Outcome[JobT, ResultT]]:
        """See `Engine.run`."""
        from loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

        waiting = deque(jobs)
        running: dict[Any, tuple[JobT, ProcessPoolExecutor]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    job = waiting.popleft()
                    # Two threads a process under load are slower than one; a recipe may ask for more by itself.
                    process = ProcessPoolExecutor(max_workers=1, env={"OMP_NUM_THREADS": "1"})
                    running[process.submit(work, job)] = (job, process)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job, process = running.pop(future)
                    try:
                        outcome = Outcome(job, future.result())
                    except TerminatedWorkerError as error:
                        outcome = Outcome(job, None, died=str(error).splitlines()[0])
                    finally:
                        process.shutdown(wait=True, kill_workers=True)
                    yield outcome
        finally:
            for _, process in running.values():
                process.shutdown(wait=True, kill_workers=True)
