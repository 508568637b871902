"""From rows of a part back to the images they were made of."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

from pipeline.config import Config
from pipeline.errors import SourceError
from pipeline.files import Files
from pipeline.jobs.rejects import Rejecting, read_rejects
from pipeline.overlap import prefetch
from pipeline.records import SourceShard
from pipeline.source.batches import ImageBatch, image_batches
from pipeline.source.images.transform import ImageTransform
from pipeline.source.reading import Opener
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection
from pipeline.source.shards.opening import shard_name

# Batches decoded ahead of whoever uses them.
_BATCHES_AHEAD = 2


def images_of_rows(
    config: Config, store: Files, shard: SourceShard, commit: Rejecting, rows: range, decoders: Executor
) -> ImageBatch:
    """The images of the rows of one batch at most, decoded again and batched as they were.

    Raises SourceError when the source shard cannot be read, or no longer has images for all of the rows.
    """
    (batch,) = batches_of_rows(config, store, shard, commit, [rows], config.tokenize.batch_size, decoders)
    return batch


def batches_of_rows(
    config: Config,
    store: Files,
    shard: SourceShard,
    commit: Rejecting,
    chosen: Sequence[range],
    batch_size: int,
    decoders: Executor,
) -> Iterator[ImageBatch]:
    """The images of some of the batches that a part was made in, in one pass over its source shard.

    Args:
        chosen: rows of each batch, ascending: `samples_of_batch` of them, but for the last batch of the part.

    Raises SourceError when the source shard cannot be read, or no longer has images for all of the rows.
    """
    rejected = {reject.index for reject in read_rejects(store, commit)}
    opener = Opener(config.source)
    samples = _samples_of_rows(opener, shard, rejected, chosen)
    batches = image_batches(samples, Selection(config.source), ImageTransform(config.image), batch_size, decoders)
    with contextlib.closing(prefetch(batches, _BATCHES_AHEAD, opener.stop)) as ahead:
        for rows in chosen:
            batch = next(ahead, None)
            # A reject among them would move all later rows into the wrong batch.
            if batch is None or batch.rejects or len(batch.rows) != len(rows):
                raise SourceError(
                    f"{shard_name(shard)}: not the images that were tokenized: it was replaced; see vqtok verify"
                )
            yield batch


def _samples_of_rows(
    opener: Opener, shard: SourceShard, rejected: set[int], chosen: Sequence[range]
) -> Iterator[Sample]:
    wanted = {row for rows in chosen for row in rows}
    row = 0
    for sample in opener.open(shard, digests=False):
        if sample.index in rejected:
            continue
        if row in wanted:
            yield sample
        row += 1
        if row >= chosen[-1].stop:
            return
