"""The driver of a job on a Ray cluster: it starts tasks, and shows what the store says of the job meanwhile.

Any number of drivers may do so on one store. One that is lost takes its tasks with it and nothing else: the same
command goes on.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.jobs.plan import Plan
from pipeline.jobs.ray.cluster import Request, connected, find_room
from pipeline.jobs.status.watching import Watcher
from pipeline.jobs.tokenizing.command import find_work, flags_of
from pipeline.jobs.work.errand import CANCELLED, Ending, Errand, last_line, run_errand
from pipeline.jobs.work.result import found_result
from pipeline.jobs.work.shared import shared_by_nodes
from pipeline.printing import say
from pipeline.process.signals import StopRequest, exit_status, stop_request

_WAIT_SECONDS = 2.0
# How long a task may take to end once it is cancelled: its process is killed after a minute.
_CANCEL_SECONDS = 90.0


def run(
    config: Config,
    config_arguments: Sequence[str],
    request: Request,
    options: Mapping[str, bool],
    plan: Plan | None = None,
) -> int:
    """Tokenize in tasks of a Ray cluster; the exit status, 0 only where all is committed.

    Args:
        config_arguments: what makes the command line load `config`, the path of its file second.
        options, plan: those of `tokenize_as_asked`.

    Raises ConfigError where there is no Ray, no cluster or no room on it, and VqtokError as `tokenize_as_asked` does.
    """
    plan, status = find_work(config, options, plan)
    if status is not None:
        return status
    with (
        connected(request.address) as ray,
        stop_request("leaving at once; Ray kills the tasks") as stop,  # after Ray, which has a handler of its own
        stop.postponed(),
        shared_by_nodes(config, config_arguments[1], plan) as shared,
    ):
        share, room = find_room(ray, request, stop)
        tasks = request.workers or max(room, 1)
        say(f"{tasks:,} tasks of {share} each; the Ray cluster has room for {room:,} at once", error=True)
        arguments = (*config_arguments, *flags_of({**options, "no_progress": True}))
        brought = ray.get_runtime_context().runtime_env.get("working_dir")
        errand = Errand(arguments, None if brought else str(Path.cwd()), share, shared, tasks)
        _work_off(ray, errand, Watcher(config, error=True), stop, quiet=options["no_progress"])
    if stop.signum:
        return exit_status(stop.signum)
    result = found_result(plan)
    say(result, error=not result.succeeded)
    return 0 if result.succeeded else 1


def _work_off(ray: Any, errand: Errand, watcher: Watcher, stop: StopRequest, quiet: bool) -> None:
    """Until all tasks have ended, or somebody has asked for an end of it."""
    tasks = _start(ray, errand)
    while tasks:
        _wait(ray, tasks, _WAIT_SECONDS)
        watcher.look_sparingly()
        if not quiet:
            watcher.show_progress(f"{len(tasks):,} task{'s' * (len(tasks) != 1)} at work or waiting for a node")
        if stop.signum:
            say("\nvqtok: telling the tasks to end; once more to leave at once", error=True)
        if tasks and (stop.signum or watcher.is_complete):  # what still waits for a node would find nothing to do
            for ref in tasks:
                with contextlib.suppress(Exception):  # it has ended meanwhile
                    ray.cancel(ref)
            _wait(ray, tasks, _CANCEL_SECONDS)
            break


def _start(ray: Any, errand: Errand) -> dict[Any, int]:
    """The tasks, with their numbers. Ray starts one again whose worker or node is lost."""
    cpus, gpus = errand.share.cpus, errand.share.gpus
    try:
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=-1, scheduling_strategy="SPREAD")(run_errand)
        return {task.options(name=f"vqtok {number}").remote(errand, number): number for number in range(errand.tasks)}
    except ValueError as error:  # a share that Ray does not hand out
        raise ConfigError(f"--cpus, --gpus: {error}") from error


def _wait(ray: Any, tasks: dict[Any, int], within_s: float) -> None:
    """Until all tasks have ended, at most so long: forget those that have, and say which of them failed."""
    done, _ = ray.wait(list(tasks), num_returns=len(tasks), timeout=within_s, fetch_local=False)
    for ref in done:
        number = tasks.pop(ref)
        try:
            ending = ray.get(ref)
        except ray.exceptions.TaskCancelledError:
            continue
        except ray.exceptions.RayError as error:
            ending = Ending(number, 1, last_line(str(error)))
        if ending.status not in (0, CANCELLED):
            say(f"vqtok: {ending}", error=True)
