"""Calls that are made in the background, by threads that are there only while there is something to do."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable


class Background:
    """Makes calls in order in up to `threads` threads of this process.

    Calls end early when `is_stopping`: after `close`, or when the process is about to end.
    """

    def __init__(self, threads: int) -> None:
        self.pid = os.getpid()
        self._threads = threads
        self._queue: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._running: set[threading.Thread] = set()
        self._is_closed = False

    @property
    def is_stopping(self) -> bool:
        """Whether nothing is to be begun any more."""
        return self._is_closed or not threading.main_thread().is_alive()

    def add(self, calls: Iterable[Callable[[], None]]) -> None:
        """Have these called after those that wait already."""
        with self._lock:
            if self.is_stopping:
                return
            self._queue.extend(calls)
            for _ in range(min(self._threads - len(self._running), len(self._queue))):
                thread = threading.Thread(target=self._work, name="background")
                self._running.add(thread)
                thread.start()

    def close(self) -> None:
        """Forget the calls that wait, and wait for those that run."""
        with self._lock:
            self._is_closed = True
            self._queue.clear()
            running = list(self._running)
        for thread in running:
            thread.join()

    def _work(self) -> None:
        try:
            while call := self._next():
                call()
        except BaseException:
            self._running.discard(threading.current_thread())
            raise

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            if self._queue and not self.is_stopping:
                return self._queue.popleft()
            # Under the lock: what is added from now on starts a thread of its own.
            self._running.discard(threading.current_thread())
            return None
