"""Rows of arrays at any address, gathered chunk by chunk."""

import gc
from threading import RLock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store.memory.elsewhere import FIRST, Elsewhere

ROW = np.dtype("V6")


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_rows_of_any_arrays_in_any_order(counts: list[int], data: st.DataObject) -> None:
    elsewhere = Elsewhere(RLock())
    arrays = [
        np.random.default_rng(number).integers(0, 999, (rows, 3), np.uint16) for number, rows in enumerate(counts)
    ]
    starts = [elsewhere.place(array) for array in arrays]
    assert len(set(starts)) == len(starts) and min(starts) >= FIRST
    wanted = data.draw(st.lists(st.sampled_from([(n, row) for n, rows in enumerate(counts) for row in range(rows)])))
    offsets = np.asarray([starts[number] + 6 * row for number, row in wanted], np.int64)
    gathered = elsewhere.gather(offsets, ROW).view(np.uint16).reshape(-1, 3)
    assert gathered.tolist() == [arrays[number][row].tolist() for number, row in wanted]


def test_an_array_that_is_gone_is_not_found() -> None:
    elsewhere = Elsewhere(RLock())
    array, other = np.zeros((2, 6), np.uint8), np.ones((2, 6), np.uint8)
    start, other_start = elsewhere.place(array), elsewhere.place(other)
    assert elsewhere
    del array
    gc.collect()
    assert elsewhere.gather(np.array([other_start]), ROW).tobytes() == b"\1" * 6
    for wild in (start, 0, FIRST - 1, other_start + 12):
        with pytest.raises(IndexError):
            elsewhere.gather(np.array([other_start, wild]), ROW)
    del other
    gc.collect()
    assert not elsewhere
    assert elsewhere.place(np.zeros(6, np.uint8)) > other_start
