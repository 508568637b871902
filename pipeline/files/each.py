"""Reading and writing many small files, several at a time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline.errors import CorruptStore

T = TypeVar("T")

# Object stores answer each request after tens of milliseconds, whatever its size; a journal takes what several write at
# one time to the disk in one go.
_AT_ONCE = 16
# Fewer than this are read one by one. More are handed out in lots, for a task of its own costs more than a local read.
_LOT = 32


def read_each(read: Callable[[str], T], names: Sequence[str]) -> list[T]:
    """`read` of every name, in order. Raises what the first read that fails raises."""
    lots = [names[start : start + _LOT] for start in range(0, len(names), _LOT)]
    if len(lots) <= 1:
        return [read(name) for name in names]
    with ThreadPoolExecutor(_AT_ONCE, "read") as readers:
        return [value for lot in readers.map(lambda lot: [read(name) for name in lot], lots) for value in lot]


def read_sound(read: Callable[[str], T], names: Sequence[str]) -> tuple[list[T], list[CorruptStore]]:
    """`read` of every name that can be read, in order, and an error for each that is damaged.

    One odd file hides none of the others. Raises any other error as `read_each` does.
    """

    def attempt(name: str) -> T | CorruptStore:
        try:
            return read(name)
        except CorruptStore as error:
            return error

    results = read_each(attempt, names)
    damage = [result for result in results if isinstance(result, CorruptStore)]
    return [result for result in results if not isinstance(result, CorruptStore)], damage


def write_each(write: Callable[[T], object], files: Sequence[T]) -> None:
    """`write` of every file, in no order. Raises what the first that fails raises, when some others are written."""
    if len(files) == 1:
        write(files[0])
        return
    with ThreadPoolExecutor(_AT_ONCE, "write") as writers:
        for _ in writers.map(write, files):
            pass
