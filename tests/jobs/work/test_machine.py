"""The threads of a process: as many as it has cores, and all of them busy."""

import itertools
import threading
from collections.abc import Callable

import pytest
from fixtures_store import Job
from shard_work import ListQueue, encode_with, work_of

from pipeline.jobs.work.lanes import tokenize_all
from pipeline.jobs.work.stages import Stage
from pipeline.source.find import find_source_shards

pytest_plugins = ["fixtures_store"]


def test_batches_smaller_than_the_machine_occupy_all_cores(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one piece for one thread; six threads meet, or none goes on."""
    config = job.config("source.exclude=[more/*]", "tokenize.batch_size=1")
    meeting, encoded = threading.Barrier(6, timeout=20), itertools.count()
    with work_of(config, cores=6) as work:
        encode_with(monkeypatch, lambda: next(encoded) < 6 and meeting.wait())
        assert not tokenize_all(ListQueue(find_source_shards(config.source)), work).failures


@pytest.mark.parametrize(("workers", "threads"), [("auto", 3), ("1", 4)])
def test_no_more_threads_than_cores_unless_asked_for(
    workers: str, threads: int, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = job.config("tokenize.batch_size=2", f"tokenize.decode_workers={workers}")
    timed, decoding, encoding = Stage.timed, set[int](), set[int]()

    def tell(stage: Stage, function: Callable[..., object]) -> Callable[..., object]:
        def told(samples: object) -> object:
            decoding.add(threading.get_ident())
            return function(samples)

        return timed(stage, told)

    monkeypatch.setattr(Stage, "timed", tell)
    with work_of(config, cores=3) as work:
        encode_with(monkeypatch, lambda: encoding.add(threading.get_ident()))
        assert not tokenize_all(ListQueue(find_source_shards(config.source)), work).failures
        assert work.machine.threads["decode"] == (3 if workers == "auto" else 1)
    assert len(decoding | encoding) <= threads
    assert bool(decoding & encoding) == (workers == "auto")
