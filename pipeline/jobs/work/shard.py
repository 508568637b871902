"""The way of one source shard into the store, whoever asks for it.

    read ──▶ decode ──▶ encode ──▶ write
    samples  pixels     tokens     a committed part

Each stage works while the others do: batches are read and decoded in a thread of their own, some of them ahead, and
handed to the encoder there; this thread takes the tokens, and writes.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pipeline.config import Config, SourceConfig
from pipeline.errors import SourceError
from pipeline.files import Files
from pipeline.jobs.work.absence import Absence, noting_members
from pipeline.jobs.work.machine import Machine
from pipeline.jobs.work.stages import Stages
from pipeline.models.batch_encoder import Encoding
from pipeline.overlap import Stopped, prefetch
from pipeline.process.threads import one_thread, use_device
from pipeline.records import Reject, SourceShard
from pipeline.source.batches import ImageBatch, Outcome, Prepare, Task, image_batches
from pipeline.source.classes.finding import refuse_other_names
from pipeline.source.containers.container import ShardReader
from pipeline.source.images.transform import ImageTransform
from pipeline.source.images.views import View
from pipeline.source.labels.labels import Labels
from pipeline.source.reading import Opener
from pipeline.source.selection import Selection
from pipeline.source.shards.opening import refuse_changed, shard_name
from pipeline.store.arrays.storage import Views
from pipeline.store.schema.birth import Birth
from pipeline.store.schema.commits import CommitRecord, commonest_reasons
from pipeline.store.types import Array
from pipeline.store.writing.writer import EncodedShard, commit_part

# Of fewer samples, one that is bad tells nothing about the others.
_JUDGED_FROM = 10


@dataclass(frozen=True)
class Work:
    """What the source shards of a job have in common: how they become parts, of which store, on which machine."""

    config: Config
    store: Files
    birth: Birth
    machine: Machine
    labels: Labels | None = None
    """What samples are labelled by; None where nobody asks for the indices of names."""
    is_spokesman: bool = False
    """Whether this process says what is said once for several."""
    opener: Callable[[SourceConfig], Opener] = Opener
    """What reads source shards."""
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set when the process is to end: what is in work is dropped then, unless it is being written."""

    @cached_property
    def selection(self) -> Selection:
        """What is taken of a sample."""
        return Selection(self.config.source, self.labels)

    @cached_property
    def absence(self) -> Absence:
        """What no sample of a source shard has."""
        return Absence(self.config.source, self.is_spokesman, self.labels.table if self.labels else None)

    @cached_property
    def transform(self) -> ImageTransform:
        """How its image becomes pixels."""
        return ImageTransform(self.config.image)


@dataclass
class _Rows:
    """What has come of a source shard so far."""

    tokens: list[Array]
    fields: dict[str, list[bytes | None]]
    keys: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    views: list[list[View]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    kept_bytes: int = 0
    """Of all fields together."""
    members: set[str] = field(default_factory=set)
    """Extensions of all members that its samples have."""

    @property
    def seen(self) -> int:
        return len(self.keys) + len(self.rejects)

    def add(self, batch: ImageBatch) -> None:
        self.rejects += batch.rejects
        self.views += batch.views
        for row in batch.rows:
            self.keys.append(row.key)
            self.labels.append(row.label)
            for name, values in self.fields.items():
                value = row.fields[name]
                values.append(value)
                self.kept_bytes += len(value or b"")


Progress = Callable[[SourceShard, int, int], None]
"""Called with a source shard, and its images done and bytes read."""


def tokenize_shard(
    shard: SourceShard,
    work: Work,
    progress: Progress = lambda shard, images, bytes_read: None,
    when_read: Callable[[], None] = lambda: None,
) -> CommitRecord:
    """One source shard into a committed part; the commit that counts, which is another attempt's if that was first.

    Args:
        progress: called after every batch.
        when_read: called in another thread when nothing is left to read, while the last batches are encoded.

    Raises SourceError for one that cannot be read to its end as planned, or that rejects more than
    `tokenize.max_reject_rate`; ConfigError, MemoryError or RuntimeError when the machine fails; OSError when the store
    does; Stopped when `work.stopped` is set before it is written.
    """
    encoded = encode_shard(shard, work, progress, when_read)
    machine = work.machine
    with machine.turns.writing, machine.watch.doing(lambda: f"write {shard.path}", shard):
        if work.stopped.is_set():
            raise Stopped
        return commit_part(work.store, work.birth, encoded)


def encode_shard(shard: SourceShard, work: Work, progress: Progress, when_read: Callable[[], None]) -> EncodedShard:
    """All stages but the last: what a source shard brings into the store. As `tokenize_shard`."""
    began, stages = time.monotonic(), Stages(shard, work.machine.watch, work.config.image.gpu_decodes)
    opener = work.opener(work.config.source)
    refuse_other_names(shard, work.config.source, work.birth.classes)
    reader, rows = opener.open(shard), _no_rows(work)
    begun = _begin_to_encode(shard, reader, rows.members, work, stages, when_read)
    with (
        contextlib.closing(prefetch(begun, work.machine.batches_ahead, opener.stop, work.stopped)) as batches,
        work.machine.looking_at_gpu(shard),
    ):
        for batch, encoding in batches:
            if encoding is not None:
                rows.tokens.append(_tokens_of(encoding, work, stages, rows.seen))
            rows.add(batch)
            _check_kept(shard, rows, work.config.source.max_kept_bytes)
            progress(shard, rows.seen, reader.bytes)
    _check_reject_rate(shard, rows, work.config.tokenize.max_reject_rate)
    work.absence.look(shard, rows.keys, rows.labels, rows.fields, rows.members)
    return EncodedShard(
        part=shard.part,
        sources=reader.sources(),
        tokens=np.concatenate(rows.tokens),
        keys=rows.keys,
        labels=rows.labels,
        fields=rows.fields,
        rejects=rows.rejects,
        views=None if work.birth.views is None else Views.of(rows.views, work.birth.views),
        ignored=reader.ignored,
        execution=work.machine.execution,
        seconds={**stages.seconds, "wall": round(work.machine.turns.occupied(began), 3)},
        counts=stages.counts,
        threads=work.machine.threads,
    )


def _begin_to_encode(
    shard: SourceShard,
    reader: ShardReader,
    members: set[str],
    work: Work,
    stages: Stages,
    when_read: Callable[[], None],
) -> Iterator[tuple[ImageBatch, Encoding | None]]:
    """Each batch, and its tokens in the making; None where it holds rejects alone. Runs in a thread of its own."""
    one_thread()
    use_device(work.machine.device)
    machine, batch_size = work.machine, work.config.tokenize.batch_size
    try:
        batches = image_batches(
            noting_members(stages.read.over(reader), members),
            work.selection,
            work.transform,
            batch_size,
            machine.decoders,
            machine.threads["decode"],
            lambda prepare: stages.decode.timed(_looking_at_gpu(prepare, shard, machine)),
            pinned=machine.device.type == "cuda",
        )
        with machine.looking_at_gpu(shard):
            for batch in batches:
                tokens = machine.encoder.submit(batch.img_B3HW, batch.images, batch_size) if batch.rows else None
                yield batch, tokens
        refuse_changed(shard, reader.bytes)
    finally:
        when_read()


def _looking_at_gpu(prepare: Prepare, shard: SourceShard, machine: Machine) -> Prepare:
    def prepare_there(task: Task) -> list[Outcome]:
        with machine.looking_at_gpu(shard):
            return prepare(task)

    return prepare_there


def _tokens_of(encoding: Encoding, work: Work, stages: Stages, done: int) -> Array:
    """Those of the rows of a batch, as they are stored."""
    with stages.encode.watched(lambda: f"the batch behind image {done}"):
        tokens, seconds = work.machine.result_of(encoding, work.config.tokenize.batch_size)
    rows = tokens.astype(work.birth.token_dtype).reshape(-1, *work.birth.row_shape)
    stages.encode.add(seconds, len(rows))
    return rows


def _no_rows(work: Work) -> _Rows:
    tokens = np.empty((0, *work.birth.row_shape), work.birth.token_dtype)
    return _Rows([tokens], {name: [] for name in work.config.source.keep})


def _check_kept(shard: SourceShard, rows: _Rows, limit: int) -> None:
    """Raise SourceError where kept members take more memory than they may."""
    if rows.kept_bytes > limit:
        raise SourceError(
            f"{shard_name(shard)}: the members that source.keep names have more than source.max_kept_bytes = {limit:,} "
            "bytes together; raise it, keep less, or make smaller source shards"
        )


def _check_reject_rate(shard: SourceShard, rows: _Rows, limit: float) -> None:
    if rows.seen >= _JUDGED_FROM and len(rows.rejects) / rows.seen > limit:
        raise SourceError(
            f"{shard_name(shard)}: {len(rows.rejects)} of {rows.seen} samples rejected, more than "
            f"tokenize.max_reject_rate = {limit}: {commonest_reasons(reject.reason for reject in rows.rejects)}"
        )
