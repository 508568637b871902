"""The loader over a store in an object store: the same batches, from parts copied into a bounded cache."""

import contextlib
import errno
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from fixtures_s3 import BUCKET, S3, Proxy
from fixtures_store import all_files, store_of_rows
from support import sampled

from pipeline import files as places
from pipeline.errors import CorruptStore, VqtokError
from pipeline.files import files_at
from pipeline.loader import TokenBatch, TokenLoader
from pipeline.loader import epochs as order
from pipeline.store import PartCache, TokenStore
from pipeline.store.arrays import opening
from pipeline.store.arrays import storage as arrays
from pipeline.store.cache import folder as folder_module
from pipeline.store.cache.folder import BoundedFolder

pytest_plugins = ["fixtures_s3"]

COUNTS = [40, 0, 7, 100, 33, 60, 21, 5]


@pytest.fixture(scope="module", params=sampled("raw", "lz4"))
def local(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store in chunks of at most 16 rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_BYTES", 16 * 8)
        yield store_of_rows(tmp_path_factory.mktemp("local") / "store", COUNTS, codec=request.param)


@pytest.fixture(scope="module")
def uploaded(local: Path, s3_server: S3) -> str:
    """The URL of the same store as objects. Read only: use `upload` for one that a test changes."""
    for path, data in all_files(local).items():
        s3_server.request("PUT", f"/{BUCKET}/{local.parent.name}/{path}", data)
    return f"s3://{BUCKET}/{local.parent.name}"


@pytest.fixture
def far(uploaded: str, s3: S3) -> str:
    """The URL, and this process's environment pointed at the server."""
    places._objects_at.cache_clear()  # a connection is kept for each URL, and that of another test was to its proxy
    return uploaded


@pytest.fixture
def through_proxy(far: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL, which this process reaches through the proxy."""
    for name, value in proxy.s3.environment.items():
        monkeypatch.setenv(name, value)
    return far


def upload(folder: Path, url: str) -> str:
    files = files_at(url)
    for path, data in all_files(folder).items():
        files.put(path, data)
    return url


def assert_equal(ours: list[TokenBatch], theirs: list[TokenBatch]) -> None:
    assert [batch.key for batch in ours] == [batch.key for batch in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.label, other.label)


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*.file"))


@pytest.mark.parametrize("cached", sampled(True, False))
def test_batches_are_those_of_the_local_store(local: Path, far: str, tmp_path: Path, cached: bool) -> None:
    cache = PartCache(tmp_path / "cache", 1 << 20) if cached else None
    store, near = TokenStore(far, cache=cache), TokenStore(local)
    ours, theirs = TokenLoader(store, batch_size=50), TokenLoader(near, batch_size=50)
    for _ in range(2):
        assert_equal(list(ours), list(theirs))
    wanted = [5, 200, 17, 39, 40]
    assert_equal([store.read(wanted)], [near.read(wanted)])
    assert ours.state_dict() == theirs.state_dict()  # one may go on where the other stopped


def test_a_cache_that_holds_all_is_filled_once(local: Path, proxy: Proxy, through_proxy: str, tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    def watch(method: str, path: str, done: bool) -> None:
        if method == "GET" and done and ("/tokens/c/" in path or "/commits/" in path):
            asked[path] += 1

    proxy.faults.watch = watch
    store = TokenStore(through_proxy, cache=PartCache(tmp_path / "cache", 1 << 20))
    loader = TokenLoader(store, batch_size=50)
    for _ in range(3):
        assert sum(map(len, loader)) == sum(COUNTS)
    assert len(asked) == 2 * sum(rows > 0 for rows in COUNTS)  # tokens, and what their commit says of them
    assert set(asked.values()) == {1}


@pytest.fixture
def cached(local: Path, through_proxy: str, proxy: Proxy, tmp_path: Path) -> str:
    """The URL of a store, all tokens of which are in the cache in `tmp_path`."""
    assert len(list(TokenLoader(opened(through_proxy, tmp_path), batch_size=50))) == 6
    proxy.asked.clear()
    return through_proxy


def opened(url: str, tmp_path: Path) -> TokenStore:
    return TokenStore(url, cache=PartCache(tmp_path / "cache", 1 << 20))


def test_what_the_cache_holds_needs_no_request(
    local: Path, cached: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in a new process nor in later epochs of more parts than are kept in mind."""
    monkeypatch.setattr(opening, "_RECORDS", 2)
    ours, theirs = TokenLoader(opened(cached, tmp_path), batch_size=50), TokenLoader(TokenStore(local), batch_size=50)
    for _ in range(2):
        assert [batch.tokens.tolist() for batch in ours] == [batch.tokens.tolist() for batch in theirs]
    assert [asked.path.rpartition("/")[2] for asked in proxy.asked] == ["store.json", "manifest.json"]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "zeros": lambda data: bytes(len(data)),
    "cut": lambda data: data[:-1],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("is_writable", [True, False])
@pytest.mark.parametrize("damage", sampled(*DAMAGES))
def test_a_damaged_copy_is_fetched_anew(
    local: Path, cached: str, tmp_path: Path, damage: str, is_writable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is a copy of; or read where it lies, where the cache can be read alone."""
    for path in (tmp_path / "cache").glob("*.file"):
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    if not is_writable:
        monkeypatch.setattr(BoundedFolder, "_made", raising(errno.EROFS))
        monkeypatch.setattr(BoundedFolder, "discard", raising(errno.EROFS))
    ours, theirs = TokenLoader(opened(cached, tmp_path), batch_size=50), TokenLoader(TokenStore(local), batch_size=50)
    with contextlib.nullcontext() if is_writable else pytest.warns(UserWarning, match="Read-only file system"):
        assert_equal(list(ours), list(theirs))


def raising(number: int) -> Callable[..., None]:
    """What the operating system refuses."""

    def refuse(self: BoundedFolder, *arguments: object) -> None:
        with self._explained():
            raise OSError(number, os.strerror(number))

    return refuse


def test_a_full_disk_is_read_past_with_one_warning(
    local: Path, through_proxy: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, block: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = opened(through_proxy, tmp_path)
    monkeypatch.setattr(folder_module, "_write", full)
    with pytest.warns(UserWarning) as warned:
        assert_equal(list(TokenLoader(store, batch_size=50)), list(TokenLoader(TokenStore(local), batch_size=50)))
    (said,) = [str(warning.message) for warning in warned]
    assert "No space left on device" in said
    assert f"What has no room is read from {through_proxy} each time" in said
    monkeypatch.undo()
    again = opened(f"s3://{through_proxy.removeprefix('s3://')}", tmp_path)
    assert len(list(TokenLoader(again, batch_size=50))) == 6


@pytest.mark.parametrize("shuffle", [False, True])
def test_without_a_cache_a_little_part_is_one_request(
    local: Path, through_proxy: str, proxy: Proxy, shuffle: bool
) -> None:
    """In any order, with all of its chunks; and many are under way at once."""
    store = TokenStore(through_proxy)
    loader = TokenLoader(store, batch_size=50, shuffle=shuffle, seed=1)
    proxy.asked.clear()
    proxy.faults.latency_s = 0.3
    began = time.monotonic()
    theirs = TokenLoader(TokenStore(local), batch_size=50, shuffle=shuffle, seed=1)
    assert [batch.tokens.tolist() for batch in loader] == [batch.tokens.tolist() for batch in theirs]
    tokens = [asked for asked in proxy.asked if "/tokens/" in asked.path]
    assert len(tokens) == len({asked.path for asked in tokens}) == sum(rows > 0 for rows in COUNTS)
    assert {asked.operation for asked in tokens} == {"GetObject"}
    assert max(asked.at for asked in tokens) - began < 0.3 * len(tokens) / 2


def test_chunks_of_another_length_than_ours_are_read_right(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of 4, 4 and 1 rows, which nothing but their metadata tells from three of 3."""
    monkeypatch.setattr(arrays, "chunk_rows", lambda rows, row_bytes: 4)
    local = store_of_rows(tmp_path / "store", [9, 9])
    assert_equal(
        list(TokenLoader(TokenStore(upload(local, bucket_url)), batch_size=5)),
        list(TokenLoader(TokenStore(local), batch_size=5)),
    )


def test_a_small_cache_is_kept_small_and_parts_are_shuffled_some_at_a_time(
    far: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "WINDOW_CHUNKS", 2)
    limit = 12 * 4096  # each file takes a block of the disk
    cache = PartCache(tmp_path / "cache", limit)
    store = TokenStore(far, cache=cache)
    with pytest.warns(UserWarning, match=r"the cache of 49,152 bytes does not hold .*; pass parts_at_a_time=\d"):
        TokenLoader(store)
    loader = TokenLoader(store, batch_size=20, parts_at_a_time=2)
    keys: list[str] = []
    for batch in loader:
        keys += batch.key
        assert bytes_in(tmp_path / "cache") <= limit
    assert sorted(keys) == sorted(store.keys)
    parts = list(dict.fromkeys(key.partition("/")[0] for key in keys))
    assert len(parts) == 7
    places = {part: [place for place, key in enumerate(keys) if key.startswith(part)] for part in parts}
    assert all(max(places[part]) < min(places[later]) for part, later in zip(parts, parts[4:], strict=False))


def test_a_network_that_cuts_answers_changes_nothing(
    local: Path, proxy: Proxy, through_proxy: str, tmp_path: Path
) -> None:
    proxy.faults.drop, proxy.faults.refuse, proxy.faults.cut = 0.05, 0.05, 0.1
    proxy.faults.at_most = 15
    store = TokenStore(through_proxy, cache=PartCache(tmp_path / "cache", 1 << 20))
    assert_equal(list(TokenLoader(store, batch_size=50)), list(TokenLoader(TokenStore(local), batch_size=50)))
    assert sum(proxy.faults.happened.values()) > 3


def test_an_object_that_is_not_what_was_committed_is_refused(local: Path, bucket_url: str, tmp_path: Path) -> None:
    upload(local, bucket_url)
    (path,) = (path for path in all_files(local) if "/part003." in path and "/tokens/c/" in path)
    data = bytearray((local / path).read_bytes())
    data[10] ^= 1
    files_at(bucket_url).put(path, bytes(data))
    store = TokenStore(bucket_url, cache=PartCache(tmp_path / "cache", 1 << 20))
    before = threading.active_count()
    with pytest.raises(
        CorruptStore, match=r"part003\.\w+/tokens/c/0/0: the checksum is not that of the commit; delete"
    ):
        list(TokenLoader(store, batch_size=50))
    assert threading.active_count() < before + 30


@pytest.mark.slow
def test_spawned_workers_share_the_cache(far: str, tmp_path: Path) -> None:
    store = TokenStore(far, cache=PartCache(tmp_path / "cache", 1 << 20))
    loader = TokenLoader(store, batch_size=50)
    workers = torch.utils.data.DataLoader(loader, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    keys = [key for batch in workers for key in batch.key]
    assert Counter(keys) == Counter(store.keys)


def test_forked_workers_say_why_they_cannot(far: str) -> None:
    loader = TokenLoader(TokenStore(far), batch_size=50)
    workers = torch.utils.data.DataLoader(loader, batch_size=None, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(VqtokError, match="spawn"):
        list(workers)
