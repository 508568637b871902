"""A child process of a Ray task: it ends when the task does, however that is."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.jobs.ray import leash

_POLL_SECONDS = 0.5
# What is being written when the end is asked for is written first.
_GRACE_SECONDS = 60.0


def run_child(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end; its exit status, -N after signal N.

    Where an exception reaches this thread, as by `ray.cancel`, the child is told to end (SIGTERM), and has ended when
    the exception goes on. When this process is killed the system tells the child.
    """
    child = _Child(command, environment)
    try:
        child.start()
        # Waits are short: `ray.cancel` interrupts Python, and not a wait.
        while not child.ended.wait(_POLL_SECONDS):
            pass
    finally:
        child.stop()
    return child.result()


class _Child:
    """In a thread of its own, so that an exception between two lines of the main one cannot lose sight of it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.ended = threading.Event()
        self._stopped = threading.Event()
        self._command = [sys.executable, "-P", leash.__file__, str(os.getpid()), *command]
        self._environment = environment
        self._status: int | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="child")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._stopped.set()
        while self._thread.ident is not None and not self.ended.wait(_POLL_SECONDS):
            pass

    def result(self) -> int:
        """Its exit status. Raises OSError where it could not be started."""
        if self._status is None:
            raise self._error or AssertionError("not started")
        return self._status

    def _run(self) -> None:
        try:
            with subprocess.Popen(self._command, env=self._environment, stdin=subprocess.DEVNULL) as child:
                self._status = self._wait(child)
        except Exception as error:  # raised where the child was wanted
            self._error = error
        finally:
            self.ended.set()

    def _wait(self, child: "subprocess.Popen[bytes]") -> int:
        while child.poll() is None and not self._stopped.wait(_POLL_SECONDS / 5):
            pass
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
        return child.wait()


def output_file(descriptor: int) -> Path | None:
    """The file that a descriptor of this process, and so of its children, is written to; None where it is none."""
    try:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
    except OSError:
        return None
    return path if path.is_file() else None
