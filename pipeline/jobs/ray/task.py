"""What a task of Ray does on its node: one ordinary `vqtok tokenize` on the device that Ray gave it."""

import contextlib
import math
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.jobs.ray.child import output_file, run_child
from pipeline.jobs.ray.cluster import Share
from pipeline.jobs.ray.shared import Shared
from pipeline.jobs.work.launch import command
from pipeline.signals import exit_status
from pipeline.store.schema.commits import committed_parts
from pipeline.world import available_cores

_STDERR = 2
_TAIL_BYTES = 4000
# Deaths of a process by a signal, with nothing committed between them by anybody, after which its task gives up: an
# image that crashes a decoder would do so for ever.
_IN_VAIN = 3


@dataclass(frozen=True)
class Errand:
    """What all tasks of a job do."""

    arguments: tuple[str, ...]
    """Of `vqtok tokenize`."""
    folder: str | None
    """The working folder; None for that of Ray's worker, where Ray brings the driver's to all nodes."""
    share: Share
    shared: Shared
    tasks: int
    """How many there are."""


@dataclass(frozen=True)
class Ending:
    """How a task ended."""

    task: int
    status: int
    """Exit status of its process, 128 + N after signal N."""
    reason: str = ""
    """The last that it said, where it failed."""
    node: str = ""
    log: str = ""
    """The file on that node that it wrote errors to; empty where nobody knows."""

    def __str__(self) -> str:
        where = f" on {self.node}" if self.node else ""
        log = f"; its log there: {self.log}" if self.log else ""
        return f"task {self.task}{where} ended with exit status {self.status}: {self.reason or 'it said nothing'}{log}"


def run_errand(errand: Errand, task: int) -> Ending:
    """Run the process of a task to its end; one that is killed, as for want of memory, is started again.

    Where the worker or the node is lost Ray starts the task again.
    """
    log = output_file(_STDERR)
    begin = log.stat().st_size if log else 0
    reason = _difference(errand)
    status = ConfigError.exit_status if reason else _run_until_it_ends(errand, task)
    if status and not reason and log:
        reason = _last_line(log, begin)
    return Ending(task, status, reason or "", socket.gethostname(), str(log or ""))


def _difference(errand: Errand) -> str | None:
    """Why this node cannot do it."""
    if errand.folder is not None:
        try:
            os.chdir(errand.folder)  # relative paths begin there
        except OSError as error:
            return f"{error}: all nodes need the working folder of the driver, or give `ray job submit --working-dir`"
    return errand.shared.difference()


def _run_until_it_ends(errand: Errand, task: int) -> int:
    """The exit status of the last process, 128 + N after signal N."""
    in_vain, committed = 0, -1
    while (status := _run_process(errand, task)) < 0:
        before, committed = committed, len(committed_parts(errand.shared.files))
        in_vain = in_vain + 1 if committed == before else 1
        if in_vain == _IN_VAIN or status == -signal.SIGTERM:  # SIGTERM: somebody wanted that
            return exit_status(-status)
    return status


def _run_process(errand: Errand, task: int) -> int:
    return run_child([*command(), "tokenize", *errand.arguments], _environment(errand.share, task, errand.tasks))


def _environment(share: Share, task: int, tasks: int) -> dict[str, str]:
    """Where a process finds its place among all of them, its device and its share of the CPU cores of the node."""
    here = max(math.ceil(available_cores() / share.cpus), 1) if share.cpus else 1
    launched = {"RANK": task, "WORLD_SIZE": tasks, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": here}
    # Ray hides GPUs from tasks that have none, though not those of every maker.
    device = {} if share.gpus else {"ACCELERATE_USE_CPU": "true"}
    return {**os.environ, **device, **{name: str(value) for name, value in launched.items()}}


def _last_line(log: Path, begin: int) -> str:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - _TAIL_BYTES))
        lines: Sequence[str] = file.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""
