"""The ways in which rows are kept and gathered: in a reserved range, in one that is too small, without any."""

import mmap
import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.store.memory import libc
from pipeline.store.memory.reserved import Reserved
from pipeline.store.memory.space import space

SMALL_RANGE = 6 * mmap.PAGESIZE


def _no_library(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(libc, "_libc", None)
    _no_range(patch)


def _no_range(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(space, "_range", None)
    patch.setattr(space, "_sizes", ())


def _full(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(space, "_range", Reserved(SMALL_RANGE, space.lock))


WAYS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "no range": _no_range,
    "range exhausted": _full,
    "no C library": _no_library,
}


def in_a_fork(function: Callable[..., Any], *arguments: object) -> tuple[int | None, list[Any]]:
    """Exit code of a process that calls the function, and what it returned, if it came to that."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(function(*arguments)))
    child.start()
    sender.close()
    try:
        returned = [receiver.recv()]
    except EOFError:
        returned = []
    child.join(60)
    return child.exitcode, returned
