"""The same bits each time on a GPU: a setting of the whole process, for as long as somebody needs it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from pipeline.cublas import REPEATABLE, VARIABLE, set_repeatable_workspaces
from pipeline.errors import ConfigError

_DETERMINISTIC: Any = torch.utils.deterministic  # its setting has no type


@contextlib.contextmanager
def same_each_time(device: torch.device) -> Iterator[None]:
    """Have operations on a CUDA device add up in one order, gradients too; then put the caller's settings back.

    Inside, torch raises RuntimeError for an operation that has no such order. On a CPU operations are the same each
    time anyway, and nothing is set.

    Raises ConfigError where products were made on the device before cuBLAS could be told.
    """
    if device.type != "cuda":
        yield
        return
    set_repeatable_workspaces()
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        _DETERMINISTIC.fill_uninitialized_memory,
    )
    _set(True, False, False, False)
    try:
        _require_workspaces(device)
        yield
    finally:
        _set(*before)


def _set(enabled: bool, warn_only: bool, benchmark: bool, fill: bool) -> None:
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark  # it chooses the algorithm that happens to be the fastest today
    _DETERMINISTIC.fill_uninitialized_memory = fill  # with NaN; costs a kernel for each buffer


def _require_workspaces(device: torch.device) -> None:
    one_11 = torch.ones(1, 1, device=device)
    try:
        one_11 @ one_11
    except RuntimeError as error:
        if VARIABLE not in str(error):
            raise
        raise ConfigError(
            f"{VARIABLE}: was not {' or '.join(REPEATABLE)} when this process first multiplied matrices on {device}, "
            "so that they may differ from run to run; set it in the environment"
        ) from error
