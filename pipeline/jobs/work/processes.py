"""How many processes a job is best given, on this machine or on many."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.world import available_cores, processes_here

# More threads of one process decode no more photographs of 256 px, but fewer: they wait for Python's lock. On 16 cores
# with an H200, one process of 4 threads made 4,400 of them a second, one of 16 threads 3,400, four of 4 threads 14,600.
_CORES = 4
# Each has the tokenizer and a batch in the memory of its GPU.
_MOST_PER_DEVICE = 4
# Shares such as 0.1 add up to a little less than 1.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Share:
    """What a process has of its node, or a node has."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU{'s' * (self.gpus > 1)}" if self.gpus else ""
        return f"{self.cpus:g} CPU core{'s' * (self.cpus != 1)}{gpus}"


def room_on(nodes: Sequence[Share], cpus: float | None = None, gpus: float | None = None) -> tuple[Share, int]:
    """What each process has of its node, and how many have room at once. Pure.

    Args:
        nodes: what each has.
        cpus: of each process; four with a GPU and one without unless told otherwise.
        gpus: of each process; one where any node has one, unless told otherwise.
    """
    gpus = float(any(node.gpus >= 1 for node in nodes)) if gpus is None else gpus
    cpus = (4.0 if gpus else 1.0) if cpus is None else cpus
    wanted = Share(cpus, gpus)
    return wanted, sum(_times(node, wanted) for node in nodes)


def _times(node: Share, wanted: Share) -> int:
    pairs = ((node.cpus, wanted.cpus), (node.gpus, wanted.gpus))
    return int(min(there / each for there, each in pairs if each) + _ROUNDING)


def automatic(source_shards: int) -> int:
    """For `--processes auto`: one or more for each GPU where CPU cores allow, and one where there is none; one, too,
    where a launcher has started several.

    Loads torch, and leaves the GPUs alone: no CUDA context is created.

    Args:
        source_shards: pending ones. More processes would find nothing to do.
    """
    if processes_here() > 1:
        return 1
    return processes_for(available_cores(), _count_devices(), source_shards)


def processes_for(cores: int, devices: int, source_shards: int) -> int:
    """The same for a machine of so many CPU cores and GPUs. Pure."""
    each = min(max(cores // max(devices, 1) // _CORES, 1), _MOST_PER_DEVICE)
    return max(min(devices * each, source_shards), 1)


def _count_devices() -> int:
    import torch  # seconds to import, and needed by this function alone

    # By way of NVML, which asks the driver; CUDA_VISIBLE_DEVICES counts.
    if count := torch.cuda.device_count():
        return count
    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0
