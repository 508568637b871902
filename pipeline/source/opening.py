"""Where the bytes of a source shard come from: a file, an object, or the output of a shell command."""

import contextlib
import errno
import os
import signal
import subprocess
from io import BufferedReader
from typing import BinaryIO, cast

from pipeline.errors import SourceError
from pipeline.files import Readable, files_at
from pipeline.records import SourceShard

PIPE = "pipe:"

# A command that has closed its output may still tidy up; one that is told to stop, too.
_END_SECONDS = 60
_STOP_SECONDS = 5


def source_at(base: str) -> Readable:
    """What the source shards at `base` are read through: its folder or URL, or the command of a `pipe:`."""
    return Command(base.removeprefix(PIPE)) if base.startswith(PIPE) else files_at(base)


def shard_name(shard: SourceShard) -> str:
    """What a source shard is called in messages, which end in the store: without the command of a `pipe:`."""
    return f"{source_at(shard.base).root}/{shard.path}"


def refuse_changed(shard: SourceShard, bytes_read: int) -> None:
    """Raise SourceError when a source shard is not, or is no longer, what it was when the job was planned.

    What has been read may then be a mixture, or lack what was appended meanwhile.
    """
    if shard.bytes is None:
        return  # a command; nobody knows what it should print
    name = shard_name(shard)
    try:
        now = files_at(shard.base).stat(shard.path)
    except OSError as error:
        raise SourceError(f"{name}: gone while it was read ({error}); restore it and run again") from error
    if not bytes_read == now.bytes == shard.bytes:
        raise SourceError(
            f"{name}: {bytes_read:,} bytes read, {now.bytes:,} now, {shard.bytes:,} when the job began; run again "
            "when nobody writes to it"
        )
    if now.version != shard.version:
        raise SourceError(f"{name}: written anew since the job began; run again when nobody writes to it")


class Command:
    """A shell command; whatever path is asked for, it is what the command prints."""

    root = PIPE.rstrip(":")

    def __init__(self, command: str) -> None:
        self._command = command
        self._outputs: list[_Output] = []

    def open(self, path: str) -> BinaryIO:
        """Start the command. Reading raises OSError at its end if it failed."""
        self._outputs.append(_Output(self._command))
        return cast(BinaryIO, self._outputs[-1])

    def stop(self) -> None:
        """End what `open` has started, so that a thread that waits for its output goes on. Any thread may call it."""
        for output in self._outputs:
            output.stop()


class _Output:
    """Standard output of a command, read forward."""

    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # so that all of a pipeline can be stopped at once
        )
        self._stdout = cast(BufferedReader, self._process.stdout)

    def __enter__(self) -> "_Output":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

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

    def stop(self) -> None:
        """Tell the command to end, then make it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_STOP_SECONDS)
