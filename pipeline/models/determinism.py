"""The same bits each time on a GPU: a setting of the whole process, for as long as somebody needs it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from pipeline.process.cublas import set_repeatable_workspaces

_DETERMINISTIC: Any = torch.utils.deterministic  # its setting has no type


@contextlib.contextmanager
def same_each_time(device: torch.device) -> Iterator[None]:
    """Have operations on a CUDA device add up in one order, gradients too; then put the caller's settings back.

    Inside, torch raises RuntimeError for an operation that has no such order. On a CPU operations are the same each
    time anyway, and nothing is set.
    """
    if device.type != "cuda":
        yield
        return
    set_repeatable_workspaces()
    before = (
        torch.get_deterministic_debug_mode(),
        torch.backends.cudnn.benchmark,
        _DETERMINISTIC.fill_uninitialized_memory,
    )
    _set("error", False, False)
    try:
        yield
    finally:
        _set(*before)


def _set(mode: int | str, benchmark: bool, fill: bool) -> None:
    torch.set_deterministic_debug_mode(mode)  # the other function for it loads the compiler
    torch.backends.cudnn.benchmark = benchmark  # it chooses the algorithm that happens to be the fastest today
    _DETERMINISTIC.fill_uninitialized_memory = fill  # with NaN; costs a kernel for each buffer
