"""Which source shards are trained on, and which are held out."""

from collections.abc import Iterable, Iterator

from pipeline.config import Config, SourceConfig
from pipeline.errors import BadSample, ConfigError, SourceError
from pipeline.jobs.training.source_files import found_shards, held_out_shards
from pipeline.records import SourceShard
from pipeline.source.find import refuse_overlap
from pipeline.source.folders.listings import Mode
from pipeline.source.images.transform import ImageTransform
from pipeline.source.reading import open_shard
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection
from pipeline.source.shards.copies import file_identity, is_copy
from pipeline.source.shards.opening import location


def training_shards(config: Config, mode: Mode = Mode.LOOK) -> list[SourceShard]:
    """The source shards to train on: those of `source.shards` that `train.holdout` does not name.

    A link to a held-out file is that file. Raises ConfigError for patterns without files, when nothing is left, and
    for a copy of a held-out source shard.
    """
    held_out = held_out_shards(config, mode)
    files = {file_identity(shard) for shard in held_out}
    shards = found_shards(config, mode)
    refuse_overlap([*shards, *held_out], "train.holdout")
    if held_out:
        shards = [shard for shard in shards if file_identity(shard) not in files]
    if not shards:
        raise ConfigError("train.holdout: names every source shard; leave some of source.shards to train on")
    _refuse_copies(shards, held_out)
    return shards


def require_usable_image(config: Config, shards: Iterable[SourceShard]) -> None:
    """Raise SourceError when no sample of all `shards` gives an image: nothing could be trained on."""
    selection, transform = Selection(config.source), ImageTransform(config.image.centered)
    count, reason = 0, "they hold no samples"
    for sample in read_all(shards, config.source):
        try:
            transform(selection.image(sample))
            return
        except BadSample as error:
            reason = reason if count else f"the first: {sample.key}: {error}"
            count += 1
    raise SourceError(f"source.shards: none of {count} samples has a usable image to train on; {reason}")


def read_all(shards: Iterable[SourceShard], source: SourceConfig) -> Iterator[Sample]:
    """The samples of one source shard after the other, with the members that `source` asks for."""
    for shard in shards:
        yield from open_shard(shard, source, digests=False)


def _refuse_copies(shards: Iterable[SourceShard], held_out: Iterable[SourceShard]) -> None:
    by_size: dict[int | None, list[SourceShard]] = {}
    for shard in held_out:
        by_size.setdefault(shard.bytes, []).append(shard)
    for shard in shards:
        for held in by_size.get(shard.bytes, []):
            if is_copy(shard, held):
                raise ConfigError(
                    f"train.holdout: {location(held)} is held out, and {location(shard)} is a copy of it to train on; "
                    "name the copy in source.exclude, or hold out another source shard"
                )
