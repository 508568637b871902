"""Threads: on how many CPU cores torch works in each, and on which device."""

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


def use_device(device: torch.device) -> None:
    """Make a device the current one of the calling thread; does nothing but for a CUDA device.

    Each thread begins at GPU 0 whatever its process uses, and `torch.cuda.stream(...)`, nvJPEG and pinned memory
    follow the current device: without this call a thread would open a context on GPU 0 beside its own.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
