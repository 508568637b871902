"""Source shards, one after the other, into batches of pixels. Knows nothing of tokens."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.jobs.work.timing import Stages
from pipeline.jobs.work.watch import Watch
from pipeline.records import SourceRecord, SourceShard
from pipeline.source.batches import ImageBatch, image_batches
from pipeline.source.images.transform import ImageTransform
from pipeline.source.reading import Opener
from pipeline.source.selection import Selection
from pipeline.source.shards.opening import refuse_changed


@dataclass(frozen=True)
class Images:
    """A batch of a source shard."""

    shard: SourceShard
    stages: Stages
    batch: ImageBatch
    bytes_read: int
    """Of the source shard, up to here or a little further."""


@dataclass(frozen=True)
class End:
    """A source shard was read to its end as planned."""

    shard: SourceShard
    stages: Stages
    sources: tuple[SourceRecord, ...]
    ignored: list[str]
    """Members that belong to no sample."""


@dataclass(frozen=True)
class Failed:
    """A source shard cannot be read."""

    shard: SourceShard
    error: Exception


class ShardDecoder:
    """Reads and decodes source shards in order. What goes wrong with one is no reason to stop before the next.

    Args:
        threads: of `decoders`.
    """

    def __init__(self, config: Config, decoders: Executor, threads: int, watch: Watch) -> None:
        self._config = config
        self._decoders = decoders
        self._threads = threads
        self._watch = watch
        self._selection = Selection(config.source)
        self._transform = ImageTransform(config.image)
        self._opener = Opener(config.source)
        self._skipped: set[str] = set()

    def decode_shards(self, shards: Iterable[SourceShard]) -> Iterator[Images | End | Failed]:
        """The batches of each source shard, and then its end. The next one is asked for when that was taken."""
        for shard in shards:
            try:
                yield from self._decode(shard)
            except Exception as error:  # whatever it is, it is told to whoever asked for this source shard
                yield Failed(shard, error)

    def skip(self, shard: SourceShard) -> None:
        """Do not go on with a source shard that is of no use any more. Any thread may say so."""
        self._skipped.add(shard.part)

    def interrupt(self) -> None:
        """End a wait for the output of a command, which may last for ever. Any thread may do so."""
        self._opener.stop()

    def _decode(self, shard: SourceShard) -> Iterator[Images | End]:
        stages = Stages(shard, self._watch)
        reader = self._opener.open(shard)
        batches = image_batches(
            stages.reading(reader),
            self._selection,
            self._transform,
            self._config.tokenize.batch_size,
            stages.decoding(self._decoders),
            self._threads,
        )
        for batch in batches:
            stages.add("decode", 0, len(batch.rows) + len(batch.rejects))
            yield Images(shard, stages, batch, reader.bytes)
            if shard.part in self._skipped:
                return
        refuse_changed(shard, reader.bytes)
        yield End(shard, stages, reader.sources(), reader.ignored)
