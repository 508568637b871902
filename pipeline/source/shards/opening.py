"""Where the bytes of a source shard come from: a file, an object, or the output of a shell command."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import SourceError
from pipeline.files import Readable, files_at, is_url
from pipeline.records import SourceShard
from pipeline.source.shards.command import Command

PIPE = "pipe:"


def source_at(base: str) -> Readable:
    """What the source shards at `base` are read through: its folder or URL, or the command of a `pipe:`."""
    return Command(base.removeprefix(PIPE)) if base.startswith(PIPE) else files_at(base)


def shard_name(shard: SourceShard) -> str:
    """What a source shard is called in messages, which end in the store: without the command of a `pipe:`."""
    return f"{source_at(shard.base).root}/{shard.path}"


def refuse_changed(shard: SourceShard, bytes_read: int) -> None:
    """Raise SourceError when a source shard is not, or is no longer, what it was when the job was planned.

    What has been read may then be a mixture, or lack what was appended meanwhile.
    """
    if shard.bytes is None:
        return  # a command; nobody knows what it should print
    name = shard_name(shard)
    try:
        now = files_at(shard.base).stat(shard.path)
    except OSError as error:
        raise SourceError(f"{name}: gone while it was read ({error}); restore it and run again") from error
    if not bytes_read == now.bytes == shard.bytes:
        raise SourceError(
            f"{name}: {bytes_read:,} bytes read, {now.bytes:,} now, {shard.bytes:,} when the job began; run again "
            "when nobody writes to it"
        )
    if now.version != shard.version:
        raise SourceError(f"{name}: written anew since the job began; run again when nobody writes to it")


def can_jump(shard: SourceShard) -> bool:
    """Whether a source shard can be read from anywhere: the output of a command is read from its beginning."""
    return not shard.base.startswith(PIPE)


def changed_since_counted(shard: SourceShard) -> SourceError:
    """The error for a source shard with other samples than its index says."""
    return SourceError(
        f"{shard_name(shard)}: holds other samples than when it was counted; run again when nobody writes to it"
    )


def location(shard: SourceShard) -> str:
    """Where a source shard is, the same text however a pattern leads there."""
    if is_url(shard.base) or shard.base.startswith(PIPE):
        return f"{shard.base}/{shard.path}"
    return str(absolute(Path(shard.base, shard.path)))


def absolute(path: str | Path) -> Path:
    """`path` from the root on, without `..`; links stay."""
    # `Path.absolute` keeps `..` and so finds /data/../other/a.tar below /data; `Path.resolve` follows links.
    return Path(os.path.abspath(path))  # noqa: PTH100


@contextlib.contextmanager
def source_errors(location: str) -> Iterator[None]:
    """What goes wrong in reading the source shard at `location` as a SourceError."""
    try:
        yield
    except FileNotFoundError:
        raise SourceError(f"{location}: the source shard is gone; restore it and run again") from None
    except OSError as error:
        raise SourceError(f"{location}: cannot be read: {error}; run again when it can") from error
