"""The stages of one source shard: how long each was busy, with how much, and what it is at."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager
from typing import TypeVar

from pipeline.jobs.work.watch import Watch
from pipeline.records import SourceShard

T = TypeVar("T")
S = TypeVar("S", bound=Sized)


class Stage:
    """One stage of one source shard. Any thread may work in it.

    Args:
        clock: what its busy seconds are counted by: CPU time of a thread where stages share cores.
    """

    def __init__(self, name: str, shard: SourceShard, watch: Watch, clock: Callable[[], float]) -> None:
        self._name = name
        self._shard = shard
        self._watch = watch
        self._clock = clock
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._count = 0

    @property
    def seconds(self) -> float:
        """Busy seconds, summed over threads."""
        with self._lock:
            return round(self._seconds, 6)

    @property
    def count(self) -> int:
        """Samples that have been through it."""
        with self._lock:
            return self._count

    def add(self, seconds: float, count: int) -> None:
        """Count work that was measured elsewhere."""
        with self._lock:
            self._seconds += seconds
            self._count += count

    def watched(self, what: Callable[[], object] | None = None) -> AbstractContextManager[None]:
        """Watch a step, which may hang. Its seconds are not counted as busy: it may be a wait for other stages.

        Args:
            what: tells more of it, if it hangs.
        """
        return self._watch.doing(lambda: self._described(what), self._shard)

    def _described(self, what: Callable[[], object] | None) -> str:
        step = f"{self._name} {self._shard.path}"
        return f"{step}: {what()}" if what else step

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """`items`, one sample each; the time that it takes to get at them is that of the stage."""
        iterator = iter(items)
        step = self.watched()
        try:
            while True:
                started = self._clock()
                with step:
                    item = next(iterator, None)
                self.add(self._clock() - started, item is not None)
                if item is None:
                    return
                yield item
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    def timed(self, function: Callable[[S], T]) -> Callable[[S], T]:
        """`function` of some samples; the time that it takes is that of the stage."""

        def work(samples: S) -> T:
            started = self._clock()
            try:
                with self.watched(lambda: samples):
                    return function(samples)
            finally:
                self.add(self._clock() - started, len(samples))

        return work


class Stages:
    """Those that a source shard goes through before it is written.

    Args:
        gpu_decodes: whether the threads of the decoder wait for a GPU, which is work then.
    """

    def __init__(self, shard: SourceShard, watch: Watch, gpu_decodes: bool = False) -> None:
        self.read = Stage("read", shard, watch, time.perf_counter)
        self.decode = Stage("decode", shard, watch, time.perf_counter if gpu_decodes else time.thread_time)
        self.encode = Stage("encode", shard, watch, time.perf_counter)

    @property
    def seconds(self) -> dict[str, float]:
        """Busy seconds by stage, for the commit record."""
        return {"read": self.read.seconds, "decode": self.decode.seconds, "encode": self.encode.seconds}

    @property
    def counts(self) -> dict[str, int]:
        """Samples by stage, for the commit record."""
        return {"read": self.read.count, "decode": self.decode.count, "encode": self.encode.count}
