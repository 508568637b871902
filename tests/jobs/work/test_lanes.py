"""Source shards through one process: several at work at their borders, and what goes wrong with one is its own."""

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_store import COLLECTION, Job, make_job
from shard_work import ListQueue, encode_with, tokenized, work_of
from support import new_threads

from pipeline.jobs.work import shard as shard_module
from pipeline.jobs.work.lanes import tokenize_all
from pipeline.jobs.work.stages import Stage
from pipeline.source.find import find_source_shards
from pipeline.store.schema.commits import CommitRecord, committed_parts, read_commit

pytest_plugins = ["fixtures_store"]


def test_the_next_source_shard_is_read_before_this_one_is_encoded(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoding waits for it: without overlap this would not end."""
    config = job.config("source.exclude=[more/*]", "tokenize.batch_size=20")
    asked_for_next = threading.Event()
    queue = ListQueue(find_source_shards(config.source), lambda number: asked_for_next.set() if number else None)
    with work_of(config) as work:
        encode_with(monkeypatch, lambda: asked_for_next.wait(30) or pytest.fail("no overlap"))
        assert not tokenize_all(queue, work).failures


def test_no_more_is_taken_than_can_be_read(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes could work on it: while a source shard is read, none is asked for."""
    config = job.config("tokenize.batch_size=1")
    reading: list[str] = []
    over = Stage.over

    def told(stage: Stage, items: object) -> Iterator[object]:
        if stage._name == "read":
            reading.append(stage._shard.path)
            yield from over(stage, items)  # type: ignore[arg-type]
            reading.pop()

    monkeypatch.setattr(Stage, "over", told)
    queue = ListQueue(find_source_shards(config.source), lambda number: reading and pytest.fail(f"reading {reading}"))
    with work_of(config) as work:
        assert not tokenize_all(queue, work).failures
    assert len(queue.finished) == len(COLLECTION)


def test_what_goes_wrong_with_one_source_shard_is_its_own(copied: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    config = make_job(tmp_path / "job", copied, tokenizer_folder).config()
    shards = find_source_shards(config.source)
    tar = copied / "train-0000.tar"
    tar.write_bytes(tar.read_bytes()[:-5000])
    queue = ListQueue(shards)
    with work_of(config) as work:
        done, commits = tokenized(work, queue)
    assert list(queue.failures) == list(done.failures) == ["train-0000.tar"]
    assert "cut off" in queue.failures["train-0000.tar"]
    assert {shard.path for shard in shards} == {*queue.failures, *queue.finished}
    assert len(commits) == len(shards) - 1


def test_a_machine_that_fails_stops_all_and_its_rows_do_not_come_back_elsewhere(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = job.config("tokenize.batch_size=2", "source.exclude=[more/*]")
    calls = itertools.count()

    def fail_once() -> None:
        if next(calls) == 3:
            raise RuntimeError("the device is gone")

    queue = ListQueue(find_source_shards(config.source))
    with work_of(config) as work:
        encode_with(monkeypatch, fail_once)
        with pytest.raises(RuntimeError, match="the device is gone"):
            tokenize_all(queue, work)
        commits = [read_commit(work.store, part) for part in committed_parts(work.store)]
    assert list(queue.failures.values()) == ["RuntimeError: the device is gone"]
    for commit in commits:
        assert commit.seen == len(COLLECTION[commit.sources[0].path])


def test_memory_that_is_short_fails_one_source_shard(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batches that were under way are dropped."""
    config = job.config("tokenize.batch_size=2", "source.exclude=[more/*]")
    calls = itertools.count()

    def fail_once() -> None:
        if next(calls) == 3:
            raise MemoryError("64 GiB")

    queue = ListQueue(find_source_shards(config.source))
    with work_of(config) as work:
        encode_with(monkeypatch, fail_once)
        _, commits = tokenized(work, queue)
    assert list(queue.failures.values()) == ["MemoryError: 64 GiB"]
    assert len(commits) == len(queue.finished) > 0
    for commit in commits:
        assert commit.seen == len(COLLECTION[commit.sources[0].path])


def test_stopping_drops_what_is_in_work_and_ends_all_threads(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    config = job.config("tokenize.batch_size=1")
    before = threading.enumerate()
    queue = ListQueue(find_source_shards(config.source))
    with work_of(config) as work:
        calls = itertools.count()
        encode_with(monkeypatch, lambda: next(calls) == 5 and work.stopped.set())
        done = tokenize_all(queue, work)
    assert not done.failures
    assert not queue.failures
    assert len(queue.finished) < len(COLLECTION)
    assert new_threads(before) == []


def test_what_the_queue_raises_is_raised(job: Job) -> None:
    def break_down(number: int) -> None:
        if number == 1:
            raise OSError("the store is gone")

    queue = ListQueue(find_source_shards(job.config().source), break_down)
    with work_of(job.config()) as work, pytest.raises(OSError, match="the store is gone"):
        tokenize_all(queue, work)


def test_a_signal_waits_for_what_is_being_written(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """In `Thread.join`, an exception would make the lane that writes pass for one that has ended."""
    commit, written = shard_module.commit_part, list[str]()

    def write_late(*arguments: Any) -> CommitRecord:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.5)
        record = commit(*arguments)
        written.append(record.part)
        return record

    monkeypatch.setattr(shard_module, "commit_part", write_late)
    config = job.config("source.exclude=[more/*]")
    with work_of(config) as work:
        with pytest.raises(KeyboardInterrupt):
            tokenize_all(ListQueue(find_source_shards(config.source)), work)
        assert len(written) == 1
        assert committed_parts(work.store) == set(written)
