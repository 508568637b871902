"""Processes that take source shards as tokenizing ones do, and commit a part of one row for each. Without torch.

python -m costs.stub STORE SHARDS PROCESSES [SECONDS]
"""

import os
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from costs.calls import MARKER
from pipeline.claims import Claims
from pipeline.files import Files, LocalFiles, files_at
from pipeline.jobs.work.claim_queue import ClaimQueue
from pipeline.records import Geometry, SourceRecord, SourceShard
from pipeline.store.schema.birth import Birth, CodebookRecord
from pipeline.store.schema.commits import committed_parts
from pipeline.store.writing.writer import EncodedShard, commit_part

_CLAIM_TIMEOUT_S = 60.0

BIRTH = Birth(
    identity={},
    geometry=Geometry(image_size=(8, 8), grid=(2, 2), layout="raster", block_lengths=(4,), decodable=True),
    codebook=CodebookRecord(kind="table", vocab_size=16, embedding_dim=4),
    var_input="lookup",
    token_dtype="uint8",
    fields=(),
    codec="lz4",
)


def main(store: str, shards: int, processes: int, seconds: float = 0.0) -> None:
    """Fork the processes, let all begin at once, and wait for them. Raises where one fails.

    Args:
        seconds: of pretended work at each source shard, half more or less.
    """
    planned = [
        SourceShard(path=f"{number:06d}.tar", base="/", part=f"part-{number:06d}", bytes=1, version="")
        for number in range(shards)
    ]
    with tempfile.TemporaryDirectory(prefix="vqtok-bench-") as folder:
        _commit(LocalFiles(folder), planned[0])  # imports all that a commit needs
    wait, begin = os.pipe()
    children = [_fork(store, planned, rank, processes, seconds, wait, begin) for rank in range(processes)]
    os.close(wait)
    Path(MARKER).exists()
    os.close(begin)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    if any(statuses):
        raise ChildProcessError(f"exit statuses {statuses}")


def _fork(store: str, planned: list[SourceShard], rank: int, size: int, seconds: float, wait: int, begin: int) -> int:
    if child := os.fork():
        return child
    status = 1
    try:
        os.close(begin)
        os.read(wait, 1)
        _work(files_at(store), planned, rank, size, seconds)
        status = 0
    finally:
        os._exit(status)


def _work(files: Files, planned: list[SourceShard], rank: int, size: int, seconds: float) -> None:
    """From the first listing on."""
    committed, draw = committed_parts(files), random.Random(rank)
    with Claims(files, _CLAIM_TIMEOUT_S) as claims:
        queue = ClaimQueue(files, claims, planned, committed, rank / size, draw)
        while (shard := queue.next()) is not None:
            if seconds:
                time.sleep(seconds * draw.uniform(0.5, 1.5))
            _commit(files, shard)
            queue.done(shard)
        assert queue.is_over


def _commit(files: Files, shard: SourceShard) -> None:
    """A part of one row."""
    encoded = EncodedShard(
        part=shard.part,
        sources=(SourceRecord(path=shard.path, bytes=1, sha256="0" * 64),),
        tokens=np.zeros((1, BIRTH.geometry.num_tokens), np.uint8),
        keys=["0"],
        labels=[0],
        fields={},
        rejects=[],
        ignored=[],
        execution={},
        seconds={},
    )
    commit_part(files, BIRTH, encoded)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *map(float, sys.argv[4:]))
    if "torch" in sys.modules:
        raise AssertionError("torch was imported")
