"""Jobs in processes of one core each, as torchrun or `vqtok --processes` would start them."""

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from pipeline.config import load_config
from pipeline.jobs.tokenizing import job as tokenize
from pipeline.process.malloc import keep_freed_memory
from tokenizing.job import Incomplete, Job


@dataclass(frozen=True)
class Shift:
    """What one process did of a job. Seconds are of the monotonic clock, which all processes share."""

    started: float
    ended: float
    images: int


class OneCoreProcesses:
    """Processes that have imported what they need and wait for jobs, each bound to a core of its own.

    A context manager; leaving it ends them.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        cores = sorted(os.sched_getaffinity(0))[:count]
        self._connections: list[Connection] = []
        self._processes = []
        for rank, core in enumerate(cores):
            ours, theirs = context.Pipe()
            self._connections.append(ours)
            self._processes.append(context.Process(target=_serve, args=(theirs, core, rank, len(cores)), daemon=True))
            self._processes[-1].start()
            theirs.close()  # so that the end of a process is noticed
        for connection in self._connections:
            connection.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections:
            connection.close()  # which they take for the end
        for process in self._processes:
            process.join()

    def __len__(self) -> int:
        return len(self._processes)

    def images_per_second(self, job: Job, processes: int) -> float:
        """Run a job in that many of the processes, from the first claim of any to the last commit of any.

        Raises Incomplete where they have not done it all.
        """
        job.clear()
        connections = self._connections[:processes]
        for connection in connections:
            connection.send(job.config_file)
        shifts = [_received(connection) for connection in connections]
        job.check()
        return rate_of(shifts)


def rate_of(shifts: Sequence[Shift]) -> float:
    """Images/s of processes that work beside each other."""
    seconds = max(shift.ended for shift in shifts) - min(shift.started for shift in shifts)
    return sum(shift.images for shift in shifts) / seconds


def _received(connection: Connection) -> Shift:
    answer = connection.recv()
    if isinstance(answer, Exception):
        raise Incomplete(f"a process failed: {answer}")
    assert isinstance(answer, Shift)
    return answer


def _serve(connection: Connection, core: int, rank: int, size: int) -> None:
    keep_freed_memory()
    os.sched_setaffinity(0, {core})
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}.items():
        os.environ[name] = str(value)
    connection.send("ready")
    while True:
        try:
            config_file = connection.recv()
        except EOFError:
            return
        try:
            # Nobody waits for the last commit of another one: looking for it now and then would count as work.
            result = tokenize.run(load_config(config_file), wait=False, allow_slow=True, show_progress=False)
            ended = time.monotonic()
            connection.send(Shift(ended - result.seconds, ended, result.images))
        except Exception as error:
            connection.send(error)
