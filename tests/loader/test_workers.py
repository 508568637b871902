"""`TokenLoader` in the workers of a torch `DataLoader`: the batches of the loader itself, whoever reads them."""

import gc
import json
import multiprocessing
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from fixtures_store import store_of_rows, wait_for
from support import new_threads, sampled
from torch.utils.data import DataLoader

from pipeline.errors import CorruptStore, StoreError
from pipeline.loader import TokenBatch, TokenLoader
from pipeline.loader import epochs as order_module
from pipeline.store import TokenStore
from pipeline.store.arrays import storage as arrays

ROWS = 331
ALL = list(range(ROWS))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """331 rows in parts of uneven sizes, in chunks of at most 16 rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_BYTES", 16 * 8)
        return TokenStore(store_of_rows(tmp_path_factory.mktemp("workers") / "store", [100, 0, 7, 1, 223]))


@pytest.fixture(scope="module")
def plain_store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """331 rows in chunks as everywhere: what is patched here is not patched in spawned processes."""
    return TokenStore(store_of_rows(tmp_path_factory.mktemp("workers") / "plain", [100, 0, 7, 1, 223]))


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 4 chunks, in forked workers too."""
    monkeypatch.setattr(order_module, "WINDOW_CHUNKS", 4)


def in_workers(loader: TokenLoader, workers: int, **options: object) -> "DataLoader[TokenBatch]":
    return DataLoader(loader, batch_size=None, num_workers=workers, **options)  # type: ignore[arg-type]


def rows_of(batches: Iterable[TokenBatch]) -> list[list[int]]:
    return [batch.row.tolist() for batch in batches]


def flat(batches: Iterable[TokenBatch]) -> list[int]:
    return [row for rows in rows_of(batches) for row in rows]


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize(
    ("workers", "persistent"),
    [(0, False), *sampled((2, True), (1, False), (1, True), (2, False), (3, False), (3, True))],
)
def test_forked_workers_deliver_what_the_loader_itself_would(store: TokenStore, workers: int, persistent: bool) -> None:
    alone, loader = (TokenLoader(store, batch_size=20, seed=5) for _ in range(2))
    batches = in_workers(loader, workers, persistent_workers=persistent)
    assert len(batches) == len(alone) == 17
    for epoch in range(3):
        loader.set_epoch(epoch)
        found = list(batches)
        assert rows_of(found) == rows_of(alone)
        assert Counter(key for batch in found for key in batch.key) == Counter(store.keys)


@pytest.mark.parametrize(("workers", "persistent"), sampled((1, False), (2, True)))
def test_spawned_workers_deliver_what_the_loader_itself_would(
    plain_store: TokenStore, workers: int, persistent: bool
) -> None:
    alone, loader = (TokenLoader(plain_store, batch_size=20, seed=5, rows=range(40, 240)) for _ in range(2))
    batches = in_workers(loader, workers, persistent_workers=persistent, multiprocessing_context="spawn")
    for epoch in range(2 if persistent else 1):
        loader.set_epoch(epoch)
        found = list(batches)
        assert rows_of(found) == rows_of(alone)
        assert Counter(key for batch in found for key in batch.key) == Counter(plain_store.keys[40:240])


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("workers", sampled(3, 2, 1))
@pytest.mark.parametrize(("remainder", "delivered", "steps"), [("uneven", ROWS, 7), ("drop", 300, 6), ("pad", ROWS, 7)])
def test_what_becomes_of_the_last_rows_is_the_same_with_workers(
    store: TokenStore, remainder: str, delivered: int, steps: int, workers: int
) -> None:
    seen: list[int] = []
    for rank in range(2):
        options = {"batch_size": 25, "rank": rank, "world_size": 2, "remainder": remainder}
        alone, loader = (TokenLoader(store, **options) for _ in range(2))  # type: ignore[arg-type]
        found = list(in_workers(loader, workers))
        assert rows_of(found) == rows_of(alone)
        assert len(found) == steps
        assert all((batch.mask is not None) == (remainder == "pad") for batch in found)
        for batch in found:
            seen += batch.row.tolist() if batch.mask is None else batch.row[batch.mask.numpy()].tolist()
    assert len(seen) == len(set(seen)) == delivered


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize(("before", "after"), [(2, 3), *sampled((2, 0), (0, 2), (3, 1))])
def test_an_epoch_goes_on_with_another_number_of_workers(store: TokenStore, before: int, after: int) -> None:
    loader = TokenLoader(store, batch_size=20, seed=1)
    loader.set_epoch(4)
    batches = iter(in_workers(loader, before))
    whole = TokenLoader(store, batch_size=20, seed=1)
    whole.set_epoch(4)
    begun = [next(batches).row.tolist() for _ in range(5)]
    state = json.loads(json.dumps(loader.state_after(5) if before else loader.state_dict()))
    resumed = TokenLoader(store, batch_size=20, seed=1)
    resumed.load_state_dict(state)
    rest = in_workers(resumed, after)
    assert begun + rows_of(rest) == rows_of(whole)
    resumed.set_epoch(5)
    assert rows_of(rest) == rows_of(whole)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("workers", [0, 2])
def test_leaving_an_epoch_leaves_nothing_behind(store: TokenStore, workers: int) -> None:
    gc.collect()  # ends the workers of tests before, which a traceback may keep
    threads = threading.enumerate()
    loader = TokenLoader(store, batch_size=10)
    for _ in in_workers(loader, workers):
        assert len(multiprocessing.active_children()) == workers
        break
    for _ in loader:
        break
    assert multiprocessing.active_children() == []

    def left() -> list[str]:
        return [name for name in new_threads(threads) if not name.startswith("vqtok-chunks")]  # those are the store's

    wait_for(lambda: left() == [])  # DataLoader tells the threads of its queues to end, and does not wait for them


def test_workers_that_stay_begin_anew_after_an_epoch_that_was_left(store: TokenStore) -> None:
    """They had read ahead, one further than another."""
    loader = TokenLoader(store, batch_size=20, seed=2)
    batches = in_workers(loader, 2, persistent_workers=True, prefetch_factor=4)
    for steps in (1, 4):
        for step, _ in enumerate(batches, start=1):
            if step == steps:
                break
    assert sorted(flat(batches)) == ALL
    loader.set_epoch(1)
    assert sorted(flat(batches)) == ALL


def test_workers_that_stay_begin_where_the_loader_was_resumed(store: TokenStore) -> None:
    loader = TokenLoader(store, batch_size=20, seed=2)
    loader.load_state_dict(loader.state_after(10))
    batches = in_workers(loader, 2, persistent_workers=True)
    assert rows_of(batches) == rows_of(TokenLoader(store, batch_size=20, seed=2))[10:]
    loader.set_epoch(1)
    assert sorted(flat(batches)) == ALL


def test_the_loader_does_not_pass_off_its_own_state_for_that_of_its_workers(store: TokenStore) -> None:
    loader = TokenLoader(store, batch_size=20)
    state = loader.state_dict()
    batches = iter(in_workers(loader, 2))
    next(batches)
    with pytest.raises(StoreError, match=r"epoch 0 is being iterated by workers of .* state_after\(steps\)"):
        loader.state_dict()
    assert loader.state_after(0) == state
    assert sum(1 for _ in batches) == 16
    with pytest.raises(StoreError, match="epoch 0 is being iterated"):  # all of it, but the loader still stands before
        loader.state_dict()
    loader.set_epoch(1)
    assert loader.state_dict() == {**state, "epoch": 1}
    next(iter(loader))
    assert loader.state_dict()["stages"] == [[1, 20]]


def test_a_state_does_not_reach_workers_that_are_there_already(store: TokenStore) -> None:
    loader = TokenLoader(store, batch_size=20)
    batches = in_workers(loader, 1, persistent_workers=True)
    next(iter(batches))
    loader.load_state_dict(loader.state_after(3))
    with pytest.raises(StoreError, match="given a state after these persistent workers were started; make a new"):
        next(iter(batches))


@pytest.mark.parametrize("remainder", ["uneven", "drop", "pad"])
def test_whoever_counts_batches_gets_the_next_epoch_next(store: TokenStore, remainder: str) -> None:
    """Lightning asks for len(loader) batches and for no more."""
    counted, iterated = (TokenLoader(store, batch_size=20, seed=3, remainder=remainder) for _ in range(2))  # type: ignore[arg-type]
    for epoch in range(3):
        iterator = iter(counted)
        assert rows_of(next(iterator) for _ in range(len(counted))) == rows_of(iterated)
        assert counted.state_dict()["epoch"] == epoch


def test_damage_that_a_worker_meets_is_named(tmp_path: Path) -> None:
    store = TokenStore(store_of_rows(tmp_path, [40, 40]))
    (file,) = tmp_path.glob("tokens.zarr/parts/part001.*/tokens/c/0/0")
    file.unlink()
    with pytest.raises(CorruptStore, match=r"parts/part001\.\w+/tokens: cannot be read: its chunk file is missing"):
        list(in_workers(TokenLoader(store, batch_size=10), 1))


def test_batches_from_workers_ask_the_store_that_is_open_here(store: TokenStore) -> None:
    for batch in in_workers(TokenLoader(store, batch_size=50), 2):
        assert batch.store is store
        assert batch.key == [store.keys[row] for row in batch.row]
        assert batch.label.tolist() == store.labels[batch.row].tolist()
