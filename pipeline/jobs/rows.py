"""From rows of a part back to the images they were made of."""

from collections.abc import Iterator
from concurrent.futures import Executor

from pipeline.config import Config
from pipeline.errors import SourceError
from pipeline.files import Files
from pipeline.records import Reject, SourceShard
from pipeline.source.batches import ImageBatch, image_batches
from pipeline.source.images import ImageTransform
from pipeline.source.opening import source_at
from pipeline.source.samples import Sample, SampleReader
from pipeline.source.selection import Selection
from pipeline.store import names


def read_rejects(store: Files, part: str, attempt: str) -> list[Reject]:
    """Rejects of a committed part, in source order."""
    lines = store.read(names.rejects(part, attempt)).splitlines()
    return [Reject.model_validate_json(line) for line in lines]


def images_of_rows(
    config: Config, store: Files, shard: SourceShard, attempt: str, rows: range, decoders: Executor
) -> ImageBatch:
    """The images of at most `tokenize.batch_size` rows, decoded again and batched as they were.

    Raises SourceError when the source shard cannot be read, or no longer has images for all of the rows.
    """
    rejected = {reject.index for reject in read_rejects(store, shard.part, attempt)}
    batches = list(
        image_batches(
            _samples_of_rows(config, shard, rejected, rows),
            Selection(config.source),
            ImageTransform(config.image),
            config.tokenize.batch_size,
            decoders,
        )
    )
    if sum(len(batch.rows) for batch in batches) != len(rows):
        raise SourceError(
            f"{shard.base}/{shard.path}: not the images that were tokenized: it was replaced; see vqtok verify"
        )
    (batch,) = batches
    return batch


def _samples_of_rows(config: Config, shard: SourceShard, rejected: set[int], rows: range) -> Iterator[Sample]:
    reader = SampleReader(
        source_at(shard.base), shard.path, Selection(config.source).wants, config.source.allow_unterminated
    )
    row = 0
    for sample in reader:
        if sample.index in rejected:
            continue
        if row >= rows.stop:
            return
        if row in rows:
            yield sample
        row += 1
