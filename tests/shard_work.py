"""Source shards through one process, without claims; for several test modules."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import pytest
import torch
from fixtures_store import COLLECTION
from torch import Tensor

from pipeline.config import Config
from pipeline.files import files_at
from pipeline.jobs.tokenizing.job import make_birth
from pipeline.jobs.work.lanes import Done, tokenize_all
from pipeline.jobs.work.machine import this_machine
from pipeline.jobs.work.shard import Work
from pipeline.models.batch_encoder import BatchEncoder
from pipeline.models.tokenizers.network import NetworkTokenizer
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.records import SourceShard
from pipeline.store.schema.birth import create_or_compare
from pipeline.store.schema.commits import CommitRecord, committed_parts, read_commit
from pipeline.world import World, current_world


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


class Accelerator(BatchEncoder):
    """An encoder that takes the CPU for a GPU."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.on_cpu = False


@contextlib.contextmanager
def work_of(config: Config, cores: int | None = None, device: torch.device | None = None) -> Iterator[Work]:
    world: World = current_world()
    world = dataclasses.replace(world, cores=cores or world.cores, device=device or world.device)
    tokenizer = load_tokenizer(config.tokenizer.path, config.tokenize.layout, "cpu", config.tokenize.precision)
    with this_machine(config, tokenizer, world) as machine:
        work = Work(config, files_at(config.tokenize.store), make_birth(config, tokenizer), machine)
        create_or_compare(work.store, work.birth)
        yield work


def tokenized(work: Work, queue: ListQueue) -> tuple[Done, list[CommitRecord]]:
    done = tokenize_all(queue, work)
    return done, [read_commit(work.store, part) for part in sorted(committed_parts(work.store))]


def encode_with(monkeypatch: pytest.MonkeyPatch, before: Callable[[], object]) -> None:
    """Let the tokenizer do something else before each encoding."""
    encode = NetworkTokenizer.encode

    def later(tokenizer: NetworkTokenizer, img_B3HW: Tensor) -> list[Tensor]:
        before()
        return encode(tokenizer, img_B3HW)

    monkeypatch.setattr(NetworkTokenizer, "encode", later)
