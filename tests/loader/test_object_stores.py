"""The loader over a store in an object store: the same batches, from parts copied into a bounded cache."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fixtures_s3 import S3, Proxy
from fixtures_store import all_files, store_of_rows
from support import sampled

from pipeline.errors import CorruptStore, VqtokError
from pipeline.files import files_at
from pipeline.loader import TokenBatch, TokenLoader
from pipeline.loader import epochs as order
from pipeline.store import PartCache, TokenStore
from pipeline.store.arrays import storage as arrays

pytest_plugins = ["fixtures_s3"]

COUNTS = [40, 0, 7, 100, 33, 60, 21, 5]


@pytest.fixture(scope="module", params=["raw", "lz4"])
def local(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store in chunks of at most 16 rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_BYTES", 16 * 8)
        yield store_of_rows(tmp_path_factory.mktemp("local") / "store", COUNTS, codec=request.param)


@pytest.fixture
def through_proxy(proxy: Proxy, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URL that this process reaches through the proxy."""
    for name, value in proxy.s3.environment.items():
        monkeypatch.setenv(name, value)
    return bucket_url


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
    return sum(path.stat().st_size for path in folder.rglob("*.file"))


@pytest.mark.parametrize("cached", sampled(True, False))
def test_batches_are_those_of_the_local_store(local: Path, bucket_url: str, tmp_path: Path, cached: bool) -> None:
    cache = PartCache(tmp_path / "cache", 1 << 20) if cached else None
    far = TokenStore(upload(local, bucket_url), cache=cache)
    near = TokenStore(local)
    ours, theirs = TokenLoader(far, batch_size=50), TokenLoader(near, batch_size=50)
    for _ in range(2):
        assert_equal(list(ours), list(theirs))
    wanted = [5, 200, 17, 39, 40]
    assert_equal([far.read(wanted)], [near.read(wanted)])
    assert ours.state_dict() == theirs.state_dict()  # one may go on where the other stopped


def test_a_cache_that_holds_all_is_filled_once(local: Path, proxy: Proxy, through_proxy: str, tmp_path: Path) -> None:
    upload(local, through_proxy)
    asked: Counter[str] = Counter()

    def watch(method: str, path: str, done: bool) -> None:
        if method == "GET" and done and "/tokens/c/" in path:
            asked[path] += 1

    proxy.faults.watch = watch
    store = TokenStore(through_proxy, cache=PartCache(tmp_path / "cache", 1 << 20))
    loader = TokenLoader(store, batch_size=50)
    for _ in range(3):
        assert sum(map(len, loader)) == sum(COUNTS)
    assert len(asked) == sum(rows > 0 for rows in COUNTS)
    assert set(asked.values()) == {1}


def test_a_small_cache_is_kept_small_and_parts_are_shuffled_some_at_a_time(
    local: Path, bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "WINDOW_CHUNKS", 2)
    limit = 6000
    cache = PartCache(tmp_path / "cache", limit)
    store = TokenStore(upload(local, bucket_url), cache=cache)
    assert sum(part.bytes for part in store.manifest.parts) > limit
    with pytest.warns(UserWarning, match=r"the cache of 6,000 bytes does not hold .*; pass parts_at_a_time=\d"):
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
    upload(local, through_proxy)
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
    with pytest.raises(
        CorruptStore, match=r"part003\.\w+/tokens/c/0/0: the checksum is not that of the commit; delete"
    ):
        list(TokenLoader(store, batch_size=50))
    assert threading.active_count() < 40


@pytest.mark.slow
def test_spawned_workers_share_the_cache(local: Path, bucket_url: str, tmp_path: Path, s3: S3) -> None:
    store = TokenStore(upload(local, bucket_url), cache=PartCache(tmp_path / "cache", 1 << 20))
    loader = TokenLoader(store, batch_size=50)
    workers = torch.utils.data.DataLoader(loader, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    keys = [key for batch in workers for key in batch.key]
    assert Counter(keys) == Counter(store.keys)


def test_forked_workers_say_why_they_cannot(local: Path, bucket_url: str, tmp_path: Path) -> None:
    loader = TokenLoader(TokenStore(upload(local, bucket_url)), batch_size=50)
    workers = torch.utils.data.DataLoader(loader, batch_size=None, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(VqtokError, match="spawn"):
        list(workers)
