"""`TokenLoader` in training loops that people have: rows are counted over all processes."""

import json
import pickle
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from fixtures_store import cold, store_of_rows
from support import sampled
from torch.utils.data import DataLoader

from pipeline.errors import StoreError
from pipeline.loader import MixtureLoader, TokenBatch, TokenDataset, TokenLoader
from pipeline.store import TokenStore

ROWS = 331
ALL = list(range(ROWS))
LOOPS = Path(__file__).parent.parent
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 331 rows in parts of uneven sizes."""
    return store_of_rows(tmp_path_factory.mktemp("frameworks") / "store", [100, 0, 7, 1, 223])


@pytest.fixture(scope="module")
def store(path: Path) -> TokenStore:
    """The store at `path`."""
    return TokenStore(path)


def rows_of(batches: Iterable[TokenBatch]) -> list[list[int]]:
    return [batch.row.tolist() for batch in batches]


def flat(batches: Iterable[TokenBatch]) -> list[int]:
    return [row for rows in rows_of(batches) for row in rows]


def on_two_ranks(script: str, *arguments: object) -> None:
    done = cold(*TORCHRUN, str(LOOPS / script), *map(str, arguments), timeout_s=280)
    assert done.status == 0, done.err


def counted(folder: Path, name: str, epoch: int, ranks: int = 2) -> Counter[int]:
    """How often rows came to any rank in an epoch."""
    files = [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(ranks)]
    return Counter(row for rows in files for row in rows.get(str(epoch), []))


# --- torchdata --------------------------------------------------------------------------------------------


def stateful(store: TokenStore, workers: int, **options: Any) -> tuple[TokenLoader, Any]:
    module = pytest.importorskip("torchdata.stateful_dataloader")
    loader = TokenLoader(store, batch_size=20, seed=1)
    return loader, module.StatefulDataLoader(loader, batch_size=None, num_workers=workers, **options)


@pytest.mark.parametrize(("workers", "persistent"), sampled((2, False), (0, False), (1, False), (2, True)))
@pytest.mark.parametrize("epoch", sampled(1, 0))
def test_a_stateful_dataloader_delivers_exactly_the_rest(
    store: TokenStore, epoch: int, workers: int, persistent: bool
) -> None:
    for steps in (1, 6, 16, 17):
        loader, batches = stateful(store, workers, persistent_workers=persistent)
        if epoch:
            list(batches)
            loader.set_epoch(epoch)
        iterator = iter(batches)
        seen = rows_of(next(iterator) for _ in range(steps))
        state = json.loads(json.dumps(batches.state_dict()))
        resumed_loader, resumed = stateful(store, workers, persistent_workers=persistent)
        resumed.load_state_dict(pickle.loads(pickle.dumps(state)))
        whole = TokenLoader(store, batch_size=20, seed=1)
        whole.set_epoch(epoch)
        assert seen + rows_of(resumed) == rows_of(whole)
        resumed_loader.set_epoch(epoch + 1)
        assert rows_of(resumed) == rows_of(whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_of_a_whole_epoch_goes_on_with_the_next(store: TokenStore, workers: int) -> None:
    _, batches = stateful(store, workers)
    assert sorted(flat(batches)) == ALL
    loader, resumed = stateful(store, workers)
    resumed.load_state_dict(batches.state_dict())
    loader.set_epoch(1)
    alone = TokenLoader(store, batch_size=20, seed=1)
    alone.set_epoch(1)
    assert rows_of(resumed) == rows_of(alone)


@pytest.mark.parametrize(
    ("before", "after", "error", "message"),
    # A worker that ends in an error is waited for by PyTorch for five seconds.
    sampled(
        (2, 0, AssertionError, "State doesn't contain key '_num_yielded' expected for single process dataloader"),
        (2, 1, StoreError, r"state is of worker 0 of 2, this is worker 0 of 1; resume with the same number of workers"),
        (1, 2, StoreError, r"state is of worker 0 of 1, this is worker 0 of 2; .* or from TokenLoader\.state_after"),
        (0, 2, AssertionError, "State doesn't contain key '_snapshot' expected for multiprocess dataloader"),
    ),
)
def test_another_number_of_workers_is_refused(
    store: TokenStore, before: int, after: int, error: type[Exception], message: str
) -> None:
    """Between workers by this loader, between some and none by torchdata."""
    _, batches = stateful(store, before)
    next(iter(batches))
    _, resumed = stateful(store, after)
    resumed.load_state_dict(batches.state_dict())
    with pytest.raises(error, match=message):
        next(iter(resumed))


def test_the_state_of_a_worker_is_refused_by_the_loader(store: TokenStore) -> None:
    loader, batches = stateful(store, 2)
    next(iter(batches))
    of_worker = batches.state_dict()["_snapshot"]["_worker_snapshots"]["worker_1"]["dataset_state"]
    with pytest.raises(StoreError, match="state is that of worker 1 of 2 of a DataLoader; give it to the Stateful"):
        loader.load_state_dict(of_worker)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_dataloader_of_a_data_set_delivers_exactly_the_rest(store: TokenStore, workers: int) -> None:
    """Of rows that a sampler of torchdata picks."""
    module = pytest.importorskip("torchdata.stateful_dataloader")

    def made(seed: int) -> Any:
        return module.StatefulDataLoader(
            TokenDataset(store, rows=range(10, 150)),
            batch_size=20,
            shuffle=True,
            generator=torch.Generator().manual_seed(seed),
            num_workers=workers,
            collate_fn=TokenDataset.collate,
        )

    batches = made(1)
    first, second = rows_of(batches), rows_of(batches)
    assert sorted(row for rows in first for row in rows) == list(range(10, 150))
    assert first != second
    for steps in (1, 4):
        begun = made(1)
        iterator = iter(begun)
        seen = rows_of(next(iterator) for _ in range(steps))
        resumed = made(2)
        resumed.load_state_dict(pickle.loads(pickle.dumps(begun.state_dict())))
        assert seen + rows_of(resumed) == first
        assert sorted(flat(resumed)) == list(range(10, 150))


# --- Accelerate -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_accelerate_on_two_processes(path: Path, tmp_path: Path) -> None:
    """Every remainder; then what is delivered from a checkpoint in the middle of the second epoch on."""
    on_two_ranks("loops_accelerate.py", path, tmp_path)
    for remainder, delivered in (("uneven", ROWS), ("drop", 320), ("pad", ROWS)):
        for epoch in (0, 1):
            rows = counted(tmp_path, f"{remainder}-whole", epoch)
            assert (len(rows), set(rows.values())) == (delivered, {1})
        seen = Counter(r for n in range(2) for r in json.loads((tmp_path / f"{remainder}-seen-{n}.json").read_text()))
        assert seen.total() == 2 * 3 * 20
        assert seen + counted(tmp_path, f"{remainder}-resumed", 1) == counted(tmp_path, f"{remainder}-whole", 1)


@pytest.mark.parametrize("dispatch_batches", [False, True])
@pytest.mark.parametrize("transform", [None, TokenBatch.as_dict])
def test_a_prepared_dataloader_of_a_loader_with_a_rank_is_refused(
    store: TokenStore, dispatch_batches: bool, transform: Any
) -> None:
    """It would cut the rows of this rank once more: 320 of 640 came, and nobody said a word."""
    loader = TokenLoader(store, batch_size=20, rank=0, world_size=2, transform=transform)
    prepared = prepare_data_loader(
        DataLoader(loader, batch_size=None),
        num_processes=2,
        process_index=0,
        put_on_device=True,
        device=torch.device("cpu"),
        dispatch_batches=dispatch_batches,
    )
    with pytest.raises(StoreError, match=r"has a rank of its own \(world_size=2\).*iterate the loader itself"):
        next(iter(prepared))


@pytest.mark.parametrize("mixed", [False, True])
def test_a_prepared_dataloader_of_token_batches_is_refused(store: TokenStore, mixed: bool) -> None:
    """Accelerate says no more than that it can find the size of tensors alone."""
    loader: Any = MixtureLoader([store], batch_size=20, rows_per_epoch=100) if mixed else TokenLoader(store, 20)
    prepared = prepare_data_loader(
        DataLoader(loader, batch_size=None), put_on_device=True, device=torch.device("cpu"), dispatch_batches=True
    )
    with pytest.raises(StoreError, match=r"make it with transform=TokenBatch\.as_dict"):
        next(iter(prepared))


def test_a_prepared_dataloader_of_a_loader_without_a_rank_gets_all_rows(store: TokenStore) -> None:
    loader = TokenLoader(store, batch_size=20, seed=1, transform=TokenBatch.as_dict)
    prepared = prepare_data_loader(DataLoader(loader, batch_size=None))
    rows = [row for item in prepared for row in item["row"].tolist()]
    assert sorted(rows) == ALL
