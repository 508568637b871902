"""`vqtok tokenize` on full and read-only disks, out of memory, beside other jobs, over damaged tars."""

import gzip
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import torch
import yaml
from fixtures_store import (
    COLLECTION,
    CPU,
    Child,
    Done,
    Halt,
    Job,
    good_samples,
    make_job,
    save_tiny_tokenizer,
    vqtok,
    wait_for,
    write_shard,
)
from PIL import Image
from support import ROOT, encoded, file_system, sampled, tar_bytes

from pipeline.config import load_config
from pipeline.files import LocalFiles
from pipeline.jobs.verifying.commits import check_commits
from pipeline.jobs.verifying.contents import check_contents
from pipeline.jobs.work.machine import this_machine
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.source.find import part_name
from pipeline.store import TokenStore
from pipeline.store.schema.commits import committed_parts
from pipeline.store.schema.names import MANIFEST, STORE
from pipeline.world import current_world

pytest_plugins = ["fixtures_store"]

PAGE = 4096
UNFINISHED = ("not committed; run vqtok tokenize again", "is not up to date; run vqtok tokenize again")


def assert_sound(job: Job) -> None:
    """Every commit is whole and true; what is missing is only not committed yet."""
    result = check_commits(job.config())
    check_contents(job.config(), result, show_progress=False)
    assert [problem for problem in result.problems if not problem.endswith(UNFINISHED)] == []
    assert result.rows_that_differ == 0


# --- disks ------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte of its own."""
    with file_system(tmp_path / "disk", 1) as folder:
        yield folder


@pytest.fixture
def mounted(disk: Path, job: Job) -> Job:
    """A job that nobody has begun, with its store on the disk."""
    tree = yaml.safe_load(job.file.read_text())
    tree["tokenize"]["store"] = str(disk / "store")
    job.file.write_text(yaml.safe_dump(tree))
    return replace(job, store=disk / "store")


def leave(disk: Path, pages: int) -> Path:
    """A file that takes all of the disk but so many pages."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * PAGE - pages * PAGE
    ballast.write_bytes(bytes(max(free, 0)))
    return ballast


def assert_ends_in_one_message(done: Done, job: Job, error: str) -> None:
    assert (done.status, done.out) == (1, ""), done
    assert re.fullmatch(
        rf"vqtok: {job.store}: \[{error}\b.*; (make room|mount it|see to the disk).*, then run again: .*\n", done.err
    ), done.err


def fails_on_a_full_disk_and_recovers(mounted: Job, finished: Job, pages: int) -> str:
    """Fill the disk but for `pages`, run, make room, run. Returns how far the first run came."""
    disk = mounted.store.parent
    ballast = leave(disk, pages)
    assert_ends_in_one_message(mounted.start().wait(), mounted, "Errno 28")
    assert not (mounted.store / MANIFEST).exists()
    assert mounted.listing("claims") == mounted.listing("staging") == []
    assert list(mounted.store.rglob(".tmp-*")) == []
    born = (mounted.store / STORE).exists()
    committed = committed_parts(LocalFiles(mounted.store))
    ballast.unlink()
    if committed:
        assert_sound(mounted)
        TokenStore(mounted.store, partial=True).read(slice(None))
    before = mounted.commits
    again = mounted.start().wait()
    assert (again.status, again.err) == (0, "")
    assert {path: mounted.commits[path] for path in before} == before
    assert mounted.digest == finished.digest
    assert mounted.listing("failures") == []
    return f"{len(committed)} committed" if born else "not born"


@pytest.mark.parametrize("pages", sampled(6, 0, 1, 2, 4, 12, 26, 60, 110))
def test_a_disk_that_is_full_ends_in_a_message_and_the_next_run_completes(
    pages: int, mounted: Job, finished: Job
) -> None:
    fails_on_a_full_disk_and_recovers(mounted, finished, pages)


def test_a_disk_too_full_for_the_last_bytes(mounted: Job, finished: Job) -> None:
    """Before the commit, the next claim and the manifest, with no page left."""
    for halt in (Halt("os.link", "/commits/", 2), Halt("os.link", "/claims/", 4), Halt("os.rename", "/manifest.json")):
        stopped = mounted.start(halt=replace(halt, signal=signal.SIGSTOP))
        stopped.wait_until_stopped()
        (mounted.store.parent / "ballast").unlink(missing_ok=True)
        leave(mounted.store.parent, 0)
        stopped.signal(signal.SIGCONT)
        done = stopped.wait()
        if done.status:  # what was begun before may have been all
            assert_ends_in_one_message(done, mounted, "Errno 28")
        (mounted.store.parent / "ballast").unlink()
        assert mounted.listing("claims") == mounted.listing("staging") == []
        assert_sound(mounted)
    assert mounted.run().complete
    assert mounted.digest == finished.digest


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_wherever_the_disk_becomes_full(mounted: Job, finished: Job) -> None:
    """Every number of pages, from none to one too few."""
    assert mounted.run().complete
    needed = sum(-(-path.stat().st_size // PAGE) for path in mounted.store.rglob("*") if path.is_file())
    reached = set()
    for pages in range(needed):
        subprocess.run(["rm", "-r", str(mounted.store)], check=True)
        reached.add(fails_on_a_full_disk_and_recovers(mounted, finished, pages))
    assert {"not born", *(f"{count} committed" for count in range(len(COLLECTION)))} <= reached


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def test_a_read_only_store_is_said_in_one_message(mounted: Job, finished: Job) -> None:
    disk = mounted.store.parent
    message = rf"vqtok: tokenize\.store: {mounted.store} cannot be written: the file system of {disk} is read-only\n"
    remount(disk, "ro")
    done = mounted.start().wait()
    assert (done.status, done.out) == (2, "")
    assert re.fullmatch(message, done.err), done.err
    remount(disk, "rw")
    assert mounted.run("source.exclude=more/*").complete
    remount(disk, "ro")
    done = mounted.start().wait()
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1), done
    remount(disk, "rw")
    assert mounted.run().complete
    remount(disk, "ro")
    done = mounted.start().wait()  # with nothing to write there is nothing to say
    assert (done.status, "nothing to do" in done.out) == (0, True)
    assert mounted.digest == finished.digest


def test_a_store_that_becomes_read_only_is_completed_later(mounted: Job, finished: Job) -> None:
    child = mounted.start(halt=Halt("os.link", "/commits/", 3, signal.SIGSTOP))
    child.wait_until_stopped()
    remount(mounted.store.parent, "ro")
    child.signal(signal.SIGCONT)
    assert_ends_in_one_message(child.wait(), mounted, "Errno 30")
    assert_sound(mounted)
    remount(mounted.store.parent, "rw")
    before = mounted.commits
    assert len(before) == 2
    assert mounted.start().wait().status == 0
    assert {path: mounted.commits[path] for path in before} == before
    assert mounted.listing("claims") == []
    assert mounted.digest == finished.digest


# --- other jobs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_the_last_moment", sampled(True, False))
def test_of_two_tokenizers_at_the_birth_of_a_store_one_is_refused(
    at_the_last_moment: bool, job: Job, finished: Job, tmp_path: Path
) -> None:
    other = save_tiny_tokenizer(tmp_path / "other", seed=1)
    halt = Halt("os.link", "/store.json", 1, signal.SIGSTOP) if at_the_last_moment else ()
    children = [job.start(halt=halt), job.start("--set", f"tokenizer.path={other}", halt=halt)]
    if at_the_last_moment:
        for child in children:
            child.wait_until_stopped()
        for child in children:
            child.signal(signal.SIGCONT)
    done = [child.wait() for child in children]
    assert sorted(process.status for process in done) == [0, 1]
    winner = [process.status for process in done].index(0)
    refusal = done[1 - winner].err
    weights = re.search(r'identity\.tokenizer\.weights: "(sha256:\w+)" here, "(sha256:\w+)" there', refusal)
    assert weights
    assert weights[1] != weights[2]
    assert "Traceback" not in refusal
    born = json.loads((job.store / "store.json").read_text())
    assert born["identity"]["tokenizer"]["weights"] == weights[2]

    path = [job.tokenizer, other][winner]
    assert check_commits(job.config(f"tokenizer.path={path}")).problems == []
    assert (job.digest == finished.digest) == (winner == 0)
    assert len(job.commits) == len(COLLECTION) == len(job.listing("tokens.zarr/parts")) - 1
    (there,) = {json.dumps(record["execution"], sort_keys=True) for record in job.commits.values()}
    assert there
    assert job.listing("claims") == []


WRONG_CLOCK = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static time_t shift(void) { const char *seconds = getenv("CLOCK_SHIFT"); return seconds ? atol(seconds) : 0; }
int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = syscall(SYS_clock_gettime, clock, now);
    if (!status && clock == CLOCK_REALTIME) now->tv_sec += shift();
    return status;
}
time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    return now ? *now = exact.tv_sec : exact.tv_sec;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec, now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
"""
"""The wall clock, and no other, off by CLOCK_SHIFT seconds. (libfaketime breaks waits or sleeps as well.)"""
TARS = 30


@pytest.fixture(scope="module")
def long(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A finished job long enough to be interrupted. Read only."""
    folder = tmp_path_factory.mktemp("long")
    for number in range(TARS):
        write_shard(folder / f"source/train-{number:04d}.tar", good_samples(50 * number, 25))
    changes = {"source.shards": f"{folder}/source/train-*.tar"}
    job = make_job(folder / "job", folder / "source", tokenizer_folder, changes)
    assert job.run().complete
    return job


@pytest.fixture(scope="module")
def wrong_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to be loaded before all others."""
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux")
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=WRONG_CLOCK, text=True, check=True)
    return library


def start_with_clock(job: Job, library: Path, shift: str) -> "subprocess.Popen[str]":
    """`vqtok tokenize --processes 2` in a session of its own, with its clock set wrong."""
    words = [sys.executable, "-m", "pipeline", "tokenize", "--no-progress", "--processes", "2"]
    shifted = {"LD_PRELOAD": str(library), "CLOCK_SHIFT": shift}
    return subprocess.Popen(
        [*words, "--config", str(job.file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **shifted},
        start_new_session=True,
    )


def holds_a_claim(job: Job, group: int) -> bool:
    """Whether a process of a group is at work on a source shard."""
    for path in (job.store / "claims").glob("[!~]*.json"):  # `~` are those that only begin
        try:
            if os.getpgid(json.loads(path.read_text())["pid"]) == group:
                return True
        except (OSError, ValueError):
            continue  # released meanwhile
    return False


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["both live", "one is killed"])
def test_two_jobs_whose_clocks_are_an_hour_apart_share_the_work(
    killed: bool, long: Job, wrong_clock: Path, tmp_path: Path
) -> None:
    changes = {"source.shards": f"{long.source}/train-*.tar"}
    job = make_job(tmp_path / "job", long.source, long.tokenizer, changes)
    jobs = [start_with_clock(job, wrong_clock, "1800")]
    try:
        wait_for(lambda: holds_a_claim(job, jobs[0].pid) and len(job.commits) > 0, timeout_s=120)
        os.killpg(jobs[0].pid, signal.SIGSTOP)  # until the other one has started, which takes longer than the work
        assert len(job.commits) < TARS
        jobs.append(start_with_clock(job, wrong_clock, "-1800"))
        wait_for(lambda: holds_a_claim(job, jobs[1].pid), timeout_s=120)
        os.killpg(jobs[0].pid, signal.SIGKILL if killed else signal.SIGCONT)
        results = [process.communicate(timeout=200) for process in jobs]
    finally:
        for process in jobs:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert [process.returncode for process in jobs] == [-signal.SIGKILL if killed else 0, 0], results
    assert job.digest == long.digest
    assert len(job.commits) == TARS
    keys = TokenStore(job.store).keys
    assert len(set(keys)) == len(keys) == 25 * TARS
    if not killed:
        assert len(job.listing("tokens.zarr/parts")) == TARS + 1
        finished = [datetime.fromisoformat(record["finished"]) for record in job.commits.values()]
        assert max(finished) - min(finished) > timedelta(minutes=55)  # the clocks were apart, and both jobs committed
    assert job.listing("claims") == []
    assert_sound(job)


def test_a_second_signal_while_claims_are_released_leaves_none_behind(job: Job, finished: Job) -> None:
    halts = [
        Halt("os.link", "/claims/", 2, signal.SIGTERM),
        Halt("os.remove", "/claims/train", 1, signal.SIGTERM),
        Halt("os.remove", "/claims/train", 2, signal.SIGTERM),
    ]
    done = job.start(halt=halts).wait()
    assert (done.status, done.err) == (143, "vqtok: ended by SIGTERM\n")
    assert job.listing("claims") == job.listing("staging") == []
    assert job.run().complete
    assert job.digest == finished.digest


# --- memory -----------------------------------------------------------------------------------------------


def test_a_source_shard_that_needs_too_much_memory_stays_pending(
    copied: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    """So may others that are in work meanwhile, and need a thread."""
    large = encoded(Image.new("L", (9000, 9000)), "PNG", compress_level=1)
    write_shard(copied / "train-0001.tar", [*good_samples(100, 3), ("large", {"png": large, "cls": b"1"})])
    job = make_job(tmp_path / "job", copied, tokenizer_folder, {"image.max_pixels": 10**8})
    done = job.start(more_memory=400 << 20, environment=CPU).wait()
    assert (done.status, done.out, "Traceback" in done.err) == (1, "", False), done.err
    assert re.search(r"train-0001\.tar stays pending: MemoryError", done.err), done.err
    pending = dict(re.findall(r"^(\S+) stays pending: (\w+)", done.err, re.MULTILINE))
    assert set(pending.values()) == {"MemoryError"}, done.err
    assert job.commits.keys() == COLLECTION.keys() - pending.keys()
    assert job.listing("claims") == []
    assert_sound(job)
    again = job.start(environment=CPU).wait()
    assert (again.status, again.err) == (0, "")
    assert job.commits["train-0001.tar"]["written"] == 4  # not one of them rejected
    assert_sound(job)


def test_a_batch_that_is_too_large_to_encode_fails_its_source_shard(job: Job) -> None:
    """torch says this with a plain RuntimeError on a CPU."""
    settings = [
        "image.size=2048",  # so that even the pixels are more than malloc keeps when they are freed
        "image.max_pixels=10000000",
        "source.exclude=[more/*, train-0000.tar, train-0003.tar]",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    done = job.start(*words, more_memory=300 << 20, environment=CPU).wait()
    assert (done.status, done.out, "Traceback" in done.err) == (1, "", False), done.err
    assert re.search(r"train-0001\.tar stays pending: MemoryError: .*tried to allocate \d+ bytes", done.err), done.err
    # The empty one is committed, unless the little memory that is left is too little for that.
    assert re.search(r": [01] of 2 source shards are committed", done.err), done.err
    assert job.listing("claims") == []


@pytest.mark.parametrize("megabytes", sampled(30, 1, 60))
def test_memory_too_short_for_threads_is_said_and_nothing_is_lost(job: Job, megabytes: int) -> None:
    """A thread is refused with a plain RuntimeError, at the start or in the middle."""
    done = job.start(more_memory=megabytes << 20, environment=CPU).wait()
    assert (done.status, "Traceback" in done.err) == (1, False), done.err
    assert re.search("can't start new thread|MemoryError", done.err), done.err
    assert job.start().wait().status == 0
    assert_sound(job)


def encode_too_much(file: str) -> None:
    config = load_config(file)
    tokenizer = load_tokenizer(config.tokenizer.path, config.tokenize.layout, "cpu", "fp32")
    with this_machine(config, tokenizer, current_world()) as machine:
        assert machine.encode(torch.zeros(2, 3, 16, 24, dtype=torch.uint8), 2).shape == (2, 24)
        img_B3HW = torch.zeros(2, 3, 2048, 2048, dtype=torch.uint8)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (50 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        try:
            machine.encode(img_B3HW, 2)
        except MemoryError as error:
            print(error)


def test_running_out_of_memory_in_the_encoder_is_a_memory_error(job: Job) -> None:
    done = Child(encode_too_much, str(job.file), folder=job.output).wait()
    assert done.status == 0, done.err
    assert "allocate" in done.out


# --- damaged tars -----------------------------------------------------------------------------------------


def members_apart(tar: bytes) -> bytes:
    return tar_bytes([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.cls", b"1")])


def boundary(tar: bytes) -> int:
    """Where the third member begins."""
    return [at for at in range(0, len(tar), 512) if tar[at + 257 : at + 262] == b"ustar"][2]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "members of a sample apart": (members_apart, "key 'a' comes again after other samples"),
    "compressed and cut": (lambda tar: gzip.compress(tar)[:-30], "its gzip compression is damaged or cut off"),
    "two tars in one": (lambda tar: tar + tar_bytes([("z.jpg", b"1")]), "more data follows the end-of-archive marker"),
    "cut between members": (lambda tar: tar[: boundary(tar)], "ends without the end-of-archive marker: it was cut off"),
    "cut inside a header": (lambda tar: tar[: boundary(tar) + 100], "cut off inside a header"),
    "cut inside a member": (lambda tar: tar[:900], "cut off inside a member"),
    "of no bytes": (lambda tar: b"", "the file is empty"),
    "a damaged header": (lambda tar: tar[: boundary(tar)] + b"x" + tar[boundary(tar) + 1 :], "damaged header"),
    "no tar at all": (lambda tar: b"<html>not found</html>" * 100, "not a tar at all"),
}


def test_damaged_tars_fail_alone_each_with_its_reason(tokenizer_folder: Path, tmp_path: Path) -> None:
    source, changes = tmp_path / "source", {"source.shards": f"{tmp_path}/source/*.tar"}
    good = {source / f"good-{number}.tar": good_samples(900 + number, 3) for number in range(3)}
    for path, samples in good.items():
        write_shard(path, samples)
    tars = {name: source / f"bad-{number:02d}.tar" for number, name in enumerate(DAMAGES)}
    for number, path in enumerate(tars.values()):
        write_shard(path, good_samples(20 * number, 4))
    undamaged = make_job(tmp_path / "undamaged", source, tokenizer_folder, changes)
    assert undamaged.run().complete
    whole = {path: path.read_bytes() for path in tars.values()}
    for name, path in tars.items():
        path.write_bytes(DAMAGES[name][0](whole[path]))

    job = make_job(tmp_path / "job", source, tokenizer_folder, changes)
    done = job.start().wait()
    assert (done.status, done.out, "Traceback" in done.err) == (1, "", False), done.err
    assert f"{len(good)} of {len(good) + len(tars)} source shards are committed" in done.err
    assert job.commits.keys() == {path.name for path in good}
    status = json.loads(vqtok("status", "--json", "--config", job.file, folder=job.output).wait().out)
    reasons = {failure["source"]: failure["reason"] for failure in status["failed"]}
    assert reasons.keys() == {path.name for path in tars.values()}
    for name, path in tars.items():
        (line,) = [line for line in done.err.splitlines() if line.startswith(f"{path.name} stays pending: ")]
        assert re.search(DAMAGES[name][1], line), (name, line)
        assert re.search(DAMAGES[name][1], reasons[path.name])
        assert str(path) in line

    for path, data in whole.items():
        path.write_bytes(data)
    before = job.commits
    again = job.start().wait()
    assert (again.status, again.err) == (0, "")
    assert {path: job.commits[path] for path in before} == before
    assert job.listing("failures") == job.listing("claims") == []
    assert job.digest == undamaged.digest


def test_one_name_in_two_folders_needs_a_base(job: Job, finished: Job) -> None:
    tree = yaml.safe_load(job.file.read_text())
    base = tree["source"].pop("base")
    job.file.write_text(yaml.safe_dump(tree))
    done = job.start().wait()
    assert (done.status, done.out) == (2, "")
    assert "are both train-0000.tar relative to their patterns' folders; set source.base" in done.err
    assert not job.store.exists()
    assert job.start("--set", f"source.base={base}").wait().status == 0
    assert {part_name("train-0000.tar"), part_name("more/train-0000.tar")} <= committed_parts(LocalFiles(job.store))
    assert job.digest == finished.digest
