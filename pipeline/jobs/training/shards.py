"""Which source shards are trained on, and which are held out."""

import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from pipeline.config import Config, SourceConfig
from pipeline.errors import BadSample, ConfigError, SourceError
from pipeline.files import is_url
from pipeline.jobs.training.sources import held_out_shards
from pipeline.records import SourceShard
from pipeline.source.containers.samples import SampleReader, source_errors
from pipeline.source.images.transform import ImageTransform
from pipeline.source.sample import Sample
from pipeline.source.selection import Selection
from pipeline.source.shards.find import find_source_shards, location
from pipeline.source.shards.opening import PIPE, shard_name, source_at

_END_BYTES = 64 << 10
_PIECE_BYTES = 8 << 20


def training_shards(config: Config) -> list[SourceShard]:
    """The source shards to train on: those of `source.shards` that `train.holdout` does not name.

    A link to a held-out file is that file. Raises ConfigError for patterns without files, when nothing is left, and
    for a copy of a held-out source shard.
    """
    held_out = held_out_shards(config)
    files = {_identity(shard) for shard in held_out}
    shards = find_source_shards(config.source)
    if held_out:
        shards = [shard for shard in shards if _identity(shard) not in files]
    if not shards:
        raise ConfigError("train.holdout: names every source shard; leave some of source.shards to train on")
    _refuse_copies(shards, held_out)
    return shards


def require_usable_image(config: Config, shards: Iterable[SourceShard]) -> None:
    """Raise SourceError when no sample of all `shards` gives an image: nothing could be trained on."""
    selection, transform = Selection(config.source), ImageTransform(config.image)
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
    wants = Selection(source).wants
    for shard in shards:
        yield from SampleReader(source_at(shard.base), shard.path, wants, source.allow_unterminated)


def _identity(shard: SourceShard) -> str:
    """The same text for all names of one file: links of both kinds lead to it."""
    if not _is_local(shard):
        return location(shard)
    with source_errors(shard_name(shard)):
        found = _path(shard).stat()
    return f"{found.st_dev}:{found.st_ino}"


def _refuse_copies(shards: Iterable[SourceShard], held_out: Iterable[SourceShard]) -> None:
    by_size: dict[int | None, list[SourceShard]] = {}
    for shard in held_out:
        by_size.setdefault(shard.bytes, []).append(shard)
    for shard in shards:
        for held in by_size.get(shard.bytes, []):
            if _same_contents(shard, held):
                raise ConfigError(
                    f"train.holdout: {location(held)} is held out, and {location(shard)} is a copy of it to train on; "
                    "name the copy in source.exclude, or hold out another source shard"
                )


def _same_contents(one: SourceShard, other: SourceShard) -> bool:
    """Whether two source shards of one size hold the same bytes; False where only a download would tell."""
    if is_url(one.base) and is_url(other.base):
        return one.version == other.version and _tells_contents(one)
    if not (_is_local(one) and _is_local(other)):
        return False
    size = one.bytes or 0
    ends = [(0, _END_BYTES), (max(0, size - _END_BYTES), size)]
    # Most files of one size differ at once; only where neither end tells is all of them read.
    return all(_digest(one, *stretch) == _digest(other, *stretch) for stretch in [*ends, (0, size)])


def _digest(shard: SourceShard, start: int, stop: int) -> str:
    """sha256 of some bytes of a local source shard. Raises SourceError."""
    digest = hashlib.sha256()
    with source_errors(shard_name(shard)), _path(shard).open("rb") as file:
        file.seek(start)
        while start < stop and (piece := file.read(min(_PIECE_BYTES, stop - start))):
            digest.update(piece)
            start += len(piece)
    return digest.hexdigest()


def _tells_contents(shard: SourceShard) -> bool:
    """Whether the version of an object is its entity tag. Web servers make theirs of time and size."""
    try:
        datetime.fromisoformat(shard.version)
    except ValueError:
        return not shard.base.startswith("http")
    return False


def _is_local(shard: SourceShard) -> bool:
    return not is_url(shard.base) and not shard.base.startswith(PIPE)


def _path(shard: SourceShard) -> Path:
    return Path(location(shard))
