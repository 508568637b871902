"""Numbers, rows and views as callers ask for them, checked before anything is read."""

import operator
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.store.types import Array, Rows


def whole_number(name: str, value: Any, least: int | None = None) -> int:
    """An integer of any kind as one of Python, which every state and every message can hold.

    Raises ValueError naming the argument for what is no integer, or one below `least`.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, not {value!r}") from None
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number


def flag(name: str, value: Any) -> bool:
    """True or False; 1 and 0 count. Raises ValueError naming the argument for others, such as the text `False`."""
    if not isinstance(value, bool | np.bool_ | int) or value not in (0, 1):
        raise ValueError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def row_numbers(rows: Rows, count: int) -> Array:
    """Rows of a store of `count` samples as int64 [n].

    Raises IndexError for one outside it, TypeError for what is not a sequence of row numbers: the values of a mask
    would pass for the rows 0 and 1.
    """
    if isinstance(rows, slice):
        return np.arange(count)[rows]
    numbers = np.asarray(rows)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        remedy = "; np.flatnonzero(mask) gives those of a mask" if numbers.dtype.kind == "b" else ""
        raise TypeError(f"rows must be a slice or a sequence of row numbers, not {reprlib.repr(rows)}{remedy}")
    numbers = numbers.astype(np.int64)
    # As unsigned numbers negative ones are the largest.
    if numbers.size and numbers.view(np.uint64).max() >= count:
        raise IndexError(f"rows {numbers.min()} to {numbers.max()} of a store of {count} samples")
    return numbers


def view_numbers(view: int | Sequence[int] | Array, rows: int, num_views: int) -> int | Array:
    """A view of each of `rows` rows: one number for all, or int64 [rows].

    Raises TypeError for another number of them, IndexError for a view that the store does not have.
    """
    numbers = np.asarray(view)
    if numbers.dtype.kind not in "iu" or numbers.shape not in ((), (rows,)):
        raise TypeError(f"view must be a number, or one for each of {rows} rows, not {view!r}")
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < num_views:
        raise IndexError(f"views {numbers.min()} to {numbers.max()} of a store of {num_views} views")
    return int(numbers) if numbers.ndim == 0 else numbers.astype(np.int64)
