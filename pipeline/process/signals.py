"""Signals that ask a process to end: what it does then is a setting of the whole process."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from types import FrameType

from pipeline.printing import say

TERMINATING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
)
"""What schedulers, launchers, terminals and people send."""

# One request may come twice, from the terminal and through a launcher that hands it on: as the same signal.
_ECHO_SECONDS = 5.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.5
# What torchrun and Slurm leave a process between asking it to end and ending it.
_GRACE_SECONDS = 30
_PARENT = "VQTOK_PARENT"
_PR_SET_PDEATHSIG = 1
"""prctl(2): a signal for this process when the one that started it is gone."""


def exit_status(signum: int) -> int:
    """What a shell says of a process that a signal ended."""
    return 128 + signum


class EndedBySignal(SystemExit):
    """Raised where a signal asks this process to end; the status is that of `exit_status`."""

    def __init__(self, signum: int) -> None:
        super().__init__(exit_status(signum))
        self.signum = signum


@contextlib.contextmanager
def handling(signums: Collection[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[bool]:
    """Call `handler` for signals, and put back afterwards what was there before.

    What the process was started to ignore, as under `nohup`, it goes on to ignore. Gives False, and does nothing,
    outside the main thread: whoever runs us there handles signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before = {signum: signal.getsignal(signum) for signum in signums}
    ours = {signum: old for signum, old in before.items() if old is not signal.SIG_IGN}
    try:
        for signum in ours:
            signal.signal(signum, handler)
        yield True
    finally:
        for signum, old in ours.items():
            signal.signal(signum, signal.SIG_DFL if old is None else old)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Turn what asks this process to end into an exception, so that what is held is released on the way out.

    EndedBySignal comes of SIGTERM, and of SIGHUP and SIGUSR1 where the program has no use of its own for them;
    KeyboardInterrupt of SIGINT. Nothing but a second Ctrl-C that is no echo of the first interrupts the way out.
    """
    first: list[float] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        begins = not first
        if begins:
            first.append(now)
        if signum == signal.SIGINT:
            if begins or now > first[0] + _ECHO_SECONDS:
                raise KeyboardInterrupt
        elif begins:
            raise EndedBySignal(signum)

    unused = (signal.SIG_DFL, signal.default_int_handler)
    ours = [signum for signum in TERMINATING if signum != signal.SIGQUIT and signal.getsignal(signum) in unused]
    with handling({signal.SIGTERM, *ours}, stop):
        yield


def told_when_this_ends() -> dict[str, str]:
    """What asks a child of this process, by its environment, to call `end_with_parent`."""
    return {_PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Where it was asked to: be told to end (SIGTERM) when whoever started this process is gone.

    It would go on otherwise, for who is killed cannot tell anybody. Only Linux knows this.
    """
    parent = os.environ.pop(_PARENT, None)
    if parent is None:
        return
    # Whatever the parent does with signals, this process is to end by this one.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if str(os.getppid()) != parent:  # it was killed meanwhile
        sys.exit(exit_status(signal.SIGTERM))


class StopRequest:
    """Whether this process has been asked to end, for work that ends only between two steps.

    A thread is told of each signal: the main one may be waiting for an accelerator or for other processes, and would
    hear of it when that is over. Outside `postponed` the first signal ends the process at once, with one line that
    says so; inside, the first is remembered and the second ends it at once.
    """

    def __init__(self, at_once: str) -> None:
        self.signum: int | None = None
        """The signal that asked first."""
        self._at_once = at_once
        self._first = 0.0
        self._postponed = False

    @contextlib.contextmanager
    def postponed(self) -> Iterator[None]:
        """Remember the first signal."""
        self._postponed = True
        try:
            yield
        finally:
            self._postponed = False

    def note(self, signum: int) -> None:
        """One more signal has come."""
        now = time.monotonic()
        if self.signum is not None:
            ends = signum != self.signum or now > self._first + _ECHO_SECONDS
        else:
            self.signum, self._first = signum, now
            ends = not self._postponed
        if ends:
            self._end(signum)

    def _end(self, signum: int) -> None:
        if os.environ.get("RANK", "0") == "0":
            say(f"\nvqtok: {signal.Signals(signum).name}: {self._at_once}", error=True)
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(exit_status(signum))


@contextlib.contextmanager
def stop_request(at_once: str) -> Iterator[StopRequest]:
    """Take signals as requests to end, in the main thread.

    Args:
        at_once: what to say when one ends the process at once.
    """
    request = StopRequest(at_once)
    # Python's handlers do nothing: signals that have one are written to the wakeup descriptor, even while the main
    # thread does not run Python.
    with handling(TERMINATING, lambda signum, frame: None) as handled:
        if not handled:
            yield request
            return
        reading, writing = socket.socketpair()
        writing.setblocking(False)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        watcher = threading.Thread(target=_watch, args=(reading, request), name="signals", daemon=True)
        watcher.start()
        try:
            yield request
        finally:
            signal.set_wakeup_fd(before)
            writing.shutdown(socket.SHUT_WR)  # the watcher ends, even where forked processes have the descriptor too
            watcher.join()
            writing.close()
            reading.close()


def _watch(reading: socket.socket, request: StopRequest) -> None:
    while numbers := reading.recv(64):
        for signum in numbers:
            if signum in TERMINATING:
                request.note(signum)


def leave_signals_to_parent(_worker: int = 0) -> None:
    """For worker processes: the parent is told too, and still needs them for what it does then.

    SIGTERM ends them with a delay, for it is how a parent ends workers that do not end by themselves.
    """
    signal.set_wakeup_fd(-1)  # the parent's, after a fork
    for signum in TERMINATING:
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)


def _end_later(signum: int, frame: FrameType | None) -> None:
    signal.alarm(_GRACE_SECONDS)
