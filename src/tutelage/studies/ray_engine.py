"""The engine of many machines: Ray's remote functions.

Covers starting or joining a cluster, handing work out and results back as they come. Does not cover starting a cluster
(Ray's own commands do) or copying data: every machine must see the same files under the same paths, and have the same
packages installed. Ray's usage statistics are off.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tutelage.errors import InputError, MissingExtraError, TutelageError
from tutelage.studies.engine import JobT, Outcome, ResultT

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_PATIENCE = 10.0  # seconds


class RayEngine:
    """Workers of a Ray cluster.

    Args:
        address: Of the cluster's head, "HOST:PORT" or "auto"; None starts one on this machine.
        workers: Pieces of work at once on a cluster that is started here; a cluster that is joined has its own size.
        cpus: CPU cores that one piece of work takes.
        gpus: GPUs that one piece of work takes; may be a part of one.

    Raises:
        InputError: A number that cannot be.
        MissingExtraError: Ray is not installed.
    """

    def __init__(self, address: str | None = None, workers: int = 1, cpus: int = 1, gpus: float = 0.0) -> None:
        if workers < 1 or cpus < 1 or gpus < 0:
            raise InputError(f"There must be at least one worker and one core, not {workers} and {cpus}; GPUs {gpus}.")
        try:
            import ray  # noqa: F401 - found out before the work is prepared
        except ImportError as error:
            raise MissingExtraError("ray", "ray") from error
        self._address, self._workers, self._cpus, self._gpus = address, workers, cpus, gpus

    def run(self, work: Callable[[JobT], ResultT], jobs: Sequence[JobT]) -> Iterator[Outcome[JobT, ResultT]]:
        """See `Engine.run`.

        Raises:
            TutelageError: The cluster cannot be reached, or was lost with the work on it.
        """
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        import ray
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RaySystemError, WorkerCrashedError

        self._join(ray)
        try:

            def piece(job: JobT) -> ResultT:
                return work(job)

            # Ray would try again by itself, unseen by whoever counts the attempts.
            remote = ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_retries=0)(piece)
            pending: dict[Any, JobT] = {remote.remote(job): job for job in jobs}
            while pending:
                done, _ = ray.wait(list(pending), num_returns=1)
                job = pending.pop(done[0])
                try:
                    yield Outcome(job, ray.get(done[0]))
                except (WorkerCrashedError, NodeDiedError, OutOfMemoryError) as error:
                    yield Outcome(job, None, died=_first_line(error))
                except RaySystemError as error:
                    raise TutelageError(f"The Ray cluster was lost: {_first_line(error)}") from error
                except RayError as error:
                    if (cause := getattr(error, "cause", None)) is not None:
                        raise cause from error
                    yield Outcome(job, None, died=_first_line(error))
        finally:
            ray.shutdown()

    def _join(self, ray: Any) -> None:
        if self._address is not None and self._address != "auto":
            _require_answer(self._address)
        size = {"num_cpus": self._workers * self._cpus} if self._address is None else {}
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            ray.init(address=self._address or "local", include_dashboard=False if size else None, **size, **quiet)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            where = self._address or "on this machine"
            raise TutelageError(f"There is no Ray cluster {where}: {_first_line(error)}") from error


def _require_answer(address: str) -> None:
    """Find out whether anybody listens: Ray itself waits long, and then ends the process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except (OSError, ValueError, OverflowError) as error:
        way = "start one with `ray start --head` and give its HOST:PORT"
        raise InputError(f"No Ray cluster answers at {address} ({error}); {way}.") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
