"""Where the bytes of a source shard come from: a file, an object, or the output of a shell command."""

from pipeline.errors import SourceError
from pipeline.files import Readable, files_at
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


class Opener:
    """Opens source shards one after the other, until another thread wants an end of it."""

    def __init__(self) -> None:
        self._command: Command | None = None
        self._stopped = False

    def source_at(self, base: str) -> Readable:
        """What the source shards at `base` are read through; a command is stopped by `stop`, now or later."""
        source = source_at(base)
        self._command = source if isinstance(source, Command) else None
        if self._stopped and self._command is not None:  # by a thread that saw the one before
            self._command.stop()
        return source

    def stop(self) -> None:
        """End a wait for the output of a command, which may last for ever. Any thread may do so, at any time."""
        self._stopped = True
        if (command := self._command) is not None:
            command.stop()
