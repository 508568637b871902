"""What a task does on its node, without an engine: its process, how often, and how it ends."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_store import Job, wait_for
from support import start_python

from pipeline.jobs.plan import make_plan
from pipeline.jobs.work import errand as errands
from pipeline.jobs.work.errand import Ending, Errand, last_line, run_child, run_errand
from pipeline.jobs.work.processes import Share
from pipeline.jobs.work.shared import Shared, shared_by_nodes

pytest_plugins = ["fixtures_store"]

# Notes that it has begun and, where it is asked to end, that it was told.
WAITS = """
import pathlib, signal, sys, time
from pipeline.process.signals import end_with_parent
end_with_parent()
def told(signum, frame):
    pathlib.Path(sys.argv[1], "told").touch()
    sys.exit(128 + signum)
signal.signal(signal.SIGTERM, told)
pathlib.Path(sys.argv[1], "begun").touch()
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("code", "status"), [("", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_the_exit_status_is_that_of_the_child(code: str, status: int) -> None:
    assert run_child([sys.executable, "-c", code], os.environ) == status


@pytest.mark.parametrize(("signum", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_who_is_asked_to_end_ends_its_child_by_sigterm_first(
    tmp_path: Path, signum: signal.Signals, raised: type[BaseException]
) -> None:
    def ask() -> None:
        wait_for((tmp_path / "begun").exists)
        # As `ray.cancel` does it: the handler is called, and there was no signal.
        _thread.interrupt_main(signum)

    before = [(each, signal.signal(each, signal.default_int_handler)) for each in (signal.SIGINT, signal.SIGTERM)]
    threading.Thread(target=ask).start()
    try:
        with pytest.raises(raised):
            run_child([sys.executable, "-c", WAITS, str(tmp_path)], os.environ)
    finally:
        for each, handler in before:
            signal.signal(each, handler)
    assert (tmp_path / "told").exists()


def test_a_child_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "_GRACE_SECONDS", 0.2)
    deaf = WAITS.replace("sys.exit(128 + signum)", "pass") + "\ntime.sleep(60)"

    def ask() -> None:
        wait_for((tmp_path / "begun").exists)
        os.kill(os.getpid(), signal.SIGINT)
        wait_for((tmp_path / "told").exists)
        os.kill(os.getpid(), signal.SIGINT)  # once more changes nothing

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_child([sys.executable, "-c", deaf, str(tmp_path)], os.environ)
    finally:
        signal.signal(signal.SIGINT, before)
        asking.join()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child")
def test_a_child_is_told_to_end_when_its_process_is_killed(tmp_path: Path) -> None:
    code = "import os, sys; from pipeline.jobs.work.errand import run_child; run_child(sys.argv[1:], os.environ)"
    with start_python(code, sys.executable, "-c", WAITS, tmp_path) as task:
        wait_for((tmp_path / "begun").exists)
        assert not (tmp_path / "told").exists()
        task.kill()
        wait_for((tmp_path / "told").exists, 20)


@pytest.fixture
def shared(job: Job) -> Iterator[Shared]:
    """What the driver of a job sees."""
    with shared_by_nodes(job.config(), str(job.file), make_plan(job.config())) as shared:
        yield shared


def test_a_task_whose_node_lacks_the_working_folder_starts_nothing(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "run_child", None)  # not to be called
    ending = run_errand(Errand((), "/nowhere", Share(1, 0), shared, 1), 0)
    assert ending.status == 2
    assert "/nowhere" in str(ending)
    assert "all nodes need the working folder of the driver" in str(ending)


@pytest.mark.parametrize(
    ("cores", "cpus", "processes"), [(64, 4, 16), (10, 4, 3), (2, 1, 2), (1, 1, 1), (2, 0.5, 4), (4, 16, 1)]
)
def test_a_process_has_its_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, cpus: float, processes: int
) -> None:
    monkeypatch.setattr(errands, "available_cores", lambda: cores)
    environment = errands._environment(Share(cpus, 0), 3, 7)
    assert (environment["RANK"], environment["WORLD_SIZE"]) == ("3", "7")
    assert (environment["LOCAL_RANK"], environment["LOCAL_WORLD_SIZE"]) == ("0", str(processes))


@pytest.mark.parametrize(
    ("endings", "commits", "status"),
    [
        ([0], [], 0),
        ([1], [], 1),
        ([137, 0], [3], 0),
        ([137, 139, 137, 0], [3, 4, 4], 0),  # not thrice in vain
        ([137, 137, 137, 137, 137], [3, 4, 5, 5, 5], 137),
        ([139, 139, 139], [0, 0, 0], 139),
        ([143], [0], 143),
    ],
)
def test_a_process_that_is_killed_is_started_again_while_anything_is_committed(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, endings: list[int], commits: list[int], status: int
) -> None:
    ended, committed = iter(endings), iter(commits)
    monkeypatch.setattr(errands, "run_child", lambda command, environment: next(ended))
    monkeypatch.setattr(errands, "committed_parts", lambda files: range(next(committed)))
    assert run_errand(Errand((), None, Share(1, 0), shared, 1), 0).status == status
    assert next(ended, None) is None


def test_a_process_without_a_gpu_of_its_own_leaves_those_of_the_node_alone() -> None:
    assert errands._environment(Share(1, 0), 0, 1)["ACCELERATE_USE_CPU"] == "true"
    assert "ACCELERATE_USE_CPU" not in set(errands._environment(Share(4, 1), 0, 1)) - set(os.environ)


FAILS = """
import os, sys
for path in sys.argv[1:]:
    os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), 2)
from pipeline.jobs.work import errand as errands
from pipeline.jobs.work.processes import Share
class Same:
    def difference(self):
        return ""
say = "import sys; print('vqtok: first', 'vqtok: the disk is full', '', sep=chr(10), file=sys.stderr); sys.exit(1)"
errands.command = lambda: [sys.executable, "-c", say]
print("of another task", file=sys.stderr, flush=True)
print(errands.run_errand(errands.Errand((), None, Share(1, 0), Same(), 1), 3))
"""


def test_the_last_that_a_process_said_is_told_with_the_file_that_it_is_in(tmp_path: Path) -> None:
    log = (tmp_path / "log").resolve()
    with start_python(FAILS, log) as task:
        out, _ = task.communicate(timeout=60)
    assert out.startswith("task 3 on ")
    assert out.endswith(f" ended with exit status 1: vqtok: the disk is full; its log there: {log}\n")


def test_what_is_said_where_there_is_no_log_is_not_known() -> None:
    with start_python(FAILS) as task:  # to a pipe
        out, _ = task.communicate(timeout=60)
    assert out.endswith(" ended with exit status 1: it said nothing\n")


def test_the_last_line() -> None:
    assert last_line("first\nlast \n\n") == "last"
    assert last_line("\n") == ""
    assert str(Ending(3, 1, "full", "host0")) == "task 3 on host0 ended with exit status 1: full"
