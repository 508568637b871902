"""Where the chunks of stores lie: other ways give the same rows, and room comes back."""

import gc
import resource
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_space import SMALL_RANGE, WAYS
from fixtures_store import make_shard, store_of_rows
from support import in_a_fork, sampled

from pipeline.loader import MixtureLoader, TokenLoader
from pipeline.store import TokenStore
from pipeline.store.arrays import storage as arrays
from pipeline.store.arrays.located import Located
from pipeline.store.memory import libc
from pipeline.store.memory.elsewhere import FIRST
from pipeline.store.memory.space import _SIZES, Space, space

pytest_plugins = ["fixtures_mixtures"]

ROWS = [30, 0, 1, 69]


WIDE = [70_000, 3 << 20]
"""Bytes of a row, which numpy refuses as elements of 2^47 addresses."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Stores in many chunks: mapped, decoded, and decoded into several pages each."""
    folder = tmp_path_factory.mktemp("space")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_BYTES", 80)
        for codec in ("raw", "lz4"):
            store_of_rows(folder / codec, ROWS, codec=codec)
        patch.setattr(arrays, "CHUNK_BYTES", 1 << 17)
        store_of_rows(folder / "pages", [30, 20], block_lengths=(4096,), codec="lz4")
        yield folder


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["raw", "lz4", "pages"])
def test_the_plain_ways_give_the_same_rows(folder: Path, way: str, name: str) -> None:
    usual, random = TokenStore(folder / name), np.random.default_rng(1)
    with pytest.MonkeyPatch.context() as patch:
        WAYS[way](patch)
        store = TokenStore(folder / name)
        for count in (0, 1, 5, 70, 70):
            wanted = random.integers(0, len(store), count)
            assert np.array_equal(store.read(wanted).tokens, usual.read(wanted).tokens)
            assert np.array_equal(store.labels_of(wanted), usual.labels_of(wanted))
            assert store.keys_of(wanted) == usual.keys_of(wanted)


@pytest.mark.parametrize("way", WAYS)
def test_loaders_deliver_the_same(folder: Path, way: str) -> None:
    def epochs() -> list[tuple[list[int], list[list[int]]]]:
        stores = [TokenStore(folder / name) for name in ("raw", "lz4")]
        mixture = MixtureLoader(stores, weights=[0.4, 0.6], batch_size=7, seed=3)
        batches = [*TokenLoader(stores[0], batch_size=9, seed=1), *TokenLoader(stores[1], batch_size=9, seed=2)]
        batches += [batch for batch, _ in zip(mixture, range(60), strict=False)]
        return [(batch.row.tolist(), batch.tokens.tolist()) for batch in batches]

    usual = epochs()
    with pytest.MonkeyPatch.context() as patch:
        WAYS[way](patch)
        assert epochs() == usual


def test_a_file_that_is_not_mapped_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = TokenStore(folder / "raw").read(slice(None)).tokens

    def refuse(*arguments: object) -> int:
        raise OSError(19, "No such device")

    monkeypatch.setattr(libc, "map_file", refuse)
    store = TokenStore(folder / "raw")
    assert np.array_equal(store.read(slice(None)).tokens, usual)
    assert not store._tokens._chunks._open.rows


def test_rows_outlive_the_room_that_others_need(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WAYS["range exhausted"](monkeypatch)
    stores = [TokenStore(folder / "raw") for _ in range(SMALL_RANGE // 4096 + 2)]
    located = [store.locate(np.arange(100)) for store in stores]
    outside = np.concatenate([rows.offsets for rows in located]) >= FIRST
    assert outside.any() and not outside.all(), "some fit, some do not"
    both = located[0][:50] + located[-1][50:]
    assert np.array_equal(stores[0].batch(both).tokens, stores[0].read(slice(None)).tokens)


def test_room_comes_back_when_stores_are_closed(folder: Path) -> None:
    def holes() -> list[tuple[int, int]]:
        gc.collect()
        assert space._range is not None
        with space.lock:
            space._range._take_back()
            return space._range._spans.holes

    TokenStore(folder / "raw").read([1])
    before = holes()
    for _ in range(20):
        stores = [TokenStore(folder / name) for name in ("raw", "pages") for _ in range(5)]
        for store in stores:
            store.read(np.arange(0, len(store), 7))
    assert holes() != before
    del stores, store
    kept = sum(stop - start for start, stop in before) - sum(stop - start for start, stop in holes())
    assert kept <= (1 << 26) + (1 << 21), "more than the buffers keep"


def test_a_fork_maps_and_releases_in_its_own_copy(folder: Path) -> None:
    store = TokenStore(folder / "pages")
    wanted = np.arange(len(store))[::-3]
    expected, located = store.read(wanted).tokens, store.locate(wanted)

    def use() -> list[bool]:
        own = TokenStore(folder / "pages")
        return [
            np.array_equal(own.read(wanted).tokens, expected),
            np.array_equal(store.batch(located).tokens, expected),
        ]

    held = threading.Event()

    def hold() -> None:
        with space.lock:
            held.set()
            time.sleep(0.2)

    threading.Thread(target=hold).start()
    held.wait()
    assert in_a_fork(use) == (0, [[True, True]])
    assert np.array_equal(store.batch(located).tokens, expected)


def show(value: object, seen: set[int], depth: int = 0) -> None:
    """As a debugger does whose panels are all open."""
    if id(value) in seen or depth > 8 or isinstance(value, type | str | int | torch.dtype):
        return
    seen.add(id(value))
    assert repr(value) and str(value)
    inside = list(vars(value).values()) if hasattr(value, "__dict__") else []
    match value:
        case np.ndarray():
            inside.append(value.base)
        case dict():
            inside += value.values()
        case list() | tuple():
            inside += value
    for one in inside:
        show(one, seen, depth + 1)


def show_all(folder: Path) -> tuple[int, str]:
    seen: set[int] = set()
    for name in ("raw", "lz4"):
        store = TokenStore(folder / name)
        located = store.locate(np.arange(5))
        store.labels_of(located.rows)
        show([store, located, space, TokenLoader(store, batch_size=2), store._tokens, store._labels], seen)
    wild = Located(located.rows, located.offsets + (1 << 60), None)
    try:
        store.batch(wild)
    except IndexError as error:
        return len(seen), "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    return 0, ""


def test_whatever_is_held_can_be_shown(folder: Path) -> None:
    code, returned = in_a_fork(show_all, folder)
    assert code == 0
    ((shown, lines),) = returned
    assert shown > 100
    assert "self = <pipeline.store.memory.space.Space" in lines and "row = dtype('V8')" in lines


def read_limited(folder: Path) -> tuple[bool, int]:
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 45, most))
    space._range, space._sizes = None, _SIZES
    tokens = TokenStore(folder / "raw").read(slice(None)).tokens
    return space._range is None, int(tokens.sum())


def test_a_limit_on_addresses_is_not_used_up(folder: Path) -> None:
    expected = int(TokenStore(folder / "raw").read(slice(None)).tokens.sum())
    assert in_a_fork(read_limited, folder) == (0, [(True, expected)])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("codec", sampled("raw", "lz4"))
@pytest.mark.parametrize("row_bytes", WIDE)
def test_wide_rows_are_written_read_and_loaded(tmp_path: Path, codec: str, row_bytes: int) -> None:
    counts = [3, 1]
    length = row_bytes // 2
    store = TokenStore(store_of_rows(tmp_path / "wide", counts, codec=codec, block_lengths=(length,), vocab_size=999))
    parts = [make_shard(store._birth, f"part{n:03d}", rows).tokens for n, rows in enumerate(counts)]
    expected = np.concatenate(parts)
    assert expected.dtype.itemsize * expected.shape[1] == row_bytes
    assert np.array_equal(store.read([3, 0, 3]).tokens, expected[[3, 0, 3]])
    loaded = {row: batch for batch in TokenLoader(store, batch_size=1) for row in batch.row.tolist()}
    assert sorted(loaded) == [0, 1, 2, 3]
    assert all(np.array_equal(batch.tokens[0], expected[row]) for row, batch in loaded.items())
    mixed = next(iter(MixtureLoader([store, store], weights=[0.5, 0.5], batch_size=4)))
    assert np.array_equal(mixed.tokens, expected[mixed.row % 4])


def test_a_smaller_range_where_a_large_one_cannot_be_had() -> None:
    small = Space((1 << 60, 1 << 22))
    assert small.has(small.memory(100))
    assert small._range is not None and small._range.size == 1 << 22
    none = Space((1 << 60,))
    array = none.memory(100)
    assert not none.has(array)
    array[:] = 3
    assert none.gather(np.array([none.place(array)]), np.dtype("V4")).tobytes() == b"\3" * 4
