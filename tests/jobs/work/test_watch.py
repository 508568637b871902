"""A step that does not end is found, and named."""

import queue
import threading
import time

import pytest
from support import new_threads

from pipeline.jobs.work.watch import Hang, Watch
from pipeline.records import SourceShard

SHARD = SourceShard(part="p-0", path="p.tar", base="x", bytes=1)


def test_the_oldest_step_beyond_the_limit_is_named_with_its_stack() -> None:
    hangs: queue.Queue[Hang] = queue.Queue()
    release = threading.Event()

    def stuck() -> None:
        with watch.doing(lambda: "decode p.tar: an image", SHARD):
            release.wait(20)

    with Watch(0.2, hangs.put) as watch:
        thread = threading.Thread(target=stuck)
        thread.start()
        hang = hangs.get(timeout=10)
        release.set()
        thread.join()
    assert (hang.what, hang.shard) == ("decode p.tar: an image", SHARD)
    assert hang.seconds >= 0.2
    assert "release.wait(20)" in hang.stack
    assert hangs.empty()


def test_many_short_steps_are_no_hang() -> None:
    hangs: queue.Queue[Hang] = queue.Queue()
    with Watch(0.3, hangs.put) as watch:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            with watch.doing(lambda: "encode", SHARD):
                time.sleep(0.01)
    assert hangs.empty()


@pytest.mark.parametrize("limit_s", [None, 0.01])
def test_without_a_limit_or_anyone_to_tell_nobody_looks(limit_s: float | None) -> None:
    before = threading.enumerate()
    with Watch(limit_s, None) as watch, watch.doing(lambda: "encode", SHARD):
        assert new_threads(before) == []
