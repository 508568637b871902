"""CPU threads: how many torch uses, which is a setting of the whole process."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads for each operation, and put the caller's number back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread() -> None:
    """For the threads of a pool that are themselves the parallelism: one core for each."""
    torch.set_num_threads(1)
