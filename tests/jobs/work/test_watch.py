"""A step that does not end is found, and named."""

import queue
import re
import threading
import time
from pathlib import Path

import pytest
from fixtures_store import make_job

from pipeline.jobs.work.watch import Hang, Watch
from pipeline.records import SourceShard

pytest_plugins = ["fixtures_store"]

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
    before = threading.active_count()
    with Watch(limit_s, None) as watch, watch.doing(lambda: "encode", SHARD):
        assert threading.active_count() == before


def test_a_process_with_a_hung_read_ends_and_says_where(
    collection: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    """The end of one command's output never comes; the other's can be committed."""
    good, hung = (f"pipe:cat {collection}/train-0001.tar{end}" for end in ("", "; sleep 600"))
    changes = {"source.shards": [good, hung], "source.base": None, "source.allow_pipe": True}
    job = make_job(tmp_path, tmp_path, tokenizer_folder, {**changes, "tokenize.stall_timeout": 10})
    done = job.start().wait(timeout_s=60)
    assert done.status == 1
    assert re.search(r"vqtok: read .*: has not ended for \d+ s \(tokenize.stall_timeout\); this process ends", done.err)
    assert "stdout.read" in done.err  # where in Python
    assert job.listing("claims") == []
    (failure,) = job.listing("failures")
    assert job.start("--set", f"source.shards=['{good}']").wait().status == 0
    (commit,) = job.commits.values()
    assert failure != f"{commit['part']}.json"
