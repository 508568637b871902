"""`TokenBatch` on its way to devices and to other processes."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_store import Child, begin_store, finish_store, make_birth, make_shard, store_of_rows
from torch.utils.data import DataLoader

from pipeline.loader import TokenLoader
from pipeline.store import TokenStore
from pipeline.store.batch import TokenBatch
from pipeline.store.writing.writer import commit_part

pytest_plugins = ["fixtures_store"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with parts of 30 and 21 rows, 300 tokens in the vocabulary."""
    return store_of_rows(tmp_path_factory.mktemp("batch") / "store", [30, 21], vocab_size=300)


@pytest.fixture(scope="module")
def store(path: Path) -> TokenStore:
    """The store at `path`."""
    return TokenStore(path)


def masked(store: TokenStore) -> TokenBatch:
    """The last batch of an epoch, 9 of its 20 rows there only to fill it up."""
    *_, last = TokenLoader(store, batch_size=20, remainder="pad")
    return last


def told(batch: TokenBatch) -> list[Any]:
    """All that a batch says."""
    mask = None if batch.mask is None else batch.mask.tolist()
    blocks = [block.tolist() for block in batch.idx_Bl]
    return [str(batch.tokens.dtype), blocks, batch.label.tolist(), batch.row.tolist(), batch.key, mask]


@pytest.mark.parametrize("non_blocking", [False, True])
def test_all_tensors_move_in_the_bytes_they_are_stored_in(store: TokenStore, non_blocking: bool) -> None:
    batch = masked(store)
    moved = batch.to("meta", non_blocking=non_blocking)  # the device that every machine has
    assert moved.mask is not None
    assert {tensor.device.type for tensor in (moved.tokens, moved.label, moved.mask, *moved.idx_Bl)} == {"meta"}
    assert (moved.tokens.dtype, moved.idx_Bl[0].dtype) == (torch.uint16, torch.int64)
    assert (moved.key, moved.row.tolist(), moved.store) == (batch.key, batch.row.tolist(), store)
    assert batch.tokens.device.type == "cpu"
    assert told(batch.to(torch.device("cpu"), non_blocking=non_blocking)) == told(batch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_pinned_batch_moves_to_a_gpu_without_blocking(store: TokenStore) -> None:
    batch = masked(store)
    pinned = batch.pin_memory()
    assert pinned.mask is not None
    assert all(tensor.is_pinned() for tensor in (pinned.tokens, pinned.label, pinned.mask))
    moved = pinned.to("cuda", non_blocking=True)
    assert moved.idx_Bl[0].device.type == "cuda"
    torch.cuda.synchronize()
    assert told(moved) == told(pickle.loads(pickle.dumps(moved))) == told(batch)
    for batch in DataLoader(TokenLoader(store, batch_size=20), batch_size=None, num_workers=1, pin_memory=True):
        assert batch.tokens.is_pinned()


@pytest.mark.parametrize("workers", [0, 1])
def test_pinning_where_there_is_no_gpu_does_no_harm(
    store: TokenStore, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loader = DataLoader(TokenLoader(store, batch_size=20), batch_size=None, num_workers=workers, pin_memory=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it does not pin
        assert sorted(row for batch in loader for row in batch.row) == list(range(51))


def test_here_a_pickled_batch_finds_the_store_that_is_open(tmp_path: Path) -> None:
    """Whichever of two alike was closed."""
    path = store_of_rows(tmp_path / "store", [9])
    first, second = TokenStore(path), TokenStore(path)
    pickled = pickle.dumps(first.read(slice(5)))
    assert pickle.loads(pickled).store in (first, second)
    del second
    assert pickle.loads(pickled).store is first
    second = TokenStore(path)
    del first
    assert pickle.loads(pickled).store is second


def test_a_pickled_batch_is_small_and_its_tensors_can_be_written_to(store: TokenStore) -> None:
    batch = masked(store)
    pickled = pickle.dumps(batch, protocol=5)
    assert len(pickled) < 2000
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's for memory that is read-only
        again = pickle.loads(pickled)
    again.tokens.fill_(1)
    assert told(pickle.loads(pickled)) == told(batch)


def tell(pickled: bytes, path: str) -> None:
    Path(path).write_bytes(pickle.dumps(told(pickle.loads(pickled))))


def test_a_process_that_has_not_opened_the_store_reads_keys_all_the_same(store: TokenStore, tmp_path: Path) -> None:
    batch = masked(store)
    done = Child(tell, pickle.dumps(batch), str(tmp_path / "told"), folder=tmp_path / "child").wait()
    assert done.status == 0, done.err
    assert pickle.loads((tmp_path / "told").read_bytes()) == told(batch)


def tell_keys(pickled: bytes, path: str) -> None:
    store, keys = pickle.loads(pickled)
    Path(path).write_bytes(pickle.dumps([list(keys), [batch.row for batch in TokenLoader(store, batch_size=2)]]))


def test_workers_see_the_rows_of_a_store_that_was_opened_in_part_and_has_grown(tmp_path: Path) -> None:
    birth = make_birth()
    files = begin_store(tmp_path / "store", birth)
    commit_part(files, birth, make_shard(birth, "b", 3))
    store = TokenStore(tmp_path / "store", partial=True)
    pickled = pickle.dumps((store, store.keys))
    for grown in (False, True):
        if grown:
            commit_part(files, birth, make_shard(birth, "a", 2))
            finish_store(files, birth)
        done = Child(tell_keys, pickled, str(tmp_path / "told"), folder=tmp_path / "child").wait()
        assert done.status == 0, done.err
        keys, rows = pickle.loads((tmp_path / "told").read_bytes())
        assert keys == list(store.keys) == make_shard(birth, "b", 3).keys
        assert sorted(np.concatenate(rows).tolist()) == [0, 1, 2]
    assert len(TokenStore(tmp_path / "store")) == 5
