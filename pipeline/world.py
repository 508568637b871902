"""This process among those started with it: its rank, its device, its share of the CPU cores."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import torch

_LEAST = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
"""What launchers count, each with the least that it can be: that of a process which nobody launched."""
_RANK_VARIABLES = (*_LEAST, "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """Where a process stands. It joins no process group: nobody waits for anybody."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: "torch.device"
    cores: int
    """CPU cores for this process alone, at least 1."""

    @property
    def is_main(self) -> bool:
        """Whether this process speaks for the job."""
        return self.rank == 0


def launched_rank() -> tuple[int, int]:
    """Rank and number of the processes that were started together, as torchrun or `accelerate launch` set them.

    Raises ConfigError for what is no such number.
    """
    found = _launched()
    return found["RANK"], found["WORLD_SIZE"]


def current_world() -> World:
    """Read what torchrun, `accelerate launch` or nobody set, and let Accelerate choose the device.

    Raises ConfigError for what is no such number.
    """
    found = _launched()
    return World(
        rank=found["RANK"],
        size=found["WORLD_SIZE"],
        local_rank=found["LOCAL_RANK"],
        local_size=found["LOCAL_WORLD_SIZE"],
        device=_device(found["LOCAL_RANK"]),
        cores=max(1, available_cores() // found["LOCAL_WORLD_SIZE"]),
    )


def _launched() -> dict[str, int]:
    """The numbers that a launcher set, all of them checked."""
    found = {}
    for name, least in _LEAST.items():
        text = os.environ.get(name, str(least))
        if not text.isdecimal() or int(text) < least:
            raise ConfigError(
                f"{name}: {text!r} in the environment is not a whole number of at least {least}; torchrun and "
                "accelerate launch set it, and a process that runs alone needs none: unset it"
            )
        found[name] = int(text)
    return found


def available_cores() -> int:
    """CPU cores this process may use: the affinity mask, and the CPU quota of the container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, max(1, int(cpu_quota() or cores)))


def cpu_quota(cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPU cores' worth of time that the container gives its processes, None without a limit: cgroup v2, then v1."""
    try:
        if (limit := cgroup / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota, period = ((cgroup / f"cpu/cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # no cgroups here, or `max`
        return None


def end_process(status: int = 0) -> NoReturn:
    """End this process at once, after work in a process group; with success unless told otherwise.

    gloo's threads may still be about to drop tensors of the last collectives, for which they need the
    interpreter; one that is being taken down aborts the process instead, and torchrun counts the run as failed
    (https://github.com/pytorch/pytorch/pull/179291). So it is not taken down.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _device(local_rank: int) -> "torch.device":
    import torch  # seconds to import, and needed by this function alone

    if not torch.accelerator.is_available():
        return torch.device("cpu")  # nothing to choose from, and Accelerate takes more than a second to import
    from accelerate import PartialState

    with _hidden(_RANK_VARIABLES):
        # With the rank variables in sight it would open a process group and wait for late ranks.
        device = PartialState().device
    if device.type == "cuda":
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device(device)


@contextlib.contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    """The environment without some variables, for a while."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
