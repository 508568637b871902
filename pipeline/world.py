"""This process among those started with it: its rank, its device, its share of the CPU cores."""

import contextlib
import os
import re
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
_OF_SRUN = {
    "RANK": "SLURM_PROCID",
    "WORLD_SIZE": "SLURM_STEP_NUM_TASKS",
    "LOCAL_RANK": "SLURM_LOCALID",
    "LOCAL_WORLD_SIZE": "SLURM_STEP_TASKS_PER_NODE",
}
"""The same in a task of srun, the last one for all nodes together."""
_AFFINITY = "ACCELERATE_CPU_AFFINITY"
_NVIDIA = Path("/dev/nvidiactl")
"""There where NVIDIA's driver is, on Linux."""
# Any of them would have Accelerate open a process group.
_LAUNCHERS = (*_LEAST, "MASTER_ADDR", "MASTER_PORT", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


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
    """Rank and number of the processes that were started together: by torchrun, `accelerate launch` or srun.

    Raises ConfigError for what is no such number.
    """
    found = _launched()
    return found["RANK"], found["WORLD_SIZE"]


def processes_here() -> int:
    """How many processes a launcher has started on this machine together with this one, itself among them.

    Raises ConfigError for what is no such number.
    """
    return _launched()["LOCAL_WORLD_SIZE"]


def current_world() -> World:
    """Read what torchrun, `accelerate launch`, srun or nobody set, and let Accelerate choose the kind of device.

    The device becomes the current one of the calling thread. After `accelerate launch --enable_cpu_affinity` the
    process is bound to the CPU cores beside it.

    Raises ConfigError for what is no such number.
    """
    found = _launched()
    device, cores = _device(found["LOCAL_RANK"]), cores_of_each(found["LOCAL_WORLD_SIZE"])
    _bind_to_cores_beside(device)
    return World(
        rank=found["RANK"],
        size=found["WORLD_SIZE"],
        local_rank=found["LOCAL_RANK"],
        local_size=found["LOCAL_WORLD_SIZE"],
        device=device,
        cores=min(cores, available_cores()),
    )


def environment_among(rank: int, processes: int) -> dict[str, str]:
    """What tells one of `processes` that this process starts where it stands: among all that were launched with it.

    Raises ConfigError as `current_world`.
    """
    found = _launched()
    return {
        "RANK": str(found["RANK"] * processes + rank),
        "WORLD_SIZE": str(found["WORLD_SIZE"] * processes),
        "LOCAL_RANK": str(found["LOCAL_RANK"] * processes + rank),
        "LOCAL_WORLD_SIZE": str(found["LOCAL_WORLD_SIZE"] * processes),
    }


def cores_of_each(local_size: int) -> int:
    """CPU cores, at least 1, for each of `local_size` processes of this machine.

    They share what this process may use; tasks of srun that Slurm has bound to cores of their own share nothing.
    """
    cores = available_cores()
    allocated = os.environ.get("SLURM_CPUS_ON_NODE", "")
    if "SLURM_STEP_NUM_TASKS" in os.environ and allocated.isdecimal() and cores < int(allocated):
        tasks = _tasks_of_srun()
        local_size = local_size // int(tasks) if tasks.isdecimal() and int(tasks) else local_size
    return max(1, cores // max(1, local_size))


def describe_unused_gpus(world: World) -> str | None:
    """A line for people where this process is alone on a machine of several GPUs, None elsewhere."""
    if world.device.type != "cuda" or world.local_size > 1:
        return None
    import torch

    count = torch.cuda.device_count()
    if count < 2:
        return None
    return f"{count} GPUs are here, and this process uses one of them, {world.device}: --processes auto uses all"


def describe_unusable_gpu() -> str | None:
    """A line for people where there is an NVIDIA GPU, not hidden on purpose, that torch cannot use: it works on the CPU
    then, without a word. None elsewhere."""
    if not _NVIDIA.exists() or os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1", "NoDevFiles"):
        return None
    import torch

    if torch.accelerator.is_available():
        return None
    return (
        f"an NVIDIA GPU is here, and torch {torch.__version__} cannot use it, so all is done on the CPU; nvidia-smi "
        "may say why"
    )


def _launched() -> dict[str, int]:
    """The numbers that a launcher set, all of them checked."""
    of_srun = "SLURM_STEP_NUM_TASKS" in os.environ and not any(name in os.environ for name in _LEAST)
    found = {}
    for name, least in _LEAST.items():
        variable = _OF_SRUN[name] if of_srun else name
        text = os.environ.get(variable, str(least))
        if of_srun and name == "LOCAL_WORLD_SIZE":
            text = _tasks_of_srun()
        if not text.isdecimal() or int(text) < least:
            raise ConfigError(
                f"{variable}: {text!r} in the environment is not a whole number of at least {least}; torchrun, "
                "accelerate launch and srun set it, and a process that runs alone needs none: unset it"
            )
        found[name] = int(text)
    return found


def _tasks_of_srun() -> str:
    """How many tasks of srun's step are on this node, of what Slurm writes as `8(x2),3` for 8, 8 and 3."""
    text, node = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1"), os.environ.get("SLURM_NODEID", "0")
    counts = [
        count
        for count, repeated in re.findall(r"(\d+)(?:\(x(\d+)\))?", text, re.ASCII)
        for _ in range(int(repeated or 1))
    ]
    return counts[int(node)] if node.isdecimal() and int(node) < len(counts) else text


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
    import torch  # seconds to import, and needed only here and where there is a device

    if not torch.accelerator.is_available():
        return torch.device("cpu")  # nothing to choose from, and Accelerate takes more than a second to import
    from accelerate import PartialState

    from pipeline.process.threads import use_device

    with _hidden((*_LAUNCHERS, _AFFINITY)):
        # With these in sight it would open a process group and wait for late ranks, or bind all of them to one GPU.
        device = torch.device(PartialState().device)
    if device.type == "cuda":
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
    use_device(device)
    return device


def _bind_to_cores_beside(device: "torch.device") -> None:
    """Bind this process to the CPU cores of its GPU's NUMA node where Accelerate was told to.

    Raises ConfigError where that cannot be done.
    """
    if device.type != "cuda" or _AFFINITY not in os.environ:
        return
    from accelerate.utils import parse_flag_from_env, set_numa_affinity

    if not parse_flag_from_env(_AFFINITY):
        return
    try:
        set_numa_affinity(_place_among_all_gpus(device.index))
    except Exception as error:  # pynvml has errors of its own
        raise ConfigError(f"accelerate launch --enable_cpu_affinity: {error}; or start without it") from error


def _place_among_all_gpus(index: int) -> int:
    """The number that the driver gives to a GPU, where CUDA_VISIBLE_DEVICES lists those that torch counts: by their
    numbers, or by their UUIDs."""
    import torch

    with contextlib.suppress(Exception):  # one that the driver does not list, such as a part of a GPU
        return torch.cuda._get_nvml_device_index(index)
    return index


@contextlib.contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    """The environment without some variables, for a while."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
