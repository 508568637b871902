"""Reading many small files, several at a time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# Object stores answer each read after tens of milliseconds, whatever its size.
_READERS = 16
# Fewer than this are read one by one. More are handed out in lots, for a task of its own costs more than a local read.
_LOT = 32


def read_each(read: Callable[[str], T], names: Sequence[str]) -> list[T]:
    """`read` of every name, in order. Raises what the first read that fails raises."""
    lots = [names[start : start + _LOT] for start in range(0, len(names), _LOT)]
    if len(lots) <= 1:
        return [read(name) for name in names]
    with ThreadPoolExecutor(_READERS, "read") as readers:
        return [value for lot in readers.map(lambda lot: [read(name) for name in lot], lots) for value in lot]
