"""One image, the whole way that a job would take it: read, decoded, encoded, written, and read again."""

import itertools
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.config import Config
from pipeline.errors import BadSample, CorruptStore, SourceError
from pipeline.files import Files, files_at
from pipeline.jobs.checking.lines import Checks
from pipeline.jobs.checking.model import TIMES, Model
from pipeline.jobs.checking.probes import probing
from pipeline.jobs.work.machine import this_machine
from pipeline.process.threads import use_device
from pipeline.records import JSON, NO_LABEL, Reject, SourceRecord, SourceShard
from pipeline.source.batches import ImageBatch, image_batches
from pipeline.source.images.transform import ImageTransform
from pipeline.source.labels.labels import Labels
from pipeline.source.reading import Opener
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection
from pipeline.source.shards.opening import shard_name
from pipeline.store import TokenStore
from pipeline.store.arrays.storage import Views
from pipeline.store.schema.birth import create_or_compare
from pipeline.store.schema.commits import commonest_reasons
from pipeline.store.types import Array
from pipeline.store.writing.hierarchy import prepare_hierarchy
from pipeline.store.writing.writer import EncodedShard, commit_part

ABOUT = "image"
# Of so many samples one is expected to become a row, and of so many source shards one to have samples.
_SAMPLES, _SHARDS = 16, 8
_PART = "check-000000000000"


@dataclass(frozen=True)
class Begun:
    """The first samples of the first source shard that has any."""

    shard: SourceShard
    samples: list[Sample]
    seconds: float

    @property
    def sample_bytes(self) -> float:
        """Of the members of a sample that are asked for, on average."""
        return sum(len(data or b"") for one in self.samples for data in one.members.values()) / len(self.samples)

    def field_bytes(self, names: Sequence[str]) -> int:
        """Of the members of a sample that are kept, on average."""
        return sum(len(one.members.get(name) or b"") for one in self.samples for name in names) // len(self.samples)


@dataclass(frozen=True)
class Row:
    """The first image that becomes a row, and what came of it."""

    batch: ImageBatch
    tokens: Array
    execution: JSON


class Way(NamedTuple):
    """How far an image came."""

    begun: Begun | None = None
    row: Row | None = None


def check_way(
    checks: Checks,
    config: Config,
    shards: Sequence[SourceShard],
    labels: Labels | None,
    model: Model | None,
    store: Files | None,
) -> Way:
    """Send one image as far as it can go: without a tokenizer it is decoded, without a store not written."""
    begun = checks.attempt(ABOUT, "read", lambda: _begin(config, shards), _describe, at_most=3)
    if begun is None:
        return Way()
    _note_what_is_missing(checks, config, begun, labels)
    if model is None:
        checks.attempt(ABOUT, "decode", lambda: _decode_alone(config, begun, labels), _describe_batch, at_most=TIMES)
        return Way(begun)
    row = checks.attempt(
        ABOUT,
        ("decode", "encode"),
        lambda: _encode(config, begun, labels, model),
        lambda row: f"{_describe_batch(row.batch)}; {row.tokens.size:,} tokens",
        blame=lambda error: 0 if isinstance(error, SourceError) else 1,
        at_most=TIMES,
    )
    if row is not None and store is not None:
        with probing(checks, store) as probe:
            checks.attempt(ABOUT, "write", lambda: _write(config, probe, model, begun, row), str, at_most=3)
    return Way(begun, row)


def _begin(config: Config, shards: Sequence[SourceShard]) -> Begun:
    for shard in shards[:_SHARDS]:
        started = time.monotonic()
        if samples := _first_samples(config, shard):
            return Begun(shard, samples, time.monotonic() - started)
    raise SourceError(f"{shard_name(shards[0])}: holds no sample, nor do the next ones; see to source.shards")


def _first_samples(config: Config, shard: SourceShard) -> list[Sample]:
    opener = Opener(config.source)
    samples = iter(opener.open(shard, digests=False))
    try:
        return list(itertools.islice(samples, _SAMPLES))
    finally:
        if isinstance(samples, Generator):
            samples.close()
        opener.stop()  # a command may have more to say


def _note_what_is_missing(checks: Checks, config: Config, begun: Begun, labels: Labels | None) -> None:
    there = {name for sample in begun.samples for name in sample.members}
    absent = [f"source.keep: {name}" for name in config.source.keep if name not in there]
    if config.source.label and labels and not any(_is_labelled(sample, labels) for sample in begun.samples):
        table = labels.table.none_for(begun.samples[0].key) if labels.table else ""
        absent.insert(0, f"source.label: {config.source.label}{table}")
    if absent:
        checks.add(
            ABOUT,
            "members",
            "note",
            f"{shard_name(begun.shard)}: its first {_many(begun.samples)} have nothing of what is asked for "
            f"({', '.join(absent)}); there is: {', '.join(sorted(there))}",
        )


def _is_labelled(sample: Sample, labels: Labels) -> bool:
    """Whether a sample has a label, good or bad: a bad one is told when it is decoded."""
    try:
        return labels.of(sample) != NO_LABEL
    except (BadSample, SourceError):
        return True


def _decode_alone(config: Config, begun: Begun, labels: Labels | None) -> ImageBatch:
    with ThreadPoolExecutor(1, "decode") as decoders:
        return _decode(config, begun, labels, decoders)


def _decode(config: Config, begun: Begun, labels: Labels | None, decoders: Executor) -> ImageBatch:
    """The batch of the first sample that becomes a row, in the full shape of the job's. Raises SourceError."""
    selection, transform = Selection(config.source, labels), ImageTransform(config.image)
    rejects: list[Reject] = []
    for sample in begun.samples:
        for batch in image_batches([sample], selection, transform, config.tokenize.batch_size, decoders):
            if batch.rows:
                batch.rejects[:] = rejects
                return batch
            rejects += batch.rejects
    reasons = commonest_reasons(reject.reason for reject in rejects)
    raise SourceError(f"{shard_name(begun.shard)}: none of its first {_many(begun.samples)} becomes a row: {reasons}")


def _encode(config: Config, begun: Begun, labels: Labels | None, model: Model) -> Row:
    use_device(model.world.device)
    with this_machine(config, model.tokenizer, model.world) as machine:
        batch = _decode(config, begun, labels, machine.decoders)
        encoding = machine.encoder.submit(batch.img_B3HW, batch.images, config.tokenize.batch_size)
        tokens, _ = machine.result_of(encoding, config.tokenize.batch_size)
        return Row(batch, tokens.astype(model.birth.token_dtype).reshape(1, *model.birth.row_shape), machine.execution)


def _write(config: Config, probe: str, model: Model, begun: Begun, row: Row) -> str:
    """The row as the only one of a store of its own, as the job would write it, and read again."""
    root, storage = f"{config.tokenize.store.rstrip('/')}/{probe}", config.tokenize.storage
    files = files_at(root, storage)
    birth = create_or_compare(files, model.birth)
    prepare_hierarchy(files, birth, model.tokenizer.codebook.table, model.tokenizer.rule_arrays)
    record = commit_part(files, birth, _encoded(begun, row, model))
    stored = TokenStore(root, partial=True, storage=storage)
    read = stored.read([0], view="all" if birth.views else 0).tokens.numpy()
    if list(stored.keys) != [found.key for found in row.batch.rows] or not np.array_equal(read, row.tokens):
        raise CorruptStore(f"{root}: what was read is not what was written; see to the server or the disk")
    return f"{sum(file.bytes for file in record.files):,} bytes in {len(record.files)} files, read again, and removed"


def _encoded(begun: Begun, row: Row, model: Model) -> EncodedShard:
    (found,) = row.batch.rows
    return EncodedShard(
        part=_PART,
        sources=(SourceRecord(path=begun.shard.path, bytes=0, sha256=""),),
        tokens=row.tokens,
        keys=[found.key],
        labels=[found.label],
        fields={name: [value] for name, value in found.fields.items()},
        rejects=[],
        ignored=[],
        execution=row.execution,
        seconds={},
        views=None if model.birth.views is None else Views.of(row.batch.views, model.birth.views),
    )


def _describe(begun: Begun) -> str:
    return f"{_many(begun.samples)} of {shard_name(begun.shard)} in {begun.seconds:.1f} s"


def _describe_batch(batch: ImageBatch) -> str:
    """Which sample it is."""
    height, width = batch.img_B3HW.shape[-2:]
    (row,) = batch.rows
    label = "no label" if row.label == NO_LABEL else f"label {row.label}"
    before = f"; {len(batch.rejects)} rejected before it, such as: {batch.rejects[0].reason}" if batch.rejects else ""
    return f"{row.key}: {height} x {width} pixels, {label}{before}"


def _many(samples: Sequence[Sample]) -> str:
    return f"{len(samples)} samples" if len(samples) > 1 else "sample"
