"""`TokenDataset`: what samplers pick, each time in one read."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from fixtures_store import store_of_rows
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
    WeightedRandomSampler,
    random_split,
)

from pipeline.loader import (
    MixtureLoader,
    TextImageSequences,
    TextTokens,
    TokenBatch,
    TokenDataset,
    TokenLoader,
    rows_where,
    rows_with_label,
    split_rows,
)
from pipeline.loader.trainers.torchtitan import TokenSequences
from pipeline.store import TokenStore
from pipeline.store.arrays import storage as arrays

ROWS = 131


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """131 rows in chunks of at most 16 rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK_BYTES", 16 * 8)
        return TokenStore(store_of_rows(tmp_path_factory.mktemp("dataset") / "store", [100, 0, 31]))


def batches_of(dataset: object, **options: object) -> list[TokenBatch]:
    return list(DataLoader(dataset, collate_fn=TokenDataset.collate, **{"batch_size": 10, **options}))  # type: ignore[arg-type]


def check(store: TokenStore, batches: list[TokenBatch], rows: object) -> None:
    """All of `rows`, each once, with the tokens, keys and labels of the store."""
    assert Counter(row for batch in batches for row in batch.row.tolist()) == Counter(rows)  # type: ignore[call-overload]
    for batch in batches:
        expected = store.read(batch.row)
        assert torch.equal(batch.tokens, expected.tokens)
        assert (batch.key, batch.label.tolist()) == (expected.key, expected.label.tolist())


def test_items_are_samples_and_several_are_a_batch(store: TokenStore) -> None:
    dataset = TokenDataset(store)
    assert len(dataset) == ROWS
    assert (dataset[7].key, dataset[-1].key) == (store.keys[7], store.keys[-1])
    assert torch.equal(torch.cat(dataset[7].idx_l), store.read([7]).tokens[0].long())
    assert dataset.__getitems__([5, 130, 5]).row.tolist() == [5, 130, 5]
    assert [sample.key for sample in dataset] == list(store.keys)  # type: ignore[attr-defined]
    for bad in (ROWS, -ROWS - 1):
        with pytest.raises(IndexError):
            dataset[bad]
        with pytest.raises(IndexError):
            dataset.__getitems__([0, bad])


def test_only_the_rows_asked_for_are_there(store: TokenStore) -> None:
    rows = list(range(0, ROWS, 3))
    dataset = TokenDataset(store, rows)
    assert (len(dataset), dataset[-1].key) == (44, store.keys[129])
    assert dataset.__getitems__([0, -1, 2]).row.tolist() == [0, 129, 6]
    for bad in (44, -45):
        with pytest.raises(IndexError):
            dataset[bad]
        with pytest.raises(IndexError):
            dataset.__getitems__([0, bad])
    check(store, batches_of(dataset, shuffle=True, num_workers=2), rows)
    for senseless in ([3, 2], [0, 0], [ROWS], [-1]):
        with pytest.raises(ValueError, match=r"rows must be (sorted and without repeats|in 0 \.\. 130)"):
            TokenDataset(store, senseless)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_row_comes_once_in_another_order_each_epoch(store: TokenStore, workers: int) -> None:
    loader = DataLoader(
        TokenDataset(store),
        batch_size=10,
        shuffle=True,
        collate_fn=TokenDataset.collate,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    assert len(loader) == 14
    orders = []
    for _ in range(2):
        batches = list(loader)
        check(store, batches, range(ROWS))
        assert [len(batch) for batch in batches] == [10] * 13 + [1]
        orders.append([row for batch in batches for row in batch.row.tolist()])
    assert orders[0] != orders[1]


@pytest.mark.slow
def test_spawned_workers_read_it(store: TokenStore) -> None:
    dataset = TokenDataset(store, range(3, 90))
    check(store, batches_of(dataset, shuffle=True, num_workers=1, multiprocessing_context="spawn"), range(3, 90))


def test_a_batch_is_one_read(store: TokenStore) -> None:
    with patch.object(TokenStore, "read", autospec=True, side_effect=TokenStore.read) as read:
        assert len(batches_of(TokenDataset(store), shuffle=True)) == read.call_count == 14


@pytest.mark.parametrize(
    "sampler",
    [RandomSampler, SequentialSampler, lambda data: WeightedRandomSampler([1.0] * len(data), len(data), False)],
)
def test_samplers_of_torch_pick_rows(store: TokenStore, sampler: type[RandomSampler]) -> None:
    dataset = TokenDataset(store)
    check(store, batches_of(dataset, sampler=sampler(dataset)), range(ROWS))


def test_a_batch_sampler_picks_rows(store: TokenStore) -> None:
    dataset = TokenDataset(store)
    sampler = BatchSampler(RandomSampler(dataset), 9, drop_last=True)
    batches = list(DataLoader(dataset, batch_sampler=sampler, collate_fn=TokenDataset.collate))
    assert [len(batch) for batch in batches] == [9] * 14
    check(store, batches, sorted({row for batch in batches for row in batch.row.tolist()}))


def test_a_distributed_sampler_shares_rows_out(store: TokenStore) -> None:
    """It repeats a row where ranks would have unequally many: that is torch's, TokenLoader never does."""
    dataset = TokenDataset(store, range(ROWS - 1))
    batches = []
    for rank in range(2):
        sampler = DistributedSampler(dataset, num_replicas=2, rank=rank, seed=4)
        sampler.set_epoch(3)
        batches += batches_of(dataset, sampler=sampler, num_workers=1)
    check(store, batches, range(ROWS - 1))


def test_subsets_hand_on_whole_batches_and_what_does_not_is_refused(store: TokenStore) -> None:
    dataset = TokenDataset(store)
    check(store, batches_of(Subset(dataset, [5, 3, 100])), [5, 3, 100])
    check(store, [b for part in random_split(dataset, [100, 31]) for b in batches_of(part)], range(ROWS))
    with pytest.raises(TypeError, match=r"takes a TokenBatch, not list.*ConcatDataset"):
        batches_of(ConcatDataset([dataset, dataset]))


def test_wrong_use_is_told_what_to_do(store: TokenStore) -> None:
    for wrong in (
        DataLoader(TokenDataset(store), batch_size=4),
        DataLoader(ConcatDataset([TokenDataset(store)])),
        DataLoader(TokenLoader(store)),
        DataLoader(TokenLoader(store), batch_size=4),
        DataLoader(TokenLoader(store, transform=TokenBatch.as_dict), batch_size=4),
        DataLoader(TokenLoader(store, transform=TokenBatch.as_dict), num_workers=1),
        DataLoader(MixtureLoader([store], transform=TokenBatch.as_dict)),
    ):
        with pytest.raises(TypeError, match=r"collate_fn=TokenDataset\.collate"):
            next(iter(wrong))
    dicts = TokenLoader(store, 10, transform=TokenBatch.as_dict)
    assert next(iter(DataLoader(dicts, batch_size=1, collate_fn=lambda batches: batches[0])))["tokens"].shape == (10, 8)
    for several in ([0, 1], np.array([0, 1]), "0"):
        with pytest.raises(TypeError, match=r"dataset\[\.\.\.\] is one sample; .*: not dataset\["):
            TokenDataset(store)[several]  # type: ignore[index]
        with pytest.raises(TypeError, match=r"store\[\.\.\.\] is one sample; store\.read\(.*\) is a batch of several"):
            store[several]  # type: ignore[index]
    for kind in (TokenDataset, TokenLoader):
        with pytest.raises(TypeError, match=r"an open store is wanted, not its path: TokenStore\('.*'\)"):
            kind(store.root)  # type: ignore[arg-type]
    for one in (store, TokenLoader(store)):
        with pytest.raises(
            TypeError, match=r"a mixture takes a list of stores or loaders, such as \[Token.*\], not one"
        ):
            MixtureLoader(one)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="transform must be a function of a batch, not 5"):
        TokenLoader(store, transform=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"not slice\(2, 9, None\); range\(2, 9, 1\) are those of a slice"):
        TokenLoader(store, rows=slice(2, 9))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"one sample; dataset.__getitems__\(range\(...\)\) is a batch of several"):
        TokenDataset(store)[0:10]  # type: ignore[index]
    with pytest.raises(TypeError, match=r"one sample; store.read\(slice\(0, 10, None\)\) is a batch of several"):
        store[0:10]  # type: ignore[index]
    mask = np.arange(ROWS) < 7
    with pytest.raises(ValueError, match=r"np.flatnonzero\(mask\) gives those of a mask"):
        TokenDataset(store, mask)
    with pytest.raises(ValueError, match=r"not \[True, True, True, True, True, True, \.\.\.\]; np\.flatnonzero"):
        TokenLoader(store, rows=mask.tolist())
    with pytest.raises(TypeError, match=r"np.flatnonzero\(mask\) gives those of a mask"):
        store.read(mask)


def test_a_store_of_nothing(tmp_path: Path) -> None:
    dataset = TokenDataset(TokenStore(store_of_rows(tmp_path, [])))
    assert (len(dataset), batches_of(dataset)) == (0, [])


@pytest.mark.parametrize(
    "takes",
    [
        TokenDataset,
        TokenLoader,
        partial(split_rows, held_out=0.5),
        partial(rows_with_label, labels=1),
        partial(rows_where, predicate=bool),
        partial(TextTokens, encode=list, name="bytes"),
        partial(TextImageSequences, texts=[], length=9),
        partial(TokenSequences, dp_rank=0, dp_world_size=1, local_batch_size=2),
    ],
)
def test_what_is_no_open_store_is_told(store: TokenStore, takes: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match=r"an open store is wanted, not its path: TokenStore\('.*'\)"):
        takes(store.root)
    with pytest.raises(TypeError, match=r"not a TokenLoader; that of a loader is loader\.store"):
        takes(TokenLoader(store))
    with pytest.raises(TypeError, match=r"not a list; MixtureLoader takes several|of several stores give mixture\.st"):
        takes([store, store])
