"""Whether a source shard is the file it was: by size, and by its beginning where it may have been written anew."""

import hashlib

from pipeline.records import Record, SourceShard
from pipeline.source.shards.opening import read_bytes

HEAD_BYTES = 64 << 10
"""Bytes at the beginning of a source shard by which it is known again."""


class SourceFile(Record):
    """What a source shard was once; where it lay is no part of it, for collections move."""

    bytes: int | None
    """Size; None for the output of a command."""
    version: str
    """Modification time or entity tag."""
    head: str
    """sha256 of the first 64 KiB in hex; empty for the output of a command."""


def source_file(shard: SourceShard) -> SourceFile:
    """What a source shard is now. Reads its beginning."""
    return SourceFile(bytes=shard.bytes, version=shard.version, head="" if shard.bytes is None else head_digest(shard))


def head_digest(shard: SourceShard) -> str:
    """sha256 of the first 64 KiB, in hex."""
    return hashlib.sha256(read_bytes(shard, 0, HEAD_BYTES)).hexdigest()


def is_same_file(shard: SourceShard, bytes: int | None, version: str, head: str) -> bool:
    """Whether a source shard is what it was when it had this size, version and head.

    A file of the same size and version is taken for the same, and of one whose version alone differs the beginning
    is read: copied collections pass.
    """
    if shard.bytes != bytes:
        return False
    return shard.version == version or not head or head_digest(shard) == head
