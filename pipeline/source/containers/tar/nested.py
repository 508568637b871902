"""A tar of tars: where in it each of them lies, from its headers alone."""

import io
from collections.abc import Iterator
from functools import partial

from pipeline.errors import SourceError
from pipeline.files.ranges import Ranges
from pipeline.records import SourceShard
from pipeline.source.containers.container import Inner
from pipeline.source.containers.limits import DEFAULT, Limits
from pipeline.source.containers.tar.compression import decompressed
from pipeline.source.containers.tar.strict import StrictTar
from pipeline.source.shards.opening import read_bytes, shard_name, source_errors

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# Of each member little more than its header is read.
_PIECE_BYTES = 4 << 10
_REQUEST_BYTES = 16 << 10


def inner_tars(shard: SourceShard, limits: Limits = DEFAULT) -> Iterator[Inner]:
    """The tars in a tar. Raises SourceError for one that is damaged, compressed, or has none."""
    name = shard_name(shard)
    found = 0
    with source_errors(name):
        assert shard.bytes is not None, "commands do not come here"
        stream = io.BufferedReader(Ranges(partial(read_bytes, shard), shard.bytes), _REQUEST_BYTES)
        if decompressed(stream, name):
            raise SourceError(
                f"{name}: source.nested: it is compressed, so that the tars in it cannot be read where they lie; "
                "decompress it"
            )
        for member in StrictTar(stream, name, lambda _: False, piece_bytes=_PIECE_BYTES, limits=limits):
            if member.plain and member.name.lower().endswith(_TARS):
                found += 1
                yield Inner(member.name.removeprefix("./"), member.contents_at, member.size)
    if not found:
        raise SourceError(f"{name}: source.nested: there is no tar in it; leave source.nested out for this source")
