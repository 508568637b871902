"""Requests to end: who hears of them, how often they count, and what is put back."""

import os
import signal
import threading
import time

import pytest
from support import start_python

from pipeline.process.signals import (
    TERMINATING,
    StopRequest,
    end_with_parent,
    handling,
    stop_request,
    terminable,
    told_when_this_ends,
)

WORK = """
import os, signal, sys, time
from pipeline.process.signals import stop_request
for name in sys.argv[2:]:
    signal.signal(signal.Signals[name], signal.SIG_IGN)
with stop_request("ended at once") as request:
    if sys.argv[1] == "postponed":
        with request.postponed():
            print("ready", flush=True)
            while request.signum is None:
                time.sleep(0.01)
            print(signal.Signals(request.signum).name, flush=True)
            time.sleep(60)
    print("ready", flush=True)
    time.sleep(60)
"""


def after(*signums: int, mode: str = "at once", ignored: tuple[str, ...] = (), pause_s: float = 0.0) -> tuple[int, str]:
    """Exit status and output of a process that is sent signals, a while apart: the second when the first is noted."""
    with start_python(WORK, mode, *ignored) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        noted = ""
        for signum in signums:
            process.send_signal(signum)
            if mode == "postponed" and not noted:
                noted = process.stdout.readline()
            else:
                time.sleep(pause_s)
        process.wait(30)
        assert process.stderr is not None
        return process.returncode, noted + process.stdout.read() + process.stderr.read()


@pytest.mark.parametrize("signum", TERMINATING)
def test_a_signal_ends_at_once_with_one_line(signum: signal.Signals) -> None:
    assert after(signum) == (128 + signum, f"\nvqtok: {signum.name}: ended at once\n")


@pytest.mark.parametrize(
    ("signums", "pause_s"),
    [
        # The second comes within half a second, as one that a launcher hands on besides; the third does not.
        ((signal.SIGINT, signal.SIGINT, signal.SIGINT), 0.6),
        # Another one is no echo, however soon it comes.
        ((signal.SIGTERM, signal.SIGINT), 0.0),
    ],
)
def test_postponed_the_first_is_noted_its_echo_passes_and_the_second_ends(
    signums: tuple[signal.Signals, ...], pause_s: float
) -> None:
    status, output = after(*signums, mode="postponed", pause_s=pause_s)
    assert (status, output) == (130, f"{signums[0].name}\n\nvqtok: SIGINT: ended at once\n")


def test_what_is_ignored_stays_ignored() -> None:
    """As under nohup, and by processes in the background of a script."""
    status, _ = after(signal.SIGHUP, signal.SIGINT, signal.SIGTERM, ignored=("SIGHUP", "SIGINT"), pause_s=0.2)
    assert status == 143


def test_handlers_and_the_wakeup_descriptor_are_put_back() -> None:
    before = {signum: signal.getsignal(signum) for signum in TERMINATING}
    with stop_request("") as request, request.postponed():
        os.kill(os.getpid(), signal.SIGUSR1)
        while request.signum is None:
            time.sleep(0.001)
        assert request.signum == signal.SIGUSR1
    assert {signum: signal.getsignal(signum) for signum in TERMINATING} == before
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    assert wakeup == -1
    assert "signals" not in {thread.name for thread in threading.enumerate()}


def test_outside_the_main_thread_nothing_is_handled() -> None:
    found: list[object] = []

    def work() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with handling([signal.SIGTERM], print) as handled, stop_request("") as request, terminable():
            found.append((handled, request.signum, signal.getsignal(signal.SIGTERM) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, None, True)]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_terminable_raises_what_exits_as_a_signal_does(signum: signal.Signals) -> None:
    with pytest.raises(SystemExit) as caught, terminable():
        os.kill(os.getpid(), signum)
        time.sleep(5)
    assert caught.value.code == 128 + signum
    assert StopRequest("").signum is None


def test_nothing_but_a_second_ctrl_c_interrupts_the_way_out() -> None:
    released = []
    with pytest.raises(KeyboardInterrupt), terminable():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the first as one that a launcher hands on
                os.kill(os.getpid(), signum)
            released.append("claims")
            time.sleep(0.6)
            os.kill(os.getpid(), signal.SIGINT)
            released.append("never")
    assert released == ["claims"]


def test_a_signal_that_the_program_uses_itself_stays_its_own() -> None:
    seen: list[int] = []
    with handling([signal.SIGUSR1], lambda signum, frame: seen.append(signum)), terminable():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert seen == [signal.SIGUSR1]


def test_a_process_whose_parent_is_gone_already_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in told_when_this_ends().items():  # said by this process, which is not its own parent
        monkeypatch.setenv(name, value)
    code = "from pipeline.process.signals import end_with_parent; end_with_parent(); print('goes on')"
    with start_python(code) as child:
        assert (child.wait(30), child.stdout and child.stdout.read()) == (0, "goes on\n")
    with start_python(f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {code!r}]))") as parent:
        assert parent.wait(30) == 143


def test_a_process_that_nobody_asked_stays_as_it_is() -> None:
    before = signal.getsignal(signal.SIGTERM)
    end_with_parent()
    assert signal.getsignal(signal.SIGTERM) == before
