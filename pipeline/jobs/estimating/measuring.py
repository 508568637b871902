"""Tokenizes the beginnings of some source shards, as a job would, into a store that is thrown away."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config, SourceConfig
from pipeline.errors import SourceError
from pipeline.files import Files, LocalFiles
from pipeline.jobs.bounds import find_bounds
from pipeline.jobs.estimating.estimate import Look, Measured
from pipeline.jobs.plan import Plan, spread
from pipeline.jobs.tokenizing.job import make_birth
from pipeline.jobs.work.lanes import tokenize_all
from pipeline.jobs.work.machine import this_machine
from pipeline.jobs.work.precision import refuse_slow_precision
from pipeline.jobs.work.shard import Work
from pipeline.jobs.work.tokenizer import tokenizer_of
from pipeline.process.signals import terminable
from pipeline.records import SourceRecord, SourceShard
from pipeline.source.classes.finding import find_classes, labels_of
from pipeline.source.containers.container import ShardReader
from pipeline.source.images.transform import ImageTransform
from pipeline.source.reading import Opener, describe_shard
from pipeline.source.sample import Sample
from pipeline.store.schema import names
from pipeline.store.schema.birth import Birth, create_or_compare
from pipeline.store.schema.commits import CommitRecord, committed_parts, read_commits
from pipeline.store.schema.snapshot import make_manifest
from pipeline.store.writing.hierarchy import prepare_hierarchy
from pipeline.world import current_world

_SHARDS = 16
# At least so many images of each source shard, or a batch, and more where there is time: what a part costs by itself
# would count too much otherwise.
_IMAGES = 256


@dataclass(frozen=True)
class _Limits:
    """When there is an end of a source shard."""

    batch_size: int
    seconds: float
    """For each source shard."""
    deadline: float
    """For all of them, a time of `time.monotonic`."""

    def are_reached(self, samples: int, began: float) -> bool:
        now = time.monotonic()
        if now > self.deadline:
            return samples >= self.batch_size
        return samples >= max(_IMAGES, self.batch_size) and now - began >= self.seconds


class _Head:
    """The beginning of a source shard, for its share of the time; then it passes for all of it."""

    def __init__(self, reader: ShardReader, shard: SourceShard, limits: "_Limits") -> None:
        self._reader = reader
        self._shard = shard
        self._limits = limits
        self.bytes, self.ignored = 0, reader.ignored
        self.samples, self.bytes_read, self.is_whole = 0, 0, False

    def __iter__(self) -> Iterator[Sample]:
        samples, began = iter(self._reader), time.monotonic()
        try:
            for sample in samples:
                yield sample
                self.samples += 1
                self.bytes = self._reader.bytes
                if self._limits.are_reached(self.samples, began):
                    break
            else:
                self.is_whole = True
        finally:
            self.bytes_read = self._reader.bytes
            self.bytes = self.bytes_read if self._shard.bytes is None else self._shard.bytes  # all that is expected
            if hasattr(samples, "close"):
                samples.close()  # what is read ahead in threads is not wanted

    def sources(self) -> tuple[SourceRecord, ...]:
        """As long as those of the whole are."""
        shard, digest = self._shard, "0" * 64
        return (
            SourceRecord(path=shard.path, bytes=shard.bytes or 0, sha256=digest, version=shard.version, head=digest),
        )


class _Queue:
    """Hands out source shards until a moment, and notes when their images are done. A `ShardQueue`."""

    def __init__(self, shards: list[SourceShard], deadline: float) -> None:
        self._shards = iter(shards)
        self._deadline = deadline
        self._given = 0
        self._images: dict[str, int] = {}
        self.failures: dict[str, str] = {}
        self.began: tuple[float, int] | None = None
        """When the first batch was done, which took longer than others, and its images."""

    def next(self) -> SourceShard | None:
        if self._given and time.monotonic() > self._deadline:
            return None
        self._given += 1
        return next(self._shards, None)

    def progress(self, shard: SourceShard, images: int, bytes_read: int) -> None:
        self._images[shard.part] = images
        self.began = self.began or (time.monotonic(), images)

    def done(self, shard: SourceShard) -> None:
        """All that counts is in its commit."""

    def failed(self, shard: SourceShard, reason: str) -> None:
        self.failures[shard.path] = reason


def measure(config: Config, plan: Plan, seconds: float) -> Measured:
    """Tokenize the beginnings of up to 16 source shards, for about so many seconds; 256 images of each, or more.

    Raises SourceError where none of the source shards can be read, and VqtokError as tokenizing does.
    """
    world = current_world()
    tokenizer = tokenizer_of(config, world)
    ImageTransform(config.image)
    refuse_slow_precision(config, tokenizer, world.device)
    classes = plan.birth.classes if plan.birth else find_classes(config.source, plan.shards)
    birth = make_birth(config, tokenizer, classes)
    labels = labels_of(config.source, birth.classes, plan.shards)
    shards = spread(plan.shards, _SHARDS)
    with (
        terminable(),
        tempfile.TemporaryDirectory(prefix="vqtok-estimate-") as folder,
        this_machine(config, tokenizer, world) as here,
    ):
        store = LocalFiles(Path(folder, "store"))
        create_or_compare(store, birth)
        prepare_hierarchy(store, birth, tokenizer.codebook.table, tokenizer.rule_arrays)
        heads: dict[str, _Head] = {}
        began = time.monotonic()
        limits = _Limits(config.tokenize.batch_size, seconds / len(shards), began + seconds)
        queue = _Queue(shards, limits.deadline)
        work = Work(config, store, birth, here, labels, opener=lambda source: _HeadOpener(source, heads, limits))
        done = tokenize_all(queue, work)
        ended = time.monotonic()
        commits = read_commits(store, sorted(committed_parts(store)))
        if not commits:
            raise SourceError("; ".join(f"{path}: {reason}" for path, reason in sorted(queue.failures.items())[:3]))
        first_s, first = queue.began if queue.began and queue.began[1] < done.images else (began, 0)
        by_part = {shard.part: shard for shard in shards}
        return Measured(
            looks=tuple(_look(store, commit, heads[commit.part], by_part[commit.part], config) for commit in commits),
            images=done.images - first,
            seconds=ended - first_s,
            stages=_rates(commits, here.threads, here.encoder.on_cpu),
            bounds=find_bounds(done.loads),
            store_bytes=_fixed_bytes(store),
            manifest_bytes=_manifest_bytes(birth, commits),
            device=str(here.execution["device"]),
            cores=world.cores,
            on_gpu=not here.encoder.on_cpu,
        )


class _HeadOpener(Opener):
    def __init__(self, source: SourceConfig, heads: dict[str, _Head], limits: _Limits) -> None:
        super().__init__(source)
        self._heads = heads
        self._limits = limits

    def open(self, shard: SourceShard, *, contents: bool = True, digests: bool = True) -> ShardReader:
        reader = super().open(shard, contents=contents, digests=False)
        self._heads[shard.part] = _Head(reader, shard, self._limits)
        return self._heads[shard.part]


def _look(store: Files, commit: CommitRecord, head: _Head, shard: SourceShard, config: Config) -> Look:
    metadata = sum(file.bytes for file in commit.files if file.path.endswith("zarr.json"))
    return Look(
        samples=commit.seen,
        source_bytes=(shard.bytes or 0) if head.is_whole else head.bytes_read,
        all_samples=commit.seen if head.is_whole else _counted(shard, config.source),
        rows=commit.written,
        rejected=commit.rejected,
        row_bytes=sum(file.bytes for file in commit.files) - metadata,
        part_bytes=metadata + store.stat(names.commit(commit.part)).bytes,
        reject_bytes=commit.rejects.bytes,
    )


def _counted(shard: SourceShard, source: SourceConfig) -> int | None:
    with contextlib.suppress(SourceError):
        return describe_shard(shard, source).samples
    return None


def _rates(commits: list[CommitRecord], threads: dict[str, int], on_cpu: bool) -> dict[str, float]:
    """Decoder and encoder on a CPU each as if it had all its cores to itself."""
    found = {}
    for stage in ("read", "decode", "encode", "write"):
        busy = sum(commit.seconds.get(stage, 0.0) for commit in commits)
        count = sum(commit.counts.get(stage, commit.written) for commit in commits)
        able = threads["cores" if on_cpu and stage in ("decode", "encode") else stage]
        if busy and count:
            found[stage] = count * able / busy
    return found


def _fixed_bytes(store: Files) -> int:
    parts = f"{names.PARTS}/"
    changing = (f"{names.COMMITS}/", f"{names.REJECTS}/", f"{names.CLAIMS}/", f"{names.FAILURES}/")
    return sum(
        stat.bytes
        for path, stat in store.stats(".").items()
        if not path.startswith(changing) and (not path.startswith(parts) or path == f"{parts}zarr.json")
    )


def _manifest_bytes(birth: Birth, commits: list[CommitRecord]) -> int:
    """What one part adds, on average: the rest of a manifest is a histogram of the codes."""
    sizes = [
        len(birth.written(make_manifest(some, [commit.part for commit in some], birth.codebook.vocab_size, 1)))
        for some in (commits[:1], commits)
    ]
    return (sizes[1] - sizes[0]) // (len(commits) - 1) if len(commits) > 1 else sizes[0]
