"""The driver of a job on a Ray cluster: it starts tasks, and shows what the store says of the job meanwhile.

Any number of drivers may do so on one store. One that is lost takes its tasks with it and nothing else: the same
command goes on.
"""

import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.config import Config
from pipeline.errors import ConfigError, VqtokError
from pipeline.jobs.plan import Plan, with_late_commits
from pipeline.jobs.ray.cluster import Request, Share, connected, load_ray, nodes_of, share_of, slots
from pipeline.jobs.ray.shared import shared_by_nodes
from pipeline.jobs.ray.task import Ending, Errand, run_errand
from pipeline.jobs.status.job import Observer, Status
from pipeline.jobs.status.table import status_line, status_table
from pipeline.jobs.terminal import InPlace
from pipeline.jobs.tokenizing.command import find_work
from pipeline.jobs.work.result import TokenizeResult
from pipeline.printing import say
from pipeline.signals import exit_status, handling
from pipeline.store.schema.failures import read_failures
from pipeline.store.schema.manifest import is_current

_LOOK_SECONDS = 2.0
# A log file wants a line now and then.
_LINE_SECONDS = 30.0
# How long a task may take to end once it is cancelled: its process is killed after a minute.
_CANCEL_SECONDS = 90.0
_CANCELLED = exit_status(signal.SIGTERM)


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
    ray = load_ray()
    plan, status = find_work(config, options, plan)
    if status is not None:
        return status
    with (
        connected(ray, request.address),
        _stop_signals() as stop,  # after Ray, which has a handler of its own
        shared_by_nodes(config, config_arguments[1], plan) as shared,
    ):
        share, workers = _placed(ray, request, stop)
        flags = [f"--{name.replace('_', '-')}" for name, given in options.items() if given and name != "no_progress"]
        arguments = (*config_arguments, "--no-progress", *flags)
        tasks = _started(ray, Errand(arguments, _working_folder(ray), share, shared, workers))
        with _screen(config, show=not options["no_progress"]) as screen:
            _work_off(tasks, screen, stop)
    if stop:
        return exit_status(stop[0])
    result = _result_of(plan)
    say(result, error=not result.succeeded)
    return 0 if result.succeeded else 1


class _Tasks:
    """Those that have not ended."""

    def __init__(self, ray: Any, errand: Errand) -> None:
        self._ray = ray
        task = ray.remote(
            num_cpus=errand.share.cpus, num_gpus=errand.share.gpus, max_retries=-1, scheduling_strategy="SPREAD"
        )(run_errand)
        numbers = range(errand.tasks)
        self._left = {task.options(name=f"vqtok {number}").remote(errand, number): number for number in numbers}

    def __len__(self) -> int:
        return len(self._left)

    def ended(self, within_s: float) -> Iterator[Ending]:
        """Those that end within some seconds."""
        left = list(self._left)
        done, _ = self._ray.wait(left, num_returns=len(left), timeout=within_s, fetch_local=False)
        for ref in done:
            yield self._ending(ref, self._left.pop(ref))

    def cancel(self) -> None:
        """Let those that run end by SIGTERM, and those that wait for a node not begin."""
        for ref in self._left:
            with contextlib.suppress(Exception):  # it has ended meanwhile
                self._ray.cancel(ref)

    def _ending(self, ref: Any, number: int) -> Ending:
        try:
            ending: Ending = self._ray.get(ref)
        except self._ray.exceptions.TaskCancelledError:
            return Ending(number, _CANCELLED)
        except self._ray.exceptions.RayError as error:
            return Ending(number, 1, (str(error).strip().splitlines() or [""])[-1])
        return ending


def _started(ray: Any, errand: Errand) -> _Tasks:
    try:
        return _Tasks(ray, errand)
    except ValueError as error:  # a share that Ray does not hand out
        raise ConfigError(f"--cpus, --gpus: {error}") from error


class _Screen:
    """What is shown of a job while its tasks run: a table on a terminal, a line now and then elsewhere."""

    def __init__(self, config: Config) -> None:
        self._observer = Observer(config)
        self._in_place = InPlace(sys.stderr)
        self._line_due = time.monotonic()
        self.pause_s = _LOOK_SECONDS

    def show(self, tasks: int) -> Status | None:
        """The state of the job, once it is shown; None where it could not be looked at."""
        looked = time.monotonic()
        try:
            status = self._observer.look()
        except (OSError, VqtokError):
            return None  # a picture of progress is not worth a failure
        self.pause_s = max(_LOOK_SECONDS, 10 * (time.monotonic() - looked))
        note = f"{tasks:,} task{'s' if tasks != 1 else ''} at work or waiting for a node"
        if sys.stderr.isatty():
            self._in_place.show(f"{status_table(status)}\n\n{note}")
        elif looked >= self._line_due:
            self._line_due = looked + _LINE_SECONDS
            say(f"{status_line(status)}; {note}", error=True)
        return status


@contextlib.contextmanager
def _screen(config: Config, show: bool) -> Iterator[_Screen | None]:
    yield _Screen(config) if show else None


def _work_off(tasks: _Tasks, screen: _Screen | None, stop: Sequence[int]) -> None:
    """Until all tasks have ended, or somebody has asked for an end of it."""
    deadline = None
    while tasks and (deadline is None or time.monotonic() < deadline):
        for ending in tasks.ended(screen.pause_s if screen else _LOOK_SECONDS):
            if ending.status and ending.status != _CANCELLED:
                say(f"vqtok: {ending}", error=True)
        if deadline is not None:
            continue
        status = screen.show(len(tasks)) if screen else None
        if stop or (status and status.complete):  # what still waits for a node would find nothing to do
            tasks.cancel()
            deadline = time.monotonic() + _CANCEL_SECONDS


def _placed(ray: Any, request: Request, stop: Sequence[int]) -> tuple[Share, int]:
    """What each task has, and how many there are; said in one line. Raises ConfigError where none has room."""
    deadline = time.monotonic() + request.wait_for_nodes_s
    while True:
        nodes = nodes_of(ray)
        share = share_of(nodes, request)
        room = slots(nodes, share)
        if room or stop or time.monotonic() >= deadline:
            break
        time.sleep(_LOOK_SECONDS / 2)
    if not room and not stop:
        raise ConfigError(
            f"no node of the Ray cluster has {share} for a task (--cpus, --gpus): {_described(nodes)}. Where an "
            "autoscaler brings nodes, give --workers and --wait-for-nodes SECONDS"
        )
    workers = request.workers or max(room, 1)
    say(f"{workers:,} tasks of {share} each; the Ray cluster has room for {room:,} at once", error=True)
    return share, workers


def _described(nodes: Sequence[Mapping[str, float]]) -> str:
    cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
    return f"its {len(nodes)} nodes have {cpus:g} CPU cores and {gpus:g} GPUs"


def _working_folder(ray: Any) -> str | None:
    environment = ray.get_runtime_context().runtime_env
    return None if environment.get("working_dir") else str(Path.cwd())


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Signals that have asked for an end; the second one ends the driver at once, and Ray then kills its tasks."""
    found: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        if found:
            raise SystemExit(exit_status(signum))
        found.append(signum)
        say("\nvqtok: telling the tasks to end; once more to leave at once", error=True)

    with handling((signal.SIGINT, signal.SIGTERM), note):
        yield found


def _result_of(plan: Plan) -> TokenizeResult:
    """What the store tells when all tasks have ended. Raises VqtokError where nobody has come to finish it."""
    plan = with_late_commits(plan)
    pending = {shard.part for shard in plan.pending}
    if not pending and not is_current(plan.manifest, plan.committed, plan.planned):
        raise VqtokError(f"{plan.store.root}: all is committed, but the manifest is not up to date: run it again")
    return TokenizeResult(
        store=plan.store.root,
        planned=len(plan.shards),
        committed=len(plan.shards) - len(pending),
        failures={failure.source: failure.reason for failure in read_failures(plan.store, pending)},
        is_empty=not pending and plan.has_no_rows,
    )
