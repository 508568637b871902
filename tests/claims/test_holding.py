"""Claims between real processes: alive, killed, frozen, late."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support import ROOT, start_python

from pipeline.claims import (
    Claim,
    Claims,
    claimed_parts,
    find_claim,
    holding,
    is_local_and_gone,
    read_claim,
    read_claims,
)
from pipeline.errors import CorruptStore
from pipeline.files import LocalFiles

# Claims what its standard input names and says how it went; leaves when the input ends.
HOLDER = """
import sys
from pipeline.claims import Claims
from pipeline.files import LocalFiles
with Claims(LocalFiles(sys.argv[1]), float(sys.argv[2])) as claims:
    for line in sys.stdin:
        method, part, *numbers = line.split()
        print(getattr(claims, method)(part, *map(int, numbers)), flush=True)
"""
FOREVER_S = 600.0


class Holder:
    """Another process that holds claims."""

    def __init__(self, files: LocalFiles, timeout_s: float, *launcher: str) -> None:
        if launcher:
            self.process = subprocess.Popen(
                [*launcher, sys.executable, "-c", HOLDER, files.root, str(timeout_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
        else:
            self.process = start_python(HOLDER, files.root, timeout_s)

    def __call__(self, method: str, part: str, *numbers: int) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(method, part, *numbers, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        """Leave in good order."""
        _, errors = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, errors


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path)


@pytest.fixture
def another(files: LocalFiles) -> Iterator[Callable[..., Holder]]:
    """Starts other processes, and ends those that the test has not."""
    started: list[Holder] = []

    def start(timeout_s: float, *launcher: str) -> Holder:
        started.append(Holder(files, timeout_s, *launcher))
        return started[-1]

    yield start
    for holder in started:
        holder.process.kill()
        holder.process.communicate()


def eventually(condition: Callable[[], bool], within_s: float = 20) -> float:
    """Seconds until the condition holds; fails when it does not."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s
        time.sleep(0.01)
    return time.monotonic() - began


def only(files: LocalFiles) -> Claim:
    (claim,) = read_claims(files)
    return claim


def test_a_claim_says_who_holds_it_until_it_is_released(files: LocalFiles) -> None:
    with Claims(files, FOREVER_S) as claims:
        assert claims.acquire("a-0123") is True
        claim = only(files)
        assert (claim.part, claim.host, claim.pid) == ("a-0123", socket.gethostname(), os.getpid())
        assert abs(datetime.now(UTC) - datetime.fromisoformat(claim.since)) < timedelta(minutes=1)
        assert (claimed_parts(files), read_claim(files, "a-0123")) == (["a-0123"], claim)
        claims.release("a-0123")
        assert read_claims(files) == []
        claims.release("a-0123")
        claims.release("never-held")
        assert (claimed_parts(files), read_claim(files, "a-0123")) == ([], None)


def test_leaving_releases_every_claim_and_ends_the_heartbeat(files: LocalFiles) -> None:
    with pytest.raises(KeyboardInterrupt), Claims(files, FOREVER_S) as claims:
        assert claims.acquire("a")
        assert claims.acquire("b")
        assert [claim.part for claim in read_claims(files)] == ["a", "b"]
        raise KeyboardInterrupt
    assert read_claims(files) == []
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_another_process_is_refused_until_the_claim_is_released(
    files: LocalFiles, another: Callable[..., Holder]
) -> None:
    """Clocks of hosts and file systems decide nothing."""
    holder = another(FOREVER_S)
    assert holder("acquire", "a") == "True"
    assert {name for name in Claim.model_fields if "time" in name or "date" in name} == set()
    with Claims(files, FOREVER_S) as claims:
        assert claims.is_live("a")
        assert claims.acquire("a") is False
        for moment in (0, time.time() + 10**6):  # as a file server with a wrong clock would stamp it
            os.utime(files.path("claims/a.json"), (moment, moment))
            assert claims.acquire("a") is False
        assert claims.acquire("b") is True
        assert holder("acquire", "b") == "False"
        holder("release", "a")
        assert claims.acquire("a") is True
        assert only_of(files, "a").pid == os.getpid()
    holder.end()


def only_of(files: LocalFiles, part: str) -> Claim:
    (claim,) = [claim for claim in read_claims(files) if claim.part == part]
    return claim


def test_of_racing_processes_one_gets_the_claim(files: LocalFiles, another: Callable[..., Holder]) -> None:
    holders = [another(FOREVER_S) for _ in range(4)]
    for holder in holders:
        holder("is_live", "warm-up")
    for number in range(10):
        for holder in holders:
            assert holder.process.stdin is not None
            print("acquire", f"part-{number}", file=holder.process.stdin, flush=True)
    answers = []
    for holder in holders:
        assert holder.process.stdout is not None
        answers.append([holder.process.stdout.readline().strip() for _ in range(10)])
    for row in zip(*answers, strict=True):
        assert sorted(row) == ["False", "False", "False", "True"]


@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
def test_the_claim_of_a_killed_process_is_taken_over_at_once(
    files: LocalFiles, another: Callable[..., Holder], reaped: bool
) -> None:
    holder = another(FOREVER_S)
    assert holder("acquire", "a") == "True"
    with Claims(files, FOREVER_S) as claims:
        assert claims.acquire("a") is False
        holder.process.kill()
        if reaped:
            holder.process.wait()
        else:
            os.waitid(os.P_PID, holder.process.pid, os.WEXITED | os.WNOWAIT)
        assert claims.acquire("a") is True
        assert only(files).pid == os.getpid()
    assert read_claims(files) == []


def test_a_killed_process_is_known_at_the_first_look(files: LocalFiles, another: Callable[..., Holder]) -> None:
    holder = another(FOREVER_S)
    assert holder("acquire", "a") == "True"
    holder.process.kill()
    holder.process.wait()
    assert is_local_and_gone(only(files))
    with Claims(files, FOREVER_S) as claims:
        assert claims.acquire("a") is True


def test_a_frozen_process_loses_its_claim_after_the_timeout_and_cannot_take_it_back(
    files: LocalFiles, another: Callable[..., Holder]
) -> None:
    timeout_s = 0.9
    holder = another(timeout_s)
    assert holder("acquire", "a") == "True"
    with Claims(files, timeout_s) as claims:
        assert claims.acquire("a") is False
        holder.process.send_signal(signal.SIGSTOP)
        assert eventually(lambda: claims.acquire("a")) > timeout_s / 2
        ours = only(files)
        assert ours.pid == os.getpid()

        holder.process.send_signal(signal.SIGCONT)
        holder("progress", "a", 5, 5)
        began = only(files).beats
        eventually(lambda: only(files).beats >= began + 3)
        assert only(files).token == ours.token  # no heartbeat of the late one came through
        holder("release", "a")
        assert only(files).token == ours.token  # nor did it delete what is no longer its own
        holder.end()
        assert only(files).token == ours.token
    assert read_claims(files) == []


def test_a_living_process_keeps_its_claim_far_beyond_the_timeout(
    files: LocalFiles, another: Callable[..., Holder]
) -> None:
    timeout_s = 1.5  # long enough for the heartbeats of a process on a busy machine
    holder = another(timeout_s)
    assert holder("acquire", "a") == "True"
    with Claims(files, timeout_s) as claims:
        until = time.monotonic() + 2 * timeout_s
        while time.monotonic() < until:
            assert claims.acquire("a") is False
            time.sleep(0.02)
    assert only(files).beats >= 6
    holder.end()


def test_heartbeats_come_less_often_the_longer_a_claim_is_held(
    files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "_BEAT_SECONDS", 0.04)
    monkeypatch.setattr(holding, "_TICK_SECONDS", 0.01)
    reads = count_reads(files, "heartbeat")
    with Claims(files, FOREVER_S) as claims:
        assert claims.acquire("a")
        time.sleep(1.2)  # the thirtieth would be due
        assert 3 <= only(files).beats <= 9
        claims.release("a")
    assert reads == []  # that a claim that beats is ours needs no question


def test_progress_arrives_with_the_heartbeat(files: LocalFiles, another: Callable[..., Holder]) -> None:
    holder = another(0.3)
    assert holder("acquire", "a") == "True"
    assert (only(files).images, only(files).bytes) == (0, 0)
    holder("progress", "a", 120, 4096)
    holder("progress", "b", 1, 1)  # not held: no matter
    since = only(files).since
    eventually(lambda: (only(files).images, only(files).bytes) == (120, 4096))
    assert only(files).since == since


def written_by_hand(files: LocalFiles, **changes: object) -> Claim:
    """Our own claim with changes, as another process might have left it."""
    with Claims(files, FOREVER_S) as claims:
        claims.acquire("a")
        ours = only(files)
    claim = ours.model_copy(update=changes)
    files.put("claims/a.json", claim.to_json())
    return claim


GONE = [
    ({}, False),  # ourselves
    ({"since": "1970-01-01T00:00:00+00:00"}, False),  # for people
    ({"since": ""}, False),
    ({"pid": 2**22 + 1}, True),  # beyond the largest process number of Linux
    ({"pid_started": 1}, True),  # the number was used again
    ({"pid": 2**22 + 1, "host": "elsewhere"}, False),  # another host's numbers mean nothing here
    ({"pid": 2**22 + 1, "boot_id": "an earlier boot"}, False),
    ({"pid": 2**22 + 1, "boot_id": ""}, False),
    ({"pid": 2**22 + 1, "pid_namespace": "pid:[1]"}, False),  # another container on this host
]


@pytest.mark.parametrize(("changes", "gone"), GONE)
def test_only_a_process_of_this_boot_and_namespace_can_be_seen_to_be_gone(
    files: LocalFiles, changes: dict[str, object], gone: bool
) -> None:
    claim = written_by_hand(files, **changes)
    assert is_local_and_gone(claim) is gone
    with Claims(files, FOREVER_S) as claims:
        assert claims.is_live("a") is not gone
        assert claims.acquire("a") is gone


def test_a_claim_from_elsewhere_is_stale_after_the_timeout(files: LocalFiles) -> None:
    written_by_hand(files, host="elsewhere")
    with Claims(files, 0.3) as claims:
        assert claims.acquire("a") is False
        assert eventually(lambda: claims.acquire("a")) > 0.2
        assert only(files).host == socket.gethostname()


def test_every_beat_starts_the_timeout_anew(files: LocalFiles) -> None:
    claim = written_by_hand(files, host="elsewhere")
    with Claims(files, 0.6) as claims:
        for beats in range(6):
            files.put("claims/a.json", claim.model_copy(update={"beats": beats}).to_json())
            assert claims.acquire("a") is False
            time.sleep(0.2)


@pytest.mark.parametrize("text", [b"", b"half a cla", b'{"part": "a", "written_by": "a later version"}'])
def test_a_claim_that_cannot_be_read_is_left_to_the_timeout(files: LocalFiles, text: bytes) -> None:
    files.put("claims/a.json", text)
    assert read_claims(files) == []
    with Claims(files, 0.2) as claims:
        assert claims.acquire("a") is False
        eventually(lambda: claims.acquire("a"))
        assert only(files).pid == os.getpid()


def test_a_part_claimed_anew_keeps_its_new_claim(files: LocalFiles) -> None:
    """A heartbeat under way must not write the claim that was released a moment ago."""
    with Claims(files, 0.001) as claims:
        for _ in range(60):
            claims.acquire("a")
            token = only(files).token
            time.sleep(0.001)
            assert only(files).token == token
            claims.release("a")
            assert read_claims(files) == []


def test_one_listing_tells_which_claims_stand_still(files: LocalFiles, another: Callable[..., Holder]) -> None:
    """Each is read once: later looks go by the versions of the files."""
    written_by_hand(files, host="elsewhere")
    holder = another(0.6)
    assert holder("acquire", "b") == "True"
    with Claims(files, 0.6) as claims:
        assert claims.acquire("c")
        assert claims.others() == {"a", "b"}
        assert claims.look()[1] == []
        reads = count_reads(files)
        assert eventually(lambda: claims.look()[1] != []) > 0.4
        assert claims.look()[1] == ["a"]  # neither our own nor that of a living process
        assert reads == []
        holder.process.kill()
        holder.process.wait()
        assert claims.look()[1] == ["a", "b"]
        assert claims.acquire("a")
        assert claims.acquire("b")
        assert (claims.look()[1], claims.others()) == ([], set())


def count_reads(files: LocalFiles, only_of: str = "") -> list[str]:
    """Paths that are read from now on, but for those of heartbeats; or by the threads of one name."""
    paths: list[str] = []
    read = files.read

    def noted(path: str, *arguments: int) -> bytes:
        name = threading.current_thread().name
        if name == only_of or (not only_of and name != "heartbeat"):
            paths.append(path)
        return read(path, *arguments)

    files.read = noted  # type: ignore[assignment, method-assign]
    return paths


def test_a_claim_that_others_took_over_is_looked_at_anew_before_it_is_deleted(
    files: LocalFiles, another: Callable[..., Holder]
) -> None:
    dead = written_by_hand(files, pid=2**22 + 1)
    with Claims(files, FOREVER_S) as claims:
        assert claims.look()[1] == ["a"]
        holder = another(FOREVER_S)
        assert holder("acquire", "a") == "True"
        assert claims.acquire("a") is False
        assert only(files).token != dead.token
        assert claims.look()[1] == []
    holder.end()


def test_what_is_held_is_not_claimed_again(files: LocalFiles) -> None:
    with Claims(files, FOREVER_S) as claims:
        assert claims.acquire("a") is True
        assert claims.acquire("a") is False
        claims.release("a")
        assert claims.acquire("a") is True
    assert read_claims(files) == []


def test_nothing_of_a_claim_waits_for_the_disk(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    with Claims(files, 0.1) as claims:
        assert claims.acquire("a")
        monkeypatch.setattr(os, "fsync", synced.append)
        assert claims.acquire("b")
        eventually(lambda: only_of(files, "b").beats > 1)
        claims.release("b")
    assert synced == []


def test_a_claim_that_cannot_be_removed_fails_nobody(files: LocalFiles) -> None:
    with Claims(files, FOREVER_S) as claims:
        assert claims.acquire("a")
        assert claims.acquire("b")
        shutil.rmtree(files.path("claims"))
        files.path("claims").write_bytes(b"in the way")
        claims.release("a")


def test_a_process_in_another_container_of_this_host_keeps_its_claim(
    files: LocalFiles, another: Callable[..., Holder]
) -> None:
    unshare = shutil.which("unshare")
    options = ("--pid", "--fork", "--mount-proc", "--kill-child")
    if not unshare or subprocess.run([unshare, *options, "true"], capture_output=True).returncode:
        pytest.skip("no process namespaces for this user")
    holder = another(FOREVER_S, unshare, *options)
    assert holder("acquire", "a") == "True"
    assert only(files).pid == 1
    with Claims(files, FOREVER_S) as claims:
        assert claims.acquire("a") is False
    holder.end()


@pytest.mark.parametrize("kind", ["folder", "links in a circle", "text"])
def test_what_is_no_claim_is_taken_over_when_it_has_stood_still(files: LocalFiles, kind: str) -> None:
    path = Path(files.root) / "claims/a.json"
    path.parent.mkdir(parents=True)
    match kind:
        case "folder":
            (path / "inside").mkdir(parents=True)
        case "text":
            path.write_text("text")
        case _:
            path.symlink_to(path.name)
    assert read_claim(files, "a") is None
    with pytest.raises(CorruptStore, match=r"claims/a\.json: not a claim \("):
        find_claim(files, "a")
    with Claims(files, 0.2) as claims:
        assert claims.acquire("a") is False
        deadline = time.monotonic() + 30
        while not claims.acquire("a"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert claimed_parts(files) == []
