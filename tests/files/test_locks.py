"""Locks of files among threads, processes, forks and the killed."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from support import start_python

from pipeline.files.locks import is_at, lock, try_lock, unlock

HOLD = """
import os, sys, time
from pathlib import Path
from pipeline.files.locks import lock
lock(Path(sys.argv[1]))
if "fork" in sys.argv and not os.fork():
    print("forked", os.getpid(), flush=True)
    time.sleep(600)
if "fork" not in sys.argv:
    print("locked", flush=True)
time.sleep(600)
"""


def holder(path: Path, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A process that holds the lock, and what it said when it had it."""
    process = start_python(HOLD, path, *arguments)
    assert process.stdout is not None
    return process, process.stdout.readline()


def test_a_lock_is_held_by_one_thread_only(tmp_path: Path) -> None:
    descriptor = lock(tmp_path / "a")
    assert try_lock(tmp_path / "a") is None
    waiting = threading.Thread(target=lambda: unlock(lock(tmp_path / "a")))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    unlock(descriptor)
    waiting.join(10)
    assert not waiting.is_alive()
    again = try_lock(tmp_path / "a")
    assert again is not None
    unlock(again)


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    process, _ = holder(tmp_path / "a")
    with process:
        assert try_lock(tmp_path / "a") is None
        process.kill()
        process.wait()
        unlock(lock(tmp_path / "a"))


def test_a_fork_does_not_hold_what_its_killed_parent_held(tmp_path: Path) -> None:
    process, said = holder(tmp_path / "a", "fork")
    with process:
        child = int(said.split()[1])
        try:
            assert try_lock(tmp_path / "a") is None  # the parent has it still
            process.kill()
            process.wait()
            unlock(lock(tmp_path / "a"))
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_fork_takes_nothing_from_a_parent_that_lives(tmp_path: Path) -> None:
    descriptor = lock(tmp_path / "a")
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    assert try_lock(tmp_path / "a") is None
    unlock(descriptor)


def test_who_waits_for_a_file_that_is_deleted_locks_the_next_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a"
    first = lock(path)
    found: list[bool] = []

    def wait() -> None:
        descriptor = lock(path)
        found.append(is_at(descriptor, path))
        unlock(descriptor)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    path.unlink()
    assert not is_at(first, path)
    unlock(first)
    for thread in threads:
        thread.join(10)
    assert found == [True, True, True]
