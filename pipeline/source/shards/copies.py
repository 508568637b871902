"""Whether two source shards are one file under two names, or copies of each other."""

import filecmp
import hashlib
from datetime import datetime
from pathlib import Path

from pipeline.files import is_url
from pipeline.records import SourceShard
from pipeline.redaction import PIPE
from pipeline.source.shards.opening import absolute, location, shard_name, source_errors

_END_BYTES = 64 << 10
_PIECE_BYTES = 8 << 20


def file_identity(shard: SourceShard) -> str:
    """The same text for all names of one file: links of both kinds lead to it."""
    if shard.listing is not None or not _is_local(shard):
        return location(shard)
    with source_errors(shard_name(shard)):
        found = _path(shard).stat()
    return f"{found.st_dev}:{found.st_ino}" + (f":{shard.start}" if shard.inside else "")


def is_copy(one: SourceShard, other: SourceShard) -> bool:
    """Whether two source shards of one size hold the same bytes; False where only a download would tell."""
    if one.listing is not None or other.listing is not None:
        return _hold_the_same(one, other)
    if is_url(one.base) and is_url(other.base):
        return (one.version, one.inside) == (other.version, other.inside) and _tells_contents(one)
    if not (_is_local(one) and _is_local(other)):
        return False
    size = one.bytes or 0
    ends = [(0, _END_BYTES), (max(0, size - _END_BYTES), size)]
    # Most files of one size differ at once; only where neither end tells is all of them read.
    return all(_digest(one, *stretch) == _digest(other, *stretch) for stretch in [*ends, (0, size)])


def _hold_the_same(one: SourceShard, other: SourceShard) -> bool:
    """Whether two lists of files have equal names and contents."""
    if one.listing is None or other.listing is None or one.listing.files != other.listing.files:
        return False
    if not (_is_local(one) and _is_local(other)):
        return False
    here, there = (Path(shard.base, shard.listing.folder) for shard in (one, other) if shard.listing)
    names = [Path(folder, name) for folder, names in one.listing.files.items() for name in names]
    with source_errors(shard_name(one)):
        return all(filecmp.cmp(here / name, there / name, shallow=False) for name in names)


def _digest(shard: SourceShard, start: int, stop: int) -> str:
    """sha256 of some bytes of a local source shard. Raises SourceError."""
    digest = hashlib.sha256()
    with source_errors(shard_name(shard)), _path(shard).open("rb") as file:
        file.seek(shard.start + start)
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
    return absolute(Path(shard.base, shard.file))
