"""Several processes of one job on this machine.

Tokenizing processes share nothing but the store, so they need no rendezvous: unlike under torchrun, one that
dies does not take the others with it. `torchrun` and `accelerate launch` work as well.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pipeline
from pipeline.errors import VqtokError
from pipeline.jobs.plan import Plan
from pipeline.jobs.work.result import TokenizeResult, found_result, together
from pipeline.jobs.work.siblings import new_siblings
from pipeline.jobs.work.starting import announced
from pipeline.process.signals import TERMINATING, handling, terminable
from pipeline.world import cores_of_each, environment_among

_POLL_SECONDS = 1.0


def tokenize_in_processes(
    plan: Plan, arguments: Sequence[str], processes: int, timeout_s: float
) -> tuple[int, TokenizeResult | None]:
    """Run `vqtok tokenize arguments` in `processes` processes; the largest exit status, and what they came to.

    There is no result where none of them came to its end. Raises VqtokError where all succeeded and nothing is done.

    Args:
        timeout_s: `tokenize.claim_timeout`.
    """
    with terminable(), new_siblings() as siblings, announced(plan.store, processes, timeout_s) as until_begun:

        def look() -> None:
            if siblings.has_begun:
                until_begun.close()

        status = launch(["tokenize", *arguments], processes, siblings.environment, look)
        results = siblings.results()
    if status == 0 and len(results) < processes:  # as when their folder is gone
        found = found_result(plan)
        if not found.complete:
            raise VqtokError(
                f"{processes - len(results)} of {processes} processes ended without having tokenized; is another "
                "package called pipeline where Python looks first?"
            )
        return status, found
    return status, together(results) if results else None


def launch(
    arguments: Sequence[str],
    processes: int,
    environment: Mapping[str, str] | None = None,
    look: Callable[[], None] = lambda: None,
) -> int:
    """Run `vqtok arguments` in `processes` processes; returns the largest exit status.

    Args:
        environment: more variables for all of them.
        look: called about every second.

    Each process finds its rank where torchrun would put it: its rank among all, where this one has a rank itself, as
    in a Slurm array. Ctrl-C reaches all of them through the
    terminal; SIGTERM is passed on.
    """
    children: list[subprocess.Popen[bytes]] = []
    passed_on: list[int] = []

    def pass_on(signum: int, frame: object) -> None:
        passed_on.append(signum)
        for child in children:
            child.send_signal(signum)

    with handling(TERMINATING, pass_on):
        for rank in range(processes):
            variables = {**_environment(rank, processes), **(environment or {})}
            children.append(subprocess.Popen([*command(), *arguments], env=variables))
            for signum in passed_on:  # while this one began
                children[-1].send_signal(signum)
        statuses = [_wait(child, look) for child in children]
    return max(status if status >= 0 else 128 - status for status in statuses)


def _environment(rank: int, processes: int) -> dict[str, str]:
    among = environment_among(rank, processes)
    cores = cores_of_each(int(among["LOCAL_WORLD_SIZE"]))
    return {"OMP_NUM_THREADS": str(cores), **os.environ, **among}


def command() -> list[str]:
    """What starts `vqtok` of this very package. `-m pipeline` would prefer what lies in the working folder."""
    return [sys.executable, "-P", str(Path(pipeline.__file__).with_name("__main__.py"))]


def _wait(child: subprocess.Popen[bytes], look: Callable[[], None]) -> int:
    """Its exit status. Waits are short, for a signal that comes just before one does not end it."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(_POLL_SECONDS)
        look()
