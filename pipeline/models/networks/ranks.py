"""What the ranks of a training run do together, so that each keeps the same codebook.

Without an initialised process group a process is alone, and nothing is exchanged.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def sum_over_ranks(values: Tensor) -> Tensor:
    """Add up `values` of all ranks, in place."""
    if _in_a_group():
        dist.all_reduce(values)
    return values


def first_rank_where(found: bool, device: torch.device) -> int | None:
    """The lowest rank that calls this with `found`, the same on all ranks; None when no rank does.

    Waits for the device. Without a process group this process is rank 0.
    """
    if not _in_a_group():
        return 0 if found else None
    nobody = dist.get_world_size()
    rank = torch.tensor(dist.get_rank() if found else nobody, device=device)
    dist.all_reduce(rank, dist.ReduceOp.MIN)
    return None if rank.item() == nobody else int(rank.item())


def from_rank(rank: int, values: Tensor) -> Tensor:
    """Overwrite `values` with those of one rank, in place. The shape must be the same on all ranks."""
    if _in_a_group():
        dist.broadcast(values, src=rank)
    return values


def _in_a_group() -> bool:
    return dist.is_available() and dist.is_initialized()
