"""A child ends when its task does: by an exception, and when the process of the task is killed."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from fixtures_store import wait_for
from support import start_python

from pipeline.jobs.ray.child import output_file, run_child

pytest_plugins = ["fixtures_store"]

# Notes that it has begun and, where it is asked to end, that it was told.
WAITS = """
import pathlib, signal, sys, time
def told(signum, frame):
    pathlib.Path(sys.argv[1], "told").touch()
    sys.exit(128 + signum)
signal.signal(signal.SIGTERM, told)
pathlib.Path(sys.argv[1], "begun").touch()
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("code", "status"), [("", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9)]
)
def test_the_exit_status_is_that_of_the_child(code: str, status: int) -> None:
    assert run_child([sys.executable, "-c", code], os.environ) == status


def test_what_cannot_be_started_ends_with_the_status_of_the_starter(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_child(["/nowhere/python"], os.environ) == 1
    assert "/nowhere/python" in capfd.readouterr().err


def test_an_exception_ends_the_child_by_sigterm(tmp_path: Path) -> None:
    def interrupt() -> None:
        wait_for((tmp_path / "begun").exists)
        signal.raise_signal(signal.SIGINT)  # a KeyboardInterrupt in the main thread, as by `ray.cancel`

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_child([sys.executable, "-c", WAITS, str(tmp_path)], os.environ)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "told").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child")
def test_a_child_is_told_to_end_when_its_process_is_killed(tmp_path: Path) -> None:
    code = "import os, sys; from pipeline.jobs.ray.child import run_child; run_child(sys.argv[1:], os.environ)"
    with start_python(code, sys.executable, "-c", WAITS, tmp_path) as task:
        wait_for((tmp_path / "begun").exists)
        assert not (tmp_path / "told").exists()
        task.kill()
        wait_for((tmp_path / "told").exists, 20)


def test_the_file_that_errors_go_to(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        assert output_file(log.fileno()) == tmp_path / "log"
    reading, writing = os.pipe()
    assert output_file(writing) is None
    os.close(reading)
    os.close(writing)
