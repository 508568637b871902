"""What hands out source shards to a process. Claims among plain processes are one way; a cluster engine is another."""

from typing import Protocol

from pipeline.records import SourceShard


class ShardQueue(Protocol):
    """The source shards of a job that are left for one process.

    The process asks for one after the other, may have several in work, and tells what became of each. Methods are
    called from several threads, `next` from one at a time. All of them may raise OSError.
    """

    def next(self) -> SourceShard | None:
        """A source shard that nobody else works on; None when there will be none. May wait for others."""

    def progress(self, shard: SourceShard, images: int, bytes_read: int) -> None:
        """How far a source shard is. Called after every batch, so this must not wait."""

    def done(self, shard: SourceShard) -> None:
        """It is committed, by whomever."""

    def failed(self, shard: SourceShard, reason: str) -> None:
        """It stays pending, and is not handed out to this process again."""
