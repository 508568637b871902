import os
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from fixtures_store import Child
from torch import Tensor

from pipeline.models import VectorQuantizer

pytest_plugins = ["fixtures_store"]

STEPS = 12


def batch(step: int, rank: int) -> Tensor:
    """z [1, 2, 4, 8], different on every rank and step."""
    generator = torch.Generator().manual_seed(1000 * rank + step)
    return torch.randn(1, 2, 4, 8, generator=generator) * 3 + 20 * rank


def train(options: dict[str, object], rank: int) -> VectorQuantizer:
    torch.manual_seed(0)
    vq = VectorQuantizer(12, 2, **options)
    torch.manual_seed(rank)  # random choices differ from rank to rank
    for step in range(STEPS):
        vq(batch(step, rank))
    return vq


def average(rank: int, pieces: int) -> VectorQuantizer:
    """A moving average with gradient accumulation: what a rank sees in a step comes in pieces."""
    torch.manual_seed(0)
    vq = VectorQuantizer(12, 2, ema_decay=0.9, revive_after=100)
    for step in range(STEPS):
        for number, z_BChw in enumerate(batch(step, rank).chunk(pieces, dim=2), start=1):
            vq.accumulates = number < pieces
            vq(z_BChw)
    return vq


def uneven(rank: int, first: Tensor) -> VectorQuantizer:
    """Rank 0 begins with a batch that no code can be placed by."""
    torch.manual_seed(rank)
    vq = VectorQuantizer(12, 2, ema_decay=0.9, kmeans_init=True, revive_after=1)
    for step in range(4):
        vq(first if rank == 0 and step % 2 == 0 else batch(step, rank))
    return vq


def work(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    limit = timedelta(seconds=60)  # for ranks that wait for different things
    dist.init_process_group("gloo", f"file://{folder}/group", rank=rank, world_size=2, timeout=limit)
    everything = train({"ema_decay": 0.9, "kmeans_init": True, "revive_after": 2, "cosine": True}, rank)
    by_gradient = train({"kmeans_init": True, "revive_after": 2}, rank)
    states = {
        "everything": everything,
        "by_gradient": by_gradient,
        "average": average(rank, pieces=1),
        "accumulated": average(rank, pieces=4),
        "empty": uneven(rank, batch(0, 0)[:0]),
        "not finite": uneven(rank, batch(0, 0) / 0),
    }
    torch.save({name: vq.state_dict() for name, vq in states.items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_keep_one_codebook_that_has_seen_the_data_of_both(tmp_path: Path) -> None:
    ranks = [Child(work, rank, str(tmp_path), folder=tmp_path / "output") for rank in range(2)]
    assert [rank.wait().status for rank in ranks] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for name, state in first.items():
        for key, value in state.items():
            assert torch.equal(value, second[name][key]), (name, key)
            assert value.isfinite().all(), (name, key)

    torch.manual_seed(0)
    alone = VectorQuantizer(12, 2, ema_decay=0.9, revive_after=100)
    for step in range(STEPS):
        alone(torch.cat([batch(step, 0), batch(step, 1)]))
    for name in ("average", "accumulated"):
        for key, value in alone.state_dict().items():
            torch.testing.assert_close(first[name][key], value, msg=f"{name} {key}")
