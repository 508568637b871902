"""The output of a shell command, which must not outlast its use."""

import contextlib
import errno
import os
import signal
import subprocess
import weakref
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from typing import BinaryIO, cast

# What a command has to tidy up: once it has closed its output, and once it is told to stop.
_END_SECONDS = 60
_STOP_SECONDS = 5


_running: weakref.WeakSet["_Output"] = weakref.WeakSet()


def tell_commands_to_end() -> None:
    """For a process about to end without tidying up: what it still reads is told to end, and not waited for."""
    for output in list(_running):
        output.tell_to_end()


class Command:
    """A shell command; whatever path is asked for, it is what the command prints."""

    root = "pipe"

    def __init__(self, command: str) -> None:
        self._command = command
        self._outputs: list[_Output] = []
        self._stopped = False

    def open(self, path: str) -> BinaryIO:
        """Start the command. Reading raises OSError at its end if it failed or was stopped."""
        # Ctrl-C is an exception anywhere in the main thread; in one of its own, no start is left half done.
        with ThreadPoolExecutor(1, "command") as starter:
            output = starter.submit(_Output, self._command).result()
        self._outputs.append(output)
        if self._stopped:  # by a thread that did not see this one in the list
            output.stop()
        return cast(BinaryIO, output)

    def stop(self) -> None:
        """End what `open` has started and will start, so that a thread that waits for its output goes on.

        Any thread may call it, at any time.
        """
        self._stopped = True
        for output in list(self._outputs):
            output.stop()


class _Output:
    """Standard output of a command, read forward. The command is stopped, too, when nobody has this any more."""

    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # so that all of a pipeline can be stopped at once
        )
        self._stdout = cast(BufferedReader, self._process.stdout)
        self.stop = weakref.finalize(self, _stop, self._process)
        _running.add(self)

    def __enter__(self) -> "_Output":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def tell_to_end(self) -> None:
        """Without waiting for it."""
        _tell(self._process, signal.SIGTERM)

    def read(self, size: int) -> bytes:
        """At most `size` bytes, as they come: a command may take its time for the next ones. None at its end."""
        data = self._stdout.read1(size)
        if not data:
            self._expect_success()
        return data

    def _expect_success(self) -> None:
        # The command itself is not repeated in messages: it may hold secrets.
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise OSError(errno.EPIPE, f"the command closed its output, but did not end in {_END_SECONDS} s") from None
        if status:
            raise OSError(errno.EPIPE, f"the command ended with exit status {status}")

    def close(self) -> None:
        """Stop the command if it has more to say than was read."""
        self._stdout.close()
        self.stop()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Tell a command to end, then make it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if _tell(process, number):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)


def _tell(process: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Send a signal to all that a command has started; False where it has ended."""
    if process.poll() is not None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    return True
