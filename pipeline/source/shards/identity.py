"""Whether a source shard is the file it was: by size, and by its beginning where it may have been written anew."""

import hashlib

from pipeline.records import Record, SourceRecord, SourceShard
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
    """What a source shard is now. Reads its beginning; of one that consists of many files only names count."""
    if shard.listing is not None:
        return SourceFile(bytes=shard.bytes, version="", head=shard.listing.digest)
    return SourceFile(bytes=shard.bytes, version=shard.version, head="" if shard.bytes is None else head_digest(shard))


def head_digest(shard: SourceShard) -> str:
    """sha256 of the first 64 KiB, in hex."""
    return hashlib.sha256(read_bytes(shard, 0, HEAD_BYTES)).hexdigest()


def is_same_file(shard: SourceShard, bytes: int | None, version: str, head: str) -> bool:
    """Whether a source shard is what it was when it had this size, version and head.

    A file of the same size and version is taken for the same, and of one whose version alone differs the beginning
    is read: copied collections pass. Of many files the names are compared.
    """
    if shard.listing is not None:
        return shard.listing.digest == head and not shard.listing.missing
    if shard.bytes != bytes:
        return False
    return shard.version == version or not head or head_digest(shard) == head


def file_difference(shard: SourceShard, record: SourceRecord) -> str | None:
    """How a source shard that is a file differs from what a commit says of it; None if it does not."""
    if shard.bytes is None:
        return None
    if shard.bytes != record.bytes:
        return f"{shard.bytes:,} bytes, {record.bytes:,} then"
    same = is_same_file(shard, record.bytes, record.version, record.head)
    return None if same else "of the same size, with other contents"


def is_gone(shard: SourceShard) -> bool:
    """Whether it consists of files of which none is there any more."""
    listing = shard.listing
    return listing is not None and len(listing.missing) == sum(map(len, listing.files.values()))
