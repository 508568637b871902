"""The output of a command as a source shard: to its end, with its failure, and nothing left running."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from support import tar_bytes

from pipeline.config import SourceConfig
from pipeline.errors import SourceError
from pipeline.records import SourceShard
from pipeline.source.containers.tar.reader import TarReader
from pipeline.source.containers.tar.strict import StrictTar
from pipeline.source.reading import Opener
from pipeline.source.sample import Sample
from pipeline.source.shards import command as command_module
from pipeline.source.shards.command import Command
from pipeline.source.shards.opening import PIPE

MEMBERS = [("a.jpg", bytes(range(256)) * 4096), ("b.jpg", b"2")]


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "x.tar"
    path.write_bytes(tar_bytes(MEMBERS))
    return path


def keys(command: str) -> list[str]:
    return [sample.key for sample in TarReader(Command(command), "pipe/x.tar")]


def is_running(number: int) -> bool:
    """Whether a process is there, be it a zombie."""
    return Path(f"/proc/{number}").exists()


def read_number(path: Path) -> int:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(path.read_text())


def test_the_output_of_a_command_is_read_to_its_end(tar: Path) -> None:
    assert keys(f"cat {tar}") == ["a", "b"]
    assert keys(f"gzip -c {tar} | (sleep 0.1; gzip -dc)") == ["a", "b"]
    reader = TarReader(Command(f"cat {tar}"), "x.tar")
    assert [sample.members for sample in reader] == [{"jpg": MEMBERS[0][1]}, {"jpg": b"2"}]
    assert reader.bytes == tar.stat().st_size


FAILURES = {
    "false": "exit status 1",
    "exit 7": "exit status 7",
    "cat TAR; exit 7": "exit status 7",
    "cat TAR nowhere": "exit status 1",
    "no-such-command-here": "exit status 127",
    "cat TAR; kill -9 $$": "exit status -9",
    "head -c 700 TAR; exit 2": "exit status 2",
    "true": "the file is empty",
    "head -c 700 TAR": "cut off inside a member",
    "cat TAR TAR": "more data follows",
}


@pytest.mark.parametrize("command", FAILURES)
def test_a_command_that_fails_is_an_error_without_its_text(command: str, tar: Path) -> None:
    with pytest.raises(SourceError) as caught:
        keys(f": s3cret; {command.replace('TAR', str(tar))}")
    assert FAILURES[command] in str(caught.value)
    assert str(caught.value).startswith("pipe/pipe/x.tar: ")
    assert "s3cret" not in str(caught.value)


def test_a_command_of_which_enough_was_read_is_stopped(tar: Path, tmp_path: Path) -> None:
    command = f"echo $$ > {tmp_path}/pid; cat {tar}; yes"
    with pytest.raises(SourceError, match="more data follows"):
        keys(command)
    assert not is_running(read_number(tmp_path / "pid"))
    with Command(f"echo $$ > {tmp_path}/second; cat {tar}; sleep 1000").open("x.tar") as stream:
        assert next(iter(StrictTar(stream, "x.tar"))).name == "a.jpg"
    assert not is_running(read_number(tmp_path / "second"))


def test_a_command_that_will_not_stop_is_made_to(tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_module, "_STOP_SECONDS", 0.2)
    command = f"trap '' TERM; echo $$ > {tmp_path}/pid; cat {tar}; while :; do sleep 0.05; done"
    with Command(command).open("x.tar") as stream:
        assert stream.read(10) == b"a.jpg" + bytes(5)
        number = read_number(tmp_path / "pid")
    assert not is_running(number)


def test_a_command_that_closes_its_output_and_hangs_is_an_error(
    tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_module, "_END_SECONDS", 0.3)
    with pytest.raises(SourceError, match=r"closed its output, but did not end in 0\.3 s"):
        keys(f"echo $$ > {tmp_path}/pid; cat {tar}; exec >&-; sleep 1000")
    assert not is_running(read_number(tmp_path / "pid"))


def test_a_command_that_closes_its_output_may_tidy_up(tar: Path) -> None:
    assert keys(f"cat {tar}; exec >&-; sleep 0.3") == ["a", "b"]


def test_a_wait_for_output_that_never_comes_is_ended_from_another_thread(tar: Path) -> None:
    source = Command(f"cat {tar}; sleep 1000")
    timer = threading.Timer(0.3, source.stop)
    timer.start()
    with pytest.raises(SourceError, match="exit status -15"):
        list(TarReader(source, "x.tar"))
    timer.join()
    source.stop()  # nothing is left to stop


@pytest.mark.parametrize("opened", [False, True], ids=["command", "opener"])
def test_a_command_that_is_stopped_while_it_starts_does_not_run_on(
    opened: bool, tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs before the process that started it knows its number."""
    text = f"cat {tar}; echo $$ > {tmp_path}/pid; sleep 20"
    command, opener = Command(text), Opener(SourceConfig(shards=(str(tar),)))
    shard = SourceShard(path="x.tar", base=PIPE + text, part="x-0", bytes=None)
    samples: Iterable[Sample] = opener.open(shard) if opened else TarReader(command, "x.tar")
    stop_it = opener.stop if opened else command.stop
    started, stopped = threading.Event(), threading.Event()

    class SlowPopen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.set()
            assert stopped.wait(20)

    def stop() -> None:
        assert started.wait(20)
        stop_it()
        stopped.set()

    monkeypatch.setattr(subprocess, "Popen", SlowPopen)
    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(SourceError, match="exit status -15"):
        list(samples)
    thread.join()


def test_ctrl_c_while_a_command_starts_leaves_nothing_running(tmp_path: Path) -> None:
    code = f"""
import os, random, signal, threading, time
from pipeline.source.shards.command import Command

def interrupt(seconds):
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGINT)

for _ in range(3):  # the first one imports
    began = time.monotonic()
    with Command('echo').open('x') as stream:
        stream.read(1)
    a_start = time.monotonic() - began
for _ in range(100):
    thread = threading.Thread(target=interrupt, args=[random.uniform(0, 2 * a_start)])
    try:
        thread.start()
        with Command('echo $$ >> {tmp_path}/pids; sleep 1000').open('x'):
            time.sleep(5)
    except KeyboardInterrupt:
        thread.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    pids = [int(line) for line in (tmp_path / "pids").read_text().splitlines()]
    assert pids  # others were stopped before they said anything
    assert not any(map(is_running, pids))


def test_a_command_reads_nothing_from_the_terminal(tar: Path) -> None:
    code = f"""
from pipeline.source.shards.command import Command
stream = Command('cat - {tar}').open('x')
print(sum(map(len, iter(lambda: stream.read(10**9), b''))))
"""
    done = subprocess.run([sys.executable, "-c", code], input="abc", capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == (str(tar.stat().st_size), "")
