"""Rows and views as callers ask for them."""

from typing import Any

import numpy as np
import pytest

from pipeline.store.requested import row_numbers, view_numbers


@pytest.mark.parametrize("rows", [slice(1, 4, 2), [1, 3], (np.int32(1), 3), np.array([1, 3], np.uint8)])
def test_rows_of_every_kind_are_numbers(rows: Any) -> None:
    numbers = row_numbers(rows, 4)
    assert (numbers.dtype, numbers.tolist()) == (np.int64, [1, 3])


@pytest.mark.parametrize("rows", [[4], [-1], np.array([2**64 - 1], np.uint64)])
def test_rows_outside_the_store_are_refused(rows: Any) -> None:
    with pytest.raises(IndexError, match="of a store of 4 samples"):
        row_numbers(rows, 4)


@pytest.mark.parametrize("rows", [[True, False], [[0]], 0, [0.5], ["0"]])
def test_what_is_no_sequence_of_numbers_is_refused(rows: Any) -> None:
    with pytest.raises(TypeError, match=r"^rows must be"):
        row_numbers(rows, 4)


def test_views_are_one_for_all_or_one_for_each() -> None:
    assert view_numbers(np.int8(1), 3, 2) == 1
    assert np.asarray(view_numbers([0, 1, 0], 3, 2)).tolist() == [0, 1, 0]
    for wrong in ([0, 1], [[0]], "1", 0.0):
        with pytest.raises(TypeError, match=r"^view must be"):
            view_numbers(wrong, 3, 2)  # type: ignore[arg-type]
    for outside in (2, -1, [0, 0, 2]):
        with pytest.raises(IndexError, match="of a store of 2 views"):
            view_numbers(outside, 3, 2)
