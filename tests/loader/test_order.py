"""The order of an epoch is a permutation, cut into windows, and a pure function of seed and epoch."""

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.loader.order import BLOCK_ROWS, WINDOW_BLOCKS, EpochOrder, split_blocks

COUNTS = st.lists(st.integers(0, 3 * BLOCK_ROWS), max_size=12)


def order_of(counts: list[int], shuffle: bool = True, seed: int = 0, epoch: int = 0) -> EpochOrder:
    return EpochOrder((0, *accumulate(counts)), shuffle, seed, epoch)


def all_rows(order: EpochOrder) -> list[int]:
    windows = range(len(order.window_starts) - 1)
    return [int(row) for number in windows for row in order.window(number)]


@pytest.mark.parametrize(
    ("starts", "blocks"),
    [
        ((0,), []),  # no parts
        ((0, 0), []),  # a part of no rows
        ((0, 1), [[0, 1]]),
        ((0, 256), [[0, 256]]),
        ((0, 257), [[0, 256], [256, 1]]),
        ((0, 100, 100, 400), [[0, 100], [100, 256], [356, 44]]),  # no block crosses a part
    ],
)
def test_blocks_are_cut_at_parts(starts: tuple[int, ...], blocks: list[list[int]]) -> None:
    assert split_blocks(starts).tolist() == blocks


@given(COUNTS, st.booleans(), st.integers(0, 2**40), st.integers(0, 1000))
def test_every_row_comes_once(counts: list[int], shuffle: bool, seed: int, epoch: int) -> None:
    order = order_of(counts, shuffle, seed, epoch)
    assert sorted(all_rows(order)) == list(range(order.rows)) == list(range(sum(counts)))
    assert all_rows(order) == all_rows(order_of(counts, shuffle, seed, epoch))


@given(COUNTS, st.booleans())
def test_windows_say_where_they_start(counts: list[int], shuffle: bool) -> None:
    order = order_of(counts, shuffle)
    starts = order.window_starts
    assert starts.dtype == np.int64
    assert (starts[0], starts[-1]) == (0, order.rows)
    assert [len(order.window(number)) for number in range(len(starts) - 1)] == np.diff(starts).tolist()


@given(COUNTS)
def test_without_shuffling_rows_stay_in_order(counts: list[int]) -> None:
    assert all_rows(order_of(counts, shuffle=False)) == list(range(sum(counts)))


def test_a_large_store_has_several_windows_of_whole_blocks() -> None:
    order = order_of([BLOCK_ROWS * (WINDOW_BLOCKS + 3)])
    assert np.diff(order.window_starts).tolist() == [BLOCK_ROWS * WINDOW_BLOCKS, BLOCK_ROWS * 3]
    blocks, rows = np.unique(order.window(0) // BLOCK_ROWS, return_counts=True)
    assert (len(blocks), set(rows.tolist())) == (WINDOW_BLOCKS, {BLOCK_ROWS})
    assert sorted(all_rows(order)) == list(range(order.rows))


def test_seed_and_epoch_change_the_order() -> None:
    orders = [all_rows(order_of([1000], seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert tuple(range(1000)) not in {tuple(order) for order in orders}


def test_shuffled_rows_are_mixed_far_beyond_their_block() -> None:
    rows = np.array(all_rows(order_of([BLOCK_ROWS * 40])))
    assert np.abs(rows - np.arange(len(rows))).mean() > BLOCK_ROWS * 8
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 0.1
