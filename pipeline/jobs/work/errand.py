"""What a job does in each place that an engine finds for it on some node: one `vqtok tokenize`, to its end."""

import contextlib
import math
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.jobs.work.launch import command
from pipeline.jobs.work.processes import Share
from pipeline.jobs.work.shared import Shared
from pipeline.process.signals import exit_status, handling, told_when_this_ends
from pipeline.store.schema.commits import committed_parts
from pipeline.world import available_cores

CANCELLED = exit_status(signal.SIGTERM)
"""Exit status of a process that somebody wanted to end."""

_POLL_SECONDS = 0.1
# What is being written when the end is asked for is written first.
_GRACE_SECONDS = 60.0
_TAIL_BYTES = 4000
# Deaths of a process by a signal, with nothing committed between them by anybody, after which nobody starts it again:
# an image that crashes a decoder would do so for ever.
_IN_VAIN = 3


@dataclass(frozen=True)
class Errand:
    """What all tasks of a job do, each with one process."""

    arguments: tuple[str, ...]
    """Of `vqtok tokenize`."""
    folder: str | None
    """The working folder; None where the engine sees to it."""
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

    Raises as `run_child`.
    """
    log = Path("/proc/self/fd/2").resolve()  # the file that errors of this process, and so of its child, are written to
    begin = log.stat().st_size if log.is_file() else None
    reason = _difference(errand)
    status = ConfigError.exit_status if reason else _run_until_it_ends(errand, task)
    if status and not reason and begin is not None:
        reason = last_line(_tail(log, begin))
    return Ending(task, status, reason, socket.gethostname(), "" if begin is None else str(log))


def _difference(errand: Errand) -> str:
    """Why this node cannot do it; empty where it can."""
    if errand.folder is not None:
        try:
            os.chdir(errand.folder)  # relative paths begin there
        except OSError as error:
            return f"{error}: all nodes need the working folder of the driver, or give `ray job submit --working-dir`"
    return errand.shared.difference()


def _run_until_it_ends(errand: Errand, task: int) -> int:
    """The exit status of the last process."""
    environment = _environment(errand.share, task, errand.tasks)
    in_vain, committed = 0, -1
    while True:
        status = run_child([*command(), "tokenize", *errand.arguments], environment)
        if status <= exit_status(0) or status == CANCELLED:
            return status
        before, committed = committed, len(committed_parts(errand.shared.store))
        in_vain = in_vain + 1 if committed == before else 1
        if in_vain == _IN_VAIN:
            return status


def run_child(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end; its exit status, 128 + N after signal N.

    SIGTERM and SIGINT, also one that is only simulated as by `ray.cancel`, tell the child to end by SIGTERM. When it
    has ended SystemExit or KeyboardInterrupt is raised. A `vqtok tokenize` is told, too, when this process is killed.
    """
    asked: list[int] = []
    with handling((signal.SIGTERM, signal.SIGINT), lambda signum, frame: asked.append(signum)):
        child = subprocess.Popen(command, env={**environment, **told_when_this_ends()}, stdin=subprocess.DEVNULL)
        # Waits are short: what is only simulated interrupts none.
        while child.poll() is None and not asked:
            time.sleep(_POLL_SECONDS)
        if asked:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_SECONDS)
            child.kill()
        status = child.wait()
    if signal.SIGTERM in asked:
        raise SystemExit(CANCELLED)
    if asked:
        raise KeyboardInterrupt
    return status if status >= 0 else exit_status(-status)


def _environment(share: Share, task: int, tasks: int) -> dict[str, str]:
    """Where a process finds its place among all of them, its device and its share of the CPU cores of the node."""
    here = max(math.ceil(available_cores() / share.cpus), 1) if share.cpus else 1
    launched = {"RANK": task, "WORLD_SIZE": tasks, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": here}
    # Engines hide GPUs from tasks that have none, though not those of every maker.
    device = {} if share.gpus else {"ACCELERATE_USE_CPU": "true"}
    return {**os.environ, **device, **{name: str(value) for name, value in launched.items()}}


def _tail(log: Path, begin: int) -> str:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace")
    return ""


def last_line(text: str) -> str:
    """The last line of a text that is not blank."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
