"""Running the stages of a pipeline beside each other, in order and in bounded memory."""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_POLL_SECONDS = 0.1


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    executor: Executor,
    ahead: int,
    weight: Callable[[T], int] = lambda item: 1,
    at_least: int = 1,
) -> Generator[R, None, None]:
    """`map` on `executor`, results in the order of `items`.

    Items are taken until those in flight weigh `ahead` together, each 1 unless `weight` says otherwise, and are
    `at_least` so many.
    The first exception, of `function` or of `items`, ends the iteration; work not begun is cancelled.
    """
    pending: deque[tuple[Future[R], int]] = deque()
    in_flight = 0
    try:
        for item in items:
            pending.append((executor.submit(function, item), weight(item)))
            in_flight += pending[-1][1]
            while in_flight >= ahead and len(pending) >= at_least:
                future, done = pending.popleft()
                in_flight -= done
                yield future.result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        for future, _ in pending:
            future.cancel()


class Stopped(Exception):
    """Somebody wanted an end of it."""


def prefetch(
    items: Iterable[T],
    depth: int,
    interrupt: Callable[[], None] = lambda: None,
    stopping: threading.Event | None = None,
) -> Generator[T, None, None]:
    """Iterate over `items` in a thread of its own: at most `depth` of them wait, and one more is in the making.

    An exception of `items` is raised here, behind the items before it. Closing the generator stops the
    thread before it returns; `interrupt` is called first, to end a wait of `items` that may last for ever.

    Args:
        stopping: raise Stopped soon after this is set, whether or not there are more items.
    """
    done = object()
    results: queue.Queue[object] = queue.Queue(depth)
    stopped = threading.Event()
    errors: list[BaseException] = []

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                results.put(item, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        iterator: Iterator[T] | None = None
        try:
            iterator = iter(items)
            for item in iterator:
                if not put(item):
                    return
        except BaseException as error:  # handed to the consumer, whatever it is
            errors.append(error)
        finally:
            if isinstance(iterator, Generator):
                iterator.close()
            put(done)

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := _get(results, stopping)) is not done:
            yield item  # type: ignore[misc]
        if errors:
            raise errors[0]
    finally:
        stopped.set()
        interrupt()
        thread.join()


def _get(results: queue.Queue[object], stopping: threading.Event | None) -> object:
    """The next of `results`, in a wait that signals can end.

    One that reaches another thread, or this one in the moment before it falls asleep, does not wake it, and its
    handler runs only when something else does: https://github.com/python/cpython/issues/85300.
    """
    while True:
        if stopping is not None and stopping.is_set():
            raise Stopped
        with contextlib.suppress(queue.Empty):
            return results.get(timeout=_POLL_SECONDS)


def within(seconds: float, *steps: Callable[[], object]) -> None:
    """Take last steps that may fail, or hang: they are left behind when the time is over, and end with the process."""

    def take() -> None:
        for step in steps:
            with contextlib.suppress(Exception):
                step()

    try:
        thread = threading.Thread(target=take, name="goodbye", daemon=True)
        thread.start()
    except RuntimeError:  # no more threads
        return
    thread.join(seconds)


class Turns:
    """Threads that want the same take turns: the first makes it, and those that waited find it made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[Hashable, tuple[threading.Lock, int]] = {}
        """By what is wanted: its lock, and how many threads hold or await it."""

    @contextlib.contextmanager
    def of(self, wanted: Hashable) -> Iterator[None]:
        """One thread at a time for what is `wanted`."""
        with self._lock:
            turn, threads = self._wanted.get(wanted, (threading.Lock(), 0))
            self._wanted[wanted] = turn, threads + 1
        try:
            with turn:
                yield
        finally:
            with self._lock:
                turn, threads = self._wanted[wanted]
                if threads > 1:
                    self._wanted[wanted] = turn, threads - 1
                else:
                    del self._wanted[wanted]
