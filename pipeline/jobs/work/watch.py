"""Finds a thread that hangs: in a read that never returns, in a decoder, on a device."""

import itertools
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from pipeline.records import SourceShard


@dataclass(frozen=True)
class Hang:
    """A step that has not ended in the time it was given."""

    what: str
    shard: SourceShard
    """At which source shard."""
    seconds: float
    stack: str
    """Where in Python its thread is."""


class _Step(NamedTuple):
    what: Callable[[], str]
    shard: SourceShard
    since: float
    thread: int


class _Doing:
    """A context manager, and no generator of contextlib: every sample passes through two of them."""

    __slots__ = ("_number", "_shard", "_steps", "_what")

    def __init__(self, steps: dict[int, _Step], number: int, what: Callable[[], str], shard: SourceShard) -> None:
        self._steps = steps
        self._number = number
        self._what = what
        self._shard = shard

    def __enter__(self) -> None:
        self._steps[self._number] = _Step(self._what, self._shard, time.monotonic(), threading.get_ident())

    def __exit__(self, *error: object) -> None:
        del self._steps[self._number]


class Watch:
    """Looks at the steps that threads say they are at, while used as a context manager.

    Args:
        limit_s: seconds that a step may take.
        on_hang: called once, in a thread of its own, with the first step that takes longer. A thread cannot be
            stopped from outside, so all that is left is to say so and to end the process.

    Without either of them nothing is watched.
    """

    def __init__(self, limit_s: float | None, on_hang: Callable[[Hang], None] | None) -> None:
        self._limit_s = limit_s
        self._on_hang = on_hang
        self._steps: dict[int, _Step] = {}
        self._numbers = itertools.count()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> Self:
        if self._limit_s is not None and self._on_hang is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()

    def doing(self, what: Callable[[], str], shard: SourceShard) -> _Doing:
        """A context to say what this thread is at, until it is done; `what` is called only if it hangs."""
        return _Doing(self._steps, next(self._numbers), what, shard)

    def _look(self) -> None:
        limit_s, on_hang = self._limit_s, self._on_hang
        assert limit_s is not None
        assert on_hang is not None
        while not self._stopped.wait(min(limit_s / 4, 5)):
            oldest = min(list(self._steps.values()), key=lambda step: step.since, default=None)
            if oldest is not None and time.monotonic() - oldest.since > limit_s:
                on_hang(_hang(oldest))
                return


def _hang(step: _Step) -> Hang:
    frame = sys._current_frames().get(step.thread)
    stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
    return Hang(step.what(), step.shard, time.monotonic() - step.since, stack)
