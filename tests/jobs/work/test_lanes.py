"""Source shards through one process: several at work at their borders, and what goes wrong with one is its own."""

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures_store import COLLECTION, Job, make_job
from torch import Tensor

from pipeline.config import Config
from pipeline.files import files_at
from pipeline.jobs.tokenizing.job import make_birth
from pipeline.jobs.work.lanes import Done, tokenize_all
from pipeline.jobs.work.machine import this_machine
from pipeline.jobs.work.shard import Work
from pipeline.jobs.work.stages import Stage
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.records import SourceShard
from pipeline.source.find import find_source_shards
from pipeline.store.schema.birth import create_or_compare
from pipeline.store.schema.commits import CommitRecord, committed_parts, read_commit
from pipeline.world import World, current_world

pytest_plugins = ["fixtures_store"]


class ListQueue:
    """A queue of some source shards, which remembers what became of them."""

    def __init__(self, shards: list[SourceShard], asked: Callable[[int], None] = lambda number: None) -> None:
        self._left = list(enumerate(shards))
        self._asked = asked
        self.finished: list[str] = []
        self.failures: dict[str, str] = {}

    def next(self) -> SourceShard | None:
        if not self._left:
            return None
        number, shard = self._left.pop(0)
        self._asked(number)
        return shard

    def progress(self, shard: SourceShard, images: int, bytes_read: int) -> None:
        assert 0 < images <= len(COLLECTION[shard.path])
        assert bytes_read > 0

    def done(self, shard: SourceShard) -> None:
        self.finished.append(shard.path)

    def failed(self, shard: SourceShard, reason: str) -> None:
        self.failures[shard.path] = reason


@contextlib.contextmanager
def work_of(config: Config, cores: int | None = None) -> Iterator[Work]:
    world: World = current_world()
    if cores is not None:
        world = dataclasses.replace(world, cores=cores)
    tokenizer = load_tokenizer(config.tokenizer.path, config.tokenize.layout, "cpu", config.tokenize.precision)
    with this_machine(config, tokenizer, world) as machine:
        work = Work(config, files_at(config.tokenize.store), make_birth(config, tokenizer), machine)
        create_or_compare(work.store, work.birth)
        yield work


def tokenized(work: Work, queue: ListQueue) -> tuple[Done, list[CommitRecord]]:
    done = tokenize_all(queue, work)
    return done, [read_commit(work.store, part) for part in sorted(committed_parts(work.store))]


def encode_with(work: Work, monkeypatch: pytest.MonkeyPatch, before: Callable[[], object]) -> None:
    """Let the tokenizer do something else before each encoding."""
    tokenizer = work.machine.tokenizer
    encode = tokenizer.encode

    def later(img_B3HW: Tensor) -> list[Tensor]:
        before()
        return encode(img_B3HW)

    monkeypatch.setattr(tokenizer, "encode", later)


def test_each_source_shard_is_committed_with_what_its_stages_did(job: Job) -> None:
    config = job.config()
    shards = find_source_shards(config.source)
    queue = ListQueue(shards)
    with work_of(config) as work:
        done, commits = tokenized(work, queue)
    assert sorted(queue.finished) == sorted(shard.path for shard in shards)
    assert (queue.failures, done.failures, len(done.loads)) == ({}, {}, len(shards))
    assert done.images == sum(map(len, COLLECTION.values()))
    for shard, commit in zip(shards, commits, strict=True):
        assert (commit.part, commit.seen) == (shard.part, len(COLLECTION[shard.path]))
        assert commit.counts == {"read": commit.seen, "decode": commit.seen, "encode": commit.written}
        assert commit.threads.keys() == {"read", "decode", "encode", "write", "cores"}
        assert commit.seconds["wall"] >= 0
        if commit.written:
            assert min(commit.seconds[stage] for stage in ("read", "decode", "encode")) > 0


def test_the_next_source_shard_is_read_before_this_one_is_encoded(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoding waits for it: without overlap this would not end."""
    config = job.config("source.exclude=[more/*]", "tokenize.batch_size=20")
    asked_for_next = threading.Event()
    queue = ListQueue(find_source_shards(config.source), lambda number: asked_for_next.set() if number else None)
    with work_of(config) as work:
        encode_with(work, monkeypatch, lambda: asked_for_next.wait(30) or pytest.fail("no overlap"))
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


def test_batches_smaller_than_the_machine_occupy_all_cores(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is one piece for one thread; six threads meet, or none goes on."""
    config = job.config("source.exclude=[more/*]", "tokenize.batch_size=1")
    meeting, encoded = threading.Barrier(6, timeout=20), itertools.count()
    with work_of(config, cores=6) as work:
        encode_with(work, monkeypatch, lambda: next(encoded) < 6 and meeting.wait())
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
        encode_with(work, monkeypatch, lambda: encoding.add(threading.get_ident()))
        assert not tokenize_all(ListQueue(find_source_shards(config.source)), work).failures
        assert work.machine.threads["decode"] == (3 if workers == "auto" else 1)
    assert len(decoding | encoding) <= threads
    assert bool(decoding & encoding) == (workers == "auto")


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
        encode_with(work, monkeypatch, fail_once)
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
        encode_with(work, monkeypatch, fail_once)
        _, commits = tokenized(work, queue)
    assert list(queue.failures.values()) == ["MemoryError: 64 GiB"]
    assert len(commits) == len(queue.finished) > 0
    for commit in commits:
        assert commit.seen == len(COLLECTION[commit.sources[0].path])


def test_stopping_drops_what_is_in_work_and_ends_all_threads(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    config = job.config("tokenize.batch_size=1")
    before = set(threading.enumerate())
    queue = ListQueue(find_source_shards(config.source))
    with work_of(config) as work:
        calls = itertools.count()
        encode_with(work, monkeypatch, lambda: next(calls) == 5 and work.stopped.set())
        done = tokenize_all(queue, work)
    assert not done.failures
    assert not queue.failures
    assert len(queue.finished) < len(COLLECTION)
    assert set(threading.enumerate()) == before


def test_what_the_queue_raises_is_raised(job: Job) -> None:
    def break_down(number: int) -> None:
        if number == 1:
            raise OSError("the store is gone")

    queue = ListQueue(find_source_shards(job.config().source), break_down)
    with work_of(job.config()) as work, pytest.raises(OSError, match="the store is gone"):
        tokenize_all(queue, work)
