"""How long the stages of a source shard were busy, and with how much."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, Literal, ParamSpec, TypeVar

from pipeline.jobs.work.watch import Watch
from pipeline.records import SourceShard

P = ParamSpec("P")
T = TypeVar("T")

Stage = Literal["read", "decode", "encode"]


class Stages:
    """Busy seconds and counts of one source shard by stage, which any thread may add to."""

    def __init__(self, shard: SourceShard, watch: Watch) -> None:
        self._shard = shard
        self._watch = watch
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {"read": 0.0, "decode": 0.0, "encode": 0.0}
        self._counts: dict[str, int] = {"read": 0, "decode": 0, "encode": 0}

    @property
    def seconds(self) -> dict[str, float]:
        """Busy seconds by stage, summed over threads."""
        with self._lock:
            return {stage: round(seconds, 6) for stage, seconds in self._seconds.items()}

    @property
    def counts(self) -> dict[str, int]:
        """Samples by stage."""
        with self._lock:
            return dict(self._counts)

    def add(self, stage: Stage, seconds: float, count: int = 1) -> None:
        """Count work that was measured elsewhere."""
        with self._lock:
            self._seconds[stage] += seconds
            self._counts[stage] += count

    @contextlib.contextmanager
    def watched(self, stage: Stage, what: str = "") -> Iterator[None]:
        """A step that ought to end, and whose seconds do not count: a wait for others."""
        with self._watch.doing(lambda: self._step(stage, what), self._shard):
            yield

    def reading(self, items: Iterable[T]) -> Iterator[T]:
        """`items`; the time it takes to get at them is that of stage `read`."""
        iterator = iter(items)
        try:
            while True:
                started = time.perf_counter()
                with self._watch.doing(lambda: self._step("read"), self._shard):
                    item = next(iterator, None)
                self.add("read", time.perf_counter() - started, item is not None)
                if item is None:
                    return
                yield item
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    def decoding(self, executor: Executor) -> Executor:
        """`executor`; the CPU time of what is submitted is that of stage `decode`."""
        return _Decoding(executor, self)

    def _decode(self, function: Callable[P, T], args: Any, kwargs: Any) -> T:
        started = time.thread_time()
        try:
            with self._watch.doing(lambda: self._step("decode", ", ".join(map(repr, args))), self._shard):
                return function(*args, **kwargs)
        finally:
            self.add("decode", time.thread_time() - started, 0)

    def _step(self, stage: Stage, what: str = "") -> str:
        return f"{stage} {self._shard.path}{what and f': {what}'}"


class _Decoding(Executor):
    def __init__(self, executor: Executor, stages: Stages) -> None:
        self._executor = executor
        self._stages = stages

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        return self._executor.submit(self._stages._decode, fn, args, kwargs)
