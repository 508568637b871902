"""This process among those started with it: its rank, its device, its share of the CPU cores."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import torch

_RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


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
    """Rank and number of the processes that were started together, as torchrun or `accelerate launch` set them."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def current_world() -> World:
    """Read what torchrun, `accelerate launch` or nobody set, and let Accelerate choose the device."""
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    rank, size = launched_rank()
    return World(
        rank=rank,
        size=size,
        local_rank=local_rank,
        local_size=local_size,
        device=_device(local_rank),
        cores=max(1, available_cores() // local_size),
    )


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
