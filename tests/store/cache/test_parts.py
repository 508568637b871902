"""Local copies of the files of parts: what is handed out is what the commit says, whoever else is at work."""

import json
import mmap
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import pytest
from fixtures_s3 import S3, Faults, Proxy
from fixtures_store import wait_for
from support import run_python, start_python

from pipeline.errors import ConfigError, CorruptStore, VqtokError
from pipeline.files import Files, LocalFiles
from pipeline.files.objects import ObjectFiles
from pipeline.store.cache import parts as module
from pipeline.store.cache.folder import BLOCK
from pipeline.store.cache.parts import PartCache
from pipeline.store.schema.commits import FileRecord

pytest_plugins = ["fixtures_s3"]

MIB = 1 << 20


def contents(number: int, size: int | None = None) -> bytes:
    """Other bytes for every number, and another size."""
    return random.Random(number).randbytes(20_000 + 3000 * number if size is None else size)


def path_of(number: int) -> str:
    return f"tokens.zarr/parts/shard-{number}.attempt/tokens/c/0/0"


def record_of(data: bytes, etag: str | None = None) -> FileRecord:
    return FileRecord(path="tokens/c/0/0", bytes=len(data), crc32c=google_crc32c.value(data), etag=etag)


def fill(files: Files, numbers: range, size: int | None = None) -> list[tuple[str, FileRecord]]:
    """Files of a store, and what a commit says of them."""
    wanted = []
    for number in numbers:
        files.put(path_of(number), contents(number, size))
        wanted.append((path_of(number), record_of(contents(number, size))))
    return wanted


def got(cache: PartCache, files: Files, path: str, record: FileRecord) -> bytes:
    with cache.open(files, path, record) as file:
        return file.read()


class SlowFiles(LocalFiles):
    """A store that takes its time for every file."""

    delay_s = 0.0

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        time.sleep(self.delay_s)
        return super().read(path, start, length)


class HeldFiles(LocalFiles):
    """A store that answers no read before it is released."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[str] = []
        self.release = threading.Event()

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        self.asked.append(path)
        assert self.release.wait(60)
        return super().read(path, start, length)


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path / "store")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[PartCache]:
    with PartCache(tmp_path / "cache", 100 * MIB) as cache:
        yield cache


def copies(tmp_path: Path) -> list[Path]:
    """All that lies in the cache but its count."""
    return sorted(path for path in (tmp_path / "cache").glob("*") if path.name != ".taken")


# --- one process ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 5000, 12345])
def test_a_copy_is_the_file(
    size: int, files: LocalFiles, cache: PartCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whole or in blocks; the second time from the copy alone."""
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1000)
    [(path, record)] = fill(files, range(1), size)
    assert got(cache, files, path, record) == contents(0, size)
    files.delete(path)
    assert got(cache, files, path, record) == contents(0, size)
    with cache.open(files, path, record) as file:
        if size:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            shutil.rmtree(tmp_path / "cache")
            assert mapped[:] == contents(0, size)


def test_stores_and_generations_share_a_folder(tmp_path: Path, cache: PartCache) -> None:
    places = [LocalFiles(tmp_path / name) for name in ("one", "two")]
    for generation in (1, 2):
        for number, files in enumerate(places):
            data = contents(10 * generation + number, 1000)
            files.put(path_of(0), data)
            assert got(cache, files, path_of(0), record_of(data)) == data
    assert len(copies(tmp_path)) == 4
    for files in places:
        [entry] = fill(files, range(1))
        assert got(cache, files, *entry) == contents(0)
    assert len(copies(tmp_path)) == 6
    same = contents(0)
    assert got(cache, places[1], path_of(0), record_of(same, "etag")) == same
    assert len(copies(tmp_path)) == 7


@pytest.mark.parametrize("block_bytes", [1000, MIB])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-1], r"20,000 bytes, 20,001 bytes when it was committed"),
        (lambda data: data + b"+", r"longer than the 20,001 bytes of its commit"),
        (lambda data: b"", r"0 bytes, 20,001 bytes when it was committed"),
        (lambda data: data[:7000] + bytes([data[7000] ^ 1]) + data[7001:], r"the checksum is not that of the commit"),
        (None, r"missing"),
    ],
)
def test_a_file_that_is_not_as_committed_never_appears(
    change: object, said: str, block_bytes: int, files: LocalFiles, cache: PartCache, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    [(path, record)] = fill(files, range(1), 20_001)
    if callable(change):
        files.put(path, change(contents(0, 20_001)))
    else:
        files.delete(path)
    cache.prefetch(files, [(path, record)])
    remedy = r"; nor is there commits/shard-0\.json any more: .* made anew since it was opened; open it again"
    for _ in range(2):
        with pytest.raises(CorruptStore, match=rf"^{files.root}/{path}: {said}{remedy}$"):
            cache.open(files, path, record)
        cache.close()
        assert copies(tmp_path) == []
    files.put(path, contents(0, 20_001))
    assert got(cache, files, path, record) == contents(0, 20_001)


def test_a_file_larger_than_the_cache_is_refused(files: LocalFiles, tmp_path: Path) -> None:
    [(path, record)] = fill(files, range(1), 20_001)
    with PartCache(tmp_path / "cache", 20_000) as cache:
        cache.prefetch(files, [(path, record)])
        with pytest.raises(ConfigError, match=r"20,001 bytes .* the 20,000 bytes .* raise its max_bytes"):
            cache.open(files, path, record)
    with PartCache(tmp_path / "cache", 5 * 4096) as cache:  # whole blocks of the disk
        assert got(cache, files, path, record) == contents(0, 20_001)


def test_an_unreachable_store_is_not_a_corrupt_one(files: LocalFiles, cache: PartCache, tmp_path: Path) -> None:
    class Unreachable(LocalFiles):
        def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
            raise OSError(5, "connection refused", f"s3://bucket/{path}")

    [(path, record)] = fill(files, range(1))
    with pytest.raises(OSError, match=r"^\[Errno 5\] connection refused: 's3://bucket/.*'$"):
        cache.open(Unreachable(files.root), path, record)
    assert copies(tmp_path) == []


def test_a_cache_can_be_sent_to_another_process(files: LocalFiles, cache: PartCache) -> None:
    [(path, record)] = fill(files, range(1))
    there = pickle.loads(pickle.dumps(cache))
    assert got(there, files, path, record) == contents(0)
    assert there.max_bytes == cache.max_bytes


# --- ahead of need ----------------------------------------------------------------------------------------


def test_prefetched_files_come_several_at_a_time(files: LocalFiles, cache: PartCache, tmp_path: Path) -> None:
    held = HeldFiles(files.root)
    wanted = fill(files, range(16))
    cache.prefetch(held, wanted)  # returns before any of them is there
    wait_for(lambda: len(held.asked) == 8)
    held.release.set()
    for number, (path, record) in enumerate(wanted):
        assert got(cache, held, path, record) == contents(number)
    assert sorted(held.asked) == sorted(path for path, _ in wanted)


def test_an_open_file_does_not_wait_for_the_queue(files: LocalFiles, tmp_path: Path) -> None:
    held = HeldFiles(files.root)
    wanted = fill(files, range(20))
    with PartCache(tmp_path / "cache", 100 * MIB, threads=1) as cache:
        cache.prefetch(held, wanted)
        wait_for(lambda: held.asked == [wanted[0][0]])
        assert got(cache, files, *wanted[-1]) == contents(19)
        closing = threading.Thread(target=cache.close)
        closing.start()
        wait_for(lambda: cache._background.is_stopping)
        held.release.set()
        closing.join()
    assert held.asked == [wanted[0][0]]  # the rest is forgotten


def test_prefetched_and_opened_at_once_is_downloaded_once(files: LocalFiles, cache: PartCache) -> None:
    reads: Counter[str] = Counter()

    class Counting(SlowFiles):
        delay_s = 0.02

        def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
            reads[path] += 1
            return super().read(path, start, length)

    counting = Counting(files.root)
    wanted = fill(files, range(20))
    for _ in range(3):
        cache.prefetch(counting, wanted)
    threads = [
        threading.Thread(target=lambda: [got(cache, counting, *entry) for entry in reversed(wanted)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.close()
    assert reads == Counter(path for path, _ in wanted)


def test_closing_ends_a_download_between_two_blocks(
    files: LocalFiles, cache: PartCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", 100)
    begun = threading.Event()

    class Dripping(LocalFiles):
        def open(self, path: str) -> BinaryIO:
            file = super().open(path)
            read = file.read
            monkeypatch.setattr(file, "read", lambda size: (begun.set(), time.sleep(0.05), read(size))[-1], False)
            return file

    [entry] = fill(files, range(1), 100_000)
    cache.prefetch(Dripping(files.root), [entry])
    assert begun.wait(30)
    started = time.monotonic()
    cache.close()
    assert time.monotonic() - started < 5
    assert copies(tmp_path) == []
    assert got(cache, files, *entry) == contents(0, 100_000)


ENDS = """
import sys, time
from pathlib import Path
from pipeline.files import files_at
from pipeline.store.cache.parts import PartCache
from pipeline.store.schema.commits import FileRecord
import json
place, folder = sys.argv[1:3]
wanted = [(path, FileRecord(**record)) for path, record in json.loads(sys.stdin.readline())]
cache = PartCache(Path(folder), 10**9)
cache.prefetch(files_at(place), wanted)
time.sleep(0.3)
"""


def test_a_process_ends_without_its_downloads(s3: S3, proxy: Proxy, bucket_url: str, tmp_path: Path) -> None:
    """And without a word on stderr, whatever its threads are at."""
    [(path, record)] = fill(ObjectFiles(bucket_url), range(1), 20 * MIB)
    others = [(path, record.model_copy(update={"etag": str(number)})) for number in range(200)]
    proxy.faults = Faults(delay_s=0.2)
    with start_python(ENDS, bucket_url, tmp_path / "cache", **proxy.s3.environment) as process:
        message = json.dumps([(path, record.model_dump()) for path, record in others])
        out, errors = process.communicate(message + "\n", timeout=60)
    assert (process.returncode, out, errors) == (0, "", "")
    assert len(copies(tmp_path)) < 100


# --- several processes ------------------------------------------------------------------------------------

READER = """
import json, random, sys, time
from pathlib import Path
from pipeline.files import LocalFiles
from pipeline.store.cache.parts import PartCache
from pipeline.store.schema.commits import FileRecord

class Logged(LocalFiles):
    def read(self, path, start=0, length=None):
        with open(log, "a") as file:
            file.write(path + "\\n")
        time.sleep(delay)
        return super().read(path, start, length)

    def open(self, path):
        with open(log, "a") as file:
            file.write(path + "\\n")
        return Halting(super().open(path)) if halt else super().open(path)

class Halting:
    def __init__(self, file): self.file, self.blocks = file, 0
    def __enter__(self): return self
    def __exit__(self, *error): self.file.close()
    def read(self, size):
        self.blocks += 1
        if self.blocks == 3:
            print("halted", flush=True)
            time.sleep(600)
        return self.file.read(size)

settings = json.loads(sys.stdin.readline())
log, delay, halt = settings["log"], settings["delay"], settings["halt"]
wanted = [(path, FileRecord(**record)) for path, record in settings["wanted"]]
files = Logged(settings["store"])
draws = random.Random(settings["seed"])
right = 0
with PartCache(Path(settings["cache"]), settings["max_bytes"], threads=2) as cache:
    for step in range(settings["steps"]):
        chosen = draws.sample(range(len(wanted)), 3)
        cache.prefetch(files, [wanted[number] for number in chosen[1:]])
        path, record = wanted[chosen[0]]
        with cache.open(files, path, record) as file:
            time.sleep(draws.uniform(0, 0.005))
            data = file.read()
        number = int(path.split("shard-")[1].split(".")[0])
        expected = random.Random(number).randbytes(len(data))
        assert len(data) == record.bytes and data == expected, path
        right += 1
print(right)
"""

SAMPLER = """
import json, select, sys
from pathlib import Path
from pipeline.files.locks import lock, unlock
folder = Path(sys.argv[1])
most = samples = 0
while not select.select([sys.stdin], [], [], 0.001)[0]:
    if (folder / ".taken").exists():
        held = lock(folder / ".taken")  # under it no file gets room, appears or goes
        sizes = []
        for path in folder.iterdir():
            try:
                sizes.append(path.stat().st_size * (path.name != ".taken"))
            except FileNotFoundError:
                pass  # a temporary that its writer gave up
        unlock(held)
        most, samples = max(most, sum(sizes)), samples + 1
print(json.dumps([most, samples]))
"""


def start_reader(tmp_path: Path, wanted: list[tuple[str, FileRecord]], **settings: object) -> subprocess.Popen[str]:
    """A process that opens `steps` files drawn at random, compares them, and says how many were right."""
    defaults = {
        "store": str(tmp_path / "store"),
        "cache": str(tmp_path / "cache"),
        "log": str(tmp_path / "log"),
        "max_bytes": 100 * MIB,
        "delay": 0.0,
        "halt": False,
        "steps": 1,
        "seed": 0,
        "wanted": [(path, record.model_dump()) for path, record in wanted],
    }
    process = start_python(READER)
    assert process.stdin is not None
    process.stdin.write(json.dumps({**defaults, **settings}) + "\n")
    process.stdin.flush()
    return process


def finish(process: subprocess.Popen[str]) -> int:
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    return int(out)


def hammer(tmp_path: Path, files: LocalFiles, steps: int, share: float, kills: int = 0) -> Counter[str]:
    """Four processes open files drawn at random: they get the right ones, and the folder stays below its limit.

    Returns the downloads of each file.
    """
    wanted = fill(files, range(30))
    max_bytes = int(sum(-(-record.bytes // BLOCK) * BLOCK for _, record in wanted) * share)
    with start_python(SAMPLER, tmp_path / "cache") as sampler:
        try:
            settings = {"max_bytes": max_bytes, "steps": steps, "delay": 0.002}
            readers = [start_reader(tmp_path, wanted, seed=seed, **settings) for seed in range(4)]
            for number in range(kills):
                time.sleep(1)
                readers[number % 4].kill()
                readers[number % 4].communicate()
                readers[number % 4] = start_reader(tmp_path, wanted, seed=10 + number, **settings)
            assert [finish(reader) for reader in readers] == [steps] * 4
            out, errors = sampler.communicate("stop\n", timeout=60)
            assert errors == ""
        finally:
            sampler.kill()
    most, samples = json.loads(out)
    assert samples > 50
    assert most > max_bytes * 0.8 or share >= 1
    assert most <= max_bytes
    return Counter((tmp_path / "log").read_text().split())


def test_four_processes_share_a_cache_of_a_third(tmp_path: Path, files: LocalFiles) -> None:
    downloads = hammer(tmp_path, files, steps=60, share=1 / 3)
    assert len(downloads) == 30
    assert max(downloads.values()) > 1
    assert [path for path in copies(tmp_path) if path.suffix != ".file"] == []


def test_four_processes_download_once_what_fits(tmp_path: Path, files: LocalFiles) -> None:
    downloads = hammer(tmp_path, files, steps=60, share=1)
    assert downloads == Counter({path_of(number): 1 for number in range(30)})


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.15, 1 / 3, 0.9])
def test_processes_are_killed_beside_the_others(share: float, tmp_path: Path, files: LocalFiles) -> None:
    hammer(tmp_path, files, steps=1000, share=share, kills=10)
    with PartCache(tmp_path / "cache", 100 * MIB) as cache:
        fill(files, range(31, 32))
        got(cache, files, path_of(31), record_of(contents(31)))  # sweeps
    assert [path for path in copies(tmp_path) if path.suffix != ".file"] == []


def halted_in_a_download(tmp_path: Path, wanted: list[tuple[str, FileRecord]]) -> subprocess.Popen[str]:
    """A process that stands still after two blocks of a download."""
    process = start_reader(tmp_path, wanted * 3, halt=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "halted\n"
    [coming] = copies(tmp_path)
    assert (coming.suffix, coming.stat().st_size) == (".coming", wanted[0][1].bytes)
    return process


@pytest.mark.parametrize("next_number", [0, 1])
def test_what_a_killed_process_was_at_is_fetched_anew(next_number: int, tmp_path: Path, files: LocalFiles) -> None:
    """Whether the next process wants the same file or another one."""
    wanted = fill(files, range(2), 20 * MIB)
    with halted_in_a_download(tmp_path, wanted[:1]) as process:
        process.kill()
    with PartCache(tmp_path / "cache", 30 * MIB) as cache:
        assert got(cache, files, *wanted[next_number]) == contents(next_number, 20 * MIB)
    [copy] = copies(tmp_path)
    assert copy.suffix == ".file"


def test_who_waits_for_a_process_that_is_killed_takes_over(tmp_path: Path, files: LocalFiles) -> None:
    wanted = fill(files, range(1), 20 * MIB)
    with halted_in_a_download(tmp_path, wanted) as process, PartCache(tmp_path / "cache", 30 * MIB) as cache:
        found: list[bytes] = []
        readers = [threading.Thread(target=lambda: found.append(got(cache, files, *wanted[0]))) for _ in range(2)]
        for reader in readers:
            reader.start()
        readers[0].join(0.3)
        assert found == []
        process.send_signal(signal.SIGKILL)
        for reader in readers:
            reader.join(30)
    assert found == [contents(0, 20 * MIB)] * 2
    [copy] = copies(tmp_path)
    assert copy.suffix == ".file"


def in_a_fork(folder: Path, *calls: object) -> list[str]:
    """What the calls say in a fork of this process."""
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        said = []
        for call in calls:
            try:
                said.append(str(call()))  # type: ignore[operator]
            except BaseException as error:
                said.append(f"{type(error).__name__}: {error}")
        (folder / "said").write_text(json.dumps(said))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0
    answer: list[str] = json.loads((folder / "said").read_text())
    return answer


def test_a_fork_reads_what_is_there_and_is_told_of_the_rest(
    s3: S3, bucket_url: str, cache: PartCache, tmp_path: Path
) -> None:
    """As a worker of a DataLoader does, while threads of its parent are downloading."""
    remote = ObjectFiles(bucket_url)
    wanted = fill(remote, range(12))
    got(cache, remote, *wanted[0])
    with cache.open(remote, *wanted[1]) as opened:
        cache.prefetch(remote, wanted[2:10])
        said = in_a_fork(
            tmp_path,
            lambda: google_crc32c.value(got(cache, remote, *wanted[0])),
            lambda: google_crc32c.value(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)[:]),
            lambda: google_crc32c.value(got(cache, remote, *wanted[9])) if cache.close() else "closed",
            lambda: cache.prefetch(remote, wanted[10:]),
            lambda: got(cache, remote, *wanted[11]),
        )
    assert said[:4] == [str(wanted[0][1].crc32c), str(wanted[1][1].crc32c), "closed", "None"]
    assert said[4].startswith("VqtokError: ")
    assert "start worker processes with spawn or forkserver" in said[4]
    for number, entry in enumerate(wanted):
        assert got(cache, remote, *entry) == contents(number)


def test_a_fork_prefetches_in_threads_of_its_own(files: LocalFiles, tmp_path: Path) -> None:
    """Its parent's are not there, busy as they look."""
    slow = SlowFiles(files.root)
    slow.delay_s = 0.6
    wanted = fill(files, range(6))
    with PartCache(tmp_path / "cache", 100 * MIB, threads=2) as cache:
        cache.prefetch(slow, wanted[:2])

        def fetch_the_others() -> list[bool]:
            cache.prefetch(files, wanted[2:])
            deadline = time.monotonic() + 20
            while len(list((tmp_path / "cache").glob("*.file"))) < 4 and time.monotonic() < deadline:
                time.sleep(0.01)
            shutil.rmtree(files.root)
            return [got(cache, files, *entry) == contents(2 + number) for number, entry in enumerate(wanted[2:])]

        assert in_a_fork(tmp_path, fetch_the_others) == [str([True] * 4)]


# --- disks and memory -------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes of its own."""
    folder = tmp_path / "cache"
    folder.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


DISK_SAID = r"; a cache of up to 104,857,600 bytes is kept here: see to the disk, allow it fewer bytes, or name another"


def test_a_full_disk_is_said_in_one_message(disk: Path, cache: PartCache, files: LocalFiles, tmp_path: Path) -> None:
    small, large = fill(files, range(1), 100_000) + fill(files, range(1, 2), 3 * MIB)
    assert got(cache, files, *small) == contents(0, 100_000)
    for _ in range(2):
        with pytest.raises(OSError, match=rf"^\[Errno 28\] No space left on device{DISK_SAID} folder: '{disk}'$"):
            cache.open(files, *large)
        assert len(copies(tmp_path)) == 1
    cache.prefetch(files, [large])
    assert got(cache, files, *small) == contents(0, 100_000)
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
    assert got(cache, files, *large) == contents(1, 3 * MIB)


def test_a_disk_without_a_single_byte(disk: Path, cache: PartCache, files: LocalFiles) -> None:
    [entry] = fill(files, range(1))
    with pytest.raises(OSError, match="No space left"), (disk / "ballast").open("wb") as ballast:
        while True:
            ballast.write(bytes(4096))
            ballast.flush()
    with pytest.raises(OSError, match=rf"No space left on device{DISK_SAID}"):
        cache.open(files, *entry)
    (disk / "ballast").unlink()
    assert got(cache, files, *entry) == contents(0)


def test_a_read_only_folder_serves_what_it_has(disk: Path, cache: PartCache, files: LocalFiles) -> None:
    entries = fill(files, range(2))
    got(cache, files, *entries[0])
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(OSError, match=rf"^\[Errno 30\] Read-only file system{DISK_SAID}"):
        cache.open(files, *entries[1])
    assert got(cache, files, *entries[0]) == contents(0)


def test_a_limit_on_file_sizes_is_said(cache: PartCache, files: LocalFiles, tmp_path: Path) -> None:
    [entry] = fill(files, range(1), 50_000)

    def limited() -> bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        return got(cache, files, *entry)

    [said] = in_a_fork(tmp_path, limited)
    assert said.startswith("FolderFull: [Errno 27] File too large; a cache of up to")
    assert copies(tmp_path) == []


def test_a_folder_that_cannot_be_is_said(files: LocalFiles, tmp_path: Path) -> None:
    [entry] = fill(files, range(1))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"Not a directory; a cache of up to 1,000,000 bytes"):
        PartCache(tmp_path / "file" / "cache", 1_000_000).open(files, *entry)


MEMORY = """
import resource, sys
from pathlib import Path
from pipeline.files import LocalFiles
from pipeline.store.cache.parts import PartCache
from pipeline.store.schema.commits import FileRecord
record = FileRecord(path="big", bytes=int(sys.argv[3]), crc32c=int(sys.argv[4]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
PartCache(Path(sys.argv[2]), 10**9).open(LocalFiles(sys.argv[1]), "tokens.zarr/parts/p.a/big", record).close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    size, checksum = 160 * MIB, 0
    big = tmp_path / "store/tokens.zarr/parts/p.a/big"
    big.parent.mkdir(parents=True)
    with big.open("wb") as file:
        file.truncate(size)
    for _ in range(size // MIB):
        checksum = google_crc32c.extend(checksum, bytes(MIB))
    grown_kib = int(run_python(MEMORY, tmp_path / "store", tmp_path / "cache", size, checksum))
    assert grown_kib < 60 * 1024


# --- object stores ----------------------------------------------------------------------------------------


def test_answers_that_are_cut_give_the_same_bytes(
    s3: S3, proxy: Proxy, bucket_url: str, cache: PartCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = fill(ObjectFiles(bucket_url), range(12))
    sizes = [*(len(contents(number)) for number in range(12)), 20 * MIB]
    wanted += fill(ObjectFiles(bucket_url), range(12, 13), 20 * MIB)
    asked: Counter[str] = Counter()
    proxy.faults = Faults(
        cut=0.15, drop=0.1, refuse=0.1, watch=lambda method, path, done: asked.update([method] if done else [])
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.s3.environment["AWS_ENDPOINT_URL"])
    remote = ObjectFiles(bucket_url)
    cache.prefetch(remote, wanted)
    for number, entry in enumerate(wanted):
        assert got(cache, remote, *entry) == contents(number, sizes[number])
    assert proxy.faults.happened["cut"] > 0
    proxy.faults = Faults(watch=lambda method, path, done: asked.update(["after"]))
    for number, entry in enumerate(wanted):
        assert got(cache, remote, *entry) == contents(number, sizes[number])
    assert asked["after"] == 0


def test_a_small_file_is_one_request(
    s3: S3, proxy: Proxy, bucket_url: str, cache: PartCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    [entry] = fill(ObjectFiles(bucket_url), range(1))
    asked = []
    proxy.faults = Faults(watch=lambda method, path, done: asked.append(method) if done else None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.s3.environment["AWS_ENDPOINT_URL"])
    assert got(cache, ObjectFiles(bucket_url), *entry) == contents(0)
    assert asked == ["GET"]


def test_an_object_that_was_replaced_is_found(s3: S3, bucket_url: str, cache: PartCache) -> None:
    remote = ObjectFiles(bucket_url)
    [(path, record)] = fill(remote, range(1))
    remote.put(path, contents(1, record.bytes))
    with pytest.raises(CorruptStore, match="checksum"):
        cache.open(remote, path, record)


def test_a_server_that_is_not_there_is_not_a_corrupt_store(
    s3: S3, bucket_url: str, cache: PartCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: ObjectFiles, path: str, *_: object) -> BinaryIO:
        raise PermissionError(13, "forbidden", f"{self.root}/{path}")

    [entry] = fill(ObjectFiles(bucket_url), range(1))
    monkeypatch.setattr(ObjectFiles, "read", refused)
    with pytest.raises(PermissionError, match=rf"forbidden: '{bucket_url}"):
        cache.open(ObjectFiles(bucket_url), *entry)
    assert not issubclass(PermissionError, VqtokError)
