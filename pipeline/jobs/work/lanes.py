"""The source shards of a queue through one process: several in work at once, each in a lane of its own.

A lane is a thread that takes one source shard after the other through all stages. A stage serves one source shard at
a time, so the lanes overlap at the borders: while one is written, the next is encoded and another one read.
"""

import contextlib
import threading
from dataclasses import dataclass, field

import torch

from pipeline.errors import SourceError, VqtokError
from pipeline.jobs.bounds import Load
from pipeline.jobs.work.shard import Work, tokenize_shard
from pipeline.jobs.work.shard_queue import ShardQueue
from pipeline.overlap import Stopped
from pipeline.process.shortage import is_thread_shortage, reason_of
from pipeline.process.threads import use_device
from pipeline.records import SourceShard
from pipeline.store.schema.commits import CommitRecord

# One source shard may be read, another one encoded, a third one written.
_LANES = 3
# Waits for threads are cut into pieces of this length: a signal that comes just before a wait would not end it.
_POLL_SECONDS = 0.1


@dataclass
class Done:
    """What a process has done."""

    images: int = 0
    """Samples committed or rejected."""
    rejected: int = 0
    """How many of them were rejected."""
    unlabelled: int = 0
    """Rows without a label."""
    missing: list[dict[str, int]] = field(default_factory=list)
    """Rows without a kept field, by its name, for each source shard."""
    loads: list[Load] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """Why source shards failed, by path."""


def tokenize_all(queue: ShardQueue, work: Work) -> Done:
    """Tokenize what a queue hands out, until it has no more.

    A source shard that fails for its own fault, or for its size, is no reason to stop. Whatever else goes wrong
    stops all lanes and is raised, once what was being written is.
    """
    return _Lanes(queue, work).run()


class _Lanes:
    def __init__(self, queue: ShardQueue, work: Work) -> None:
        self._queue = queue
        self._work = work
        self._lock = threading.Lock()
        self._done = Done()
        self._is_over = False
        self._error: BaseException | None = None
        self._ended = [threading.Event() for _ in range(_LANES)]

    def run(self) -> Done:
        # Daemons: a second Ctrl-C ends a process in which a read hangs.
        lanes = {threading.Thread(target=self._lane, args=[ended], daemon=True): ended for ended in self._ended}
        try:
            for lane in lanes:
                lane.start()
            _wait_for(lanes)
        finally:
            self._work.stopped.set()
            _wait_for(lanes)
            for lane in lanes:
                if lane.ident is not None:
                    lane.join()
        if self._error is not None:
            raise self._error
        return self._done

    def _lane(self, ended: threading.Event) -> None:
        try:
            use_device(self._work.machine.device)
            while self._take_one():
                pass
        except Stopped:
            return
        except BaseException as error:  # raised where the lanes were started
            with self._lock:
                self._error = self._error or error
            self._work.stopped.set()
        finally:
            ended.set()

    def _take_one(self) -> bool:
        """Take a source shard through all stages; False when there is none."""
        reading = self._work.machine.turns.reading
        with contextlib.ExitStack() as turn:
            reading.acquire()
            turn.callback(reading.release)
            shard = None if self._is_over or self._work.stopped.is_set() else self._queue.next()
            if shard is None:
                self._is_over = True
                return False
            try:
                commit = tokenize_shard(shard, self._work, self._queue.progress, turn.close)
            except Stopped:
                raise
            except Exception as error:
                self._fail(shard, error)
            else:
                self._finish(shard, commit)
        return True

    def _finish(self, shard: SourceShard, commit: CommitRecord) -> None:
        machine = self._work.machine
        with machine.watch.doing(lambda: f"write {shard.path}", shard):
            self._queue.done(shard)
        with self._lock:
            self._done.images += commit.seen
            self._done.rejected += commit.rejected
            self._done.unlabelled += commit.unlabelled
            self._done.missing.append(commit.missing)
            on_cpu, gpu_decodes = machine.encoder.on_cpu, self._work.config.image.gpu_decodes
            self._done.loads.append(Load(commit.seconds, commit.threads, on_cpu, machine.bf16_helps, gpu_decodes))

    def _fail(self, shard: SourceShard, caught: Exception) -> None:
        """Tell why a source shard failed; go on after what is its own fault or that of its size."""
        error = MemoryError(str(caught)) if is_thread_shortage(caught) else caught
        is_its_own = isinstance(error, SourceError | MemoryError | torch.OutOfMemoryError)
        kind = "" if isinstance(error, VqtokError) else f"{type(error).__name__}: "
        text = str(error) if isinstance(error, VqtokError) else reason_of(error)
        reason = kind + (text or "it came without a message")
        with self._lock:
            if not is_its_own:
                if self._work.stopped.is_set():
                    raise caught  # a GPU that fails does so for all: what met it first has been noted
                self._work.stopped.set()
            self._done.failures[shard.path] = reason
        self._queue.failed(shard, reason)
        if not is_its_own:
            raise caught


def _wait_for(lanes: dict[threading.Thread, threading.Event]) -> None:
    """Not by `join`: an exception in it, as by a signal, makes a thread that runs pass for one that has ended
    (https://github.com/python/cpython/issues/90882). One that has not begun to run finds that all is over."""
    for lane, ended in lanes.items():
        while lane.ident is not None and not ended.wait(_POLL_SECONDS):
            pass
