"""Where the bytes of a source shard come from: a file, an object, or the output of a shell command."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import SourceError
from pipeline.files import Files, Readable, files_at, is_url
from pipeline.files.refusals import with_remedy
from pipeline.printing import printable
from pipeline.records import SourceShard
from pipeline.redaction import PIPE
from pipeline.source.shards.command import Command


def source_of(shard: SourceShard) -> Readable:
    """What a source shard is read through: its folder or URL, the command of a `pipe:`, or the file that it lies in."""
    if shard.base.startswith(PIPE):
        return Command(shard.base.removeprefix(PIPE))
    return files_of(shard) if shard.inside is None else InsideFile(shard)


def files_of(shard: SourceShard) -> Files:
    """The place of a source shard that is no command."""
    return files_at(shard.base, shard.storage)


class InsideFile:
    """`Readable` of a source shard that lies in a file."""

    def __init__(self, shard: SourceShard) -> None:
        self._files = files_of(shard)
        self._shard = shard
        self.root = self._files.root

    def open(self, path: str) -> BinaryIO:
        return self._files.open(self._shard.file, self._shard.start, self._shard.bytes)


def shard_name(shard: SourceShard) -> str:
    """What a source shard is called in messages, which end in the store: without the command of a `pipe:`."""
    return printable(f"{source_of(shard).root}/{shard.path}")


def read_bytes(shard: SourceShard, start: int, length: int) -> bytes:
    """`length` bytes of a source shard from `start` on; fewer only where it ends. Raises OSError."""
    assert shard.bytes is not None, "the output of a command is read from its beginning"
    length = min(length, shard.bytes - start) if shard.inside else length
    return files_of(shard).read(shard.file, shard.start + start, length)


def read_forward(shard: SourceShard, start: int, length: int) -> BinaryIO:
    """The same to be read once, forward, and not all at once."""
    return files_of(shard).open(shard.file, shard.start + start, length)


def refuse_changed(shard: SourceShard, bytes_read: int) -> None:
    """Raise SourceError when a source shard is not, or is no longer, what it was when the job was planned.

    What has been read may then be a mixture, or lack what was appended meanwhile.
    """
    if shard.bytes is None:
        return  # a command; nobody knows what it should print
    if shard.listing is not None:
        return  # each file was looked at when it was read
    name = shard_name(shard)
    try:
        now = files_of(shard).stat(shard.file)
    except FileNotFoundError as error:
        raise SourceError(f"{name}: gone while it was read ({error}); restore it and run again") from error
    except OSError as error:
        raise SourceError(f"{name}: {with_remedy(error, 'run again when it can be read')}") from error
    bytes_now = shard.bytes if shard.inside else now.bytes
    if not bytes_read == bytes_now == shard.bytes:
        raise SourceError(
            f"{name}: {bytes_read:,} bytes read, {bytes_now:,} now, {shard.bytes:,} when the job began; run again "
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
        raise SourceError(f"{location}: cannot be read: {with_remedy(error, 'run again when it can')}") from error
