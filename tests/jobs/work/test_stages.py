"""Stages count what they do, and for how long."""

import time
from collections.abc import Iterator

import pytest

from pipeline.jobs.work.stages import Stage, Stages
from pipeline.jobs.work.watch import Watch
from pipeline.records import SourceShard

SHARD = SourceShard(path="x.tar", base="", part="x-0", bytes=1)


class Clock:
    """Passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_to_get_at_samples_counts_and_that_of_their_use_does_not() -> None:
    clock, closed = Clock(), []
    stage = Stage("read", SHARD, Watch(None, None), clock)

    def samples() -> Iterator[str]:
        try:
            for sample in "abc":
                clock.now += 2
                yield sample
            clock.now += 1  # the end of the archive
        finally:
            closed.append(True)

    for _ in stage.over(samples()):
        clock.now += 100
    assert (stage.seconds, stage.count, closed) == (7, 3, [True])
    read = samples()
    left = stage.over(read)
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert (stage.seconds, stage.count, closed) == (9, 4, [True, True])


def test_work_that_fails_took_its_time_too() -> None:
    clock = Clock()
    stage = Stage("decode", SHARD, Watch(None, None), clock)

    def decode(samples: list[str]) -> list[str]:
        clock.now += 3
        if "bad" in samples:
            raise MemoryError
        return [sample.upper() for sample in samples]

    work = stage.timed(decode)
    assert work(["a", "b"]) == ["A", "B"]
    with pytest.raises(MemoryError):
        work(["bad"])
    stage.add(4, 5)
    assert (stage.seconds, stage.count) == (10, 8)


def test_a_wait_of_the_decoder_is_work_where_it_is_for_a_gpu() -> None:
    """On the CPU it is for other threads, which work."""
    for gpu_decodes in (False, True):
        decode = Stages(SHARD, Watch(None, None), gpu_decodes).decode
        decode.timed(lambda samples: time.sleep(0.05))("ab")
        assert (decode.seconds >= 0.05) is gpu_decodes
