"""What becomes of a source shard that failed, of a process that hangs, and of one whose GPU fails."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn

from pipeline.claims import Claims
from pipeline.errors import ConfigError, IdentityMismatch, VqtokError
from pipeline.files import Files
from pipeline.jobs.work.watch import Hang
from pipeline.overlap import within
from pipeline.printing import one_line, printable, say
from pipeline.process.shortage import reason_of
from pipeline.records import SourceShard
from pipeline.source.shards.command import tell_commands_to_end
from pipeline.store.schema.failures import JOB, Failure, record_failure

# How long a process waits for its last writes: it may be the store that hangs.
_GOODBYE_SECONDS = 10.0
_ending = threading.Lock()


def note_failure(store: Files, shard: SourceShard, reason: str) -> None:
    """Note in the store why a source shard stays pending. A full disk must not hide the reason."""
    with contextlib.suppress(OSError):
        record_failure(store, _failure(shard.part, shard.path, reason))


@contextlib.contextmanager
def noting_the_end(store: Files) -> Iterator[None]:
    """Note in the store why a process gives up, for `vqtok status`: not all look into its log.

    It may be the store that cannot be written. A job that is refused changes nothing there, and notes nothing.
    """
    try:
        yield
    except (ConfigError, IdentityMismatch):
        raise
    except Exception as error:
        within(_GOODBYE_SECONDS, partial(record_failure, store, _failure(JOB, "the job", _first_line(error))))
        raise


def _failure(part: str, source: str, reason: str) -> Failure:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Failure(part=part, source=source, reason=one_line(reason), host=socket.gethostname(), time=now)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _gpu_failure(error: RuntimeError) -> str:
    return (
        f"{reason_of(error)}: the GPU is of no more use to this process, which ends; what is committed stays, and "
        "others can go on. Run again; if it comes again, CUDA_LAUNCH_BLOCKING=1 tells in which operation, and "
        "nvidia-smi whether the GPU is well"
    )


def end_process_without_gpu(
    error: RuntimeError, shard: SourceShard | None = None, store: Files | None = None, claims: Claims | None = None
) -> NoReturn:
    """Say that the GPU has failed, give back what is claimed, and end the process: torch would abort it soon.

    It does so when memory on such a GPU is freed, so to be called while `error` holds what its thread has there.

    Args:
        shard: what was in work, if anything was.
    """
    _ending.acquire()  # for ever: other threads that find out would free theirs
    say(f"vqtok: {printable(shard.path) + ': ' if shard else ''}{_gpu_failure(error)}", error=True)
    _end(store, claims, shard, f"{type(error).__name__}: {reason_of(error)}")


def end_hung_process(store: Files, claims: Claims, hang: Hang) -> NoReturn:
    """Say what hangs, give back what is claimed, and end the process: its threads cannot be stopped."""
    reason = one_line(f"{hang.what}: has not ended for {hang.seconds:,.0f} s (tokenize.stall_timeout)")
    say(
        f"{hang.stack}vqtok: {reason}; this process ends, and others can go on. Run again; if it is slow and does "
        "not hang raise tokenize.stall_timeout, or leave the source shard out with source.exclude",
        error=True,
    )
    _end(store, claims, hang.shard, reason)


def _end(store: Files | None, claims: Claims | None, shard: SourceShard | None, reason: str) -> NoReturn:
    steps: list[Callable[[], object]] = []
    if store and shard:
        steps.append(partial(note_failure, store, shard, reason))
    if claims:
        steps.append(claims.release_all)
    within(_GOODBYE_SECONDS, *steps)
    tell_commands_to_end()  # last: threads that wait for their output would go on, and claim the next source shard
    os._exit(VqtokError.exit_status)
