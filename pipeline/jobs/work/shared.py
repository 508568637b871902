"""What every node must see as the driver of a job does: configuration, tokenizer, source and store."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import __version__
from pipeline.config import Config
from pipeline.errors import VqtokError
from pipeline.files import Files, LocalFiles, files_at
from pipeline.jobs.plan import Plan
from pipeline.models.tokenizers.registry import tokenizer_identity
from pipeline.records import SourceShard, digest_of
from pipeline.source.shards.identity import source_file
from pipeline.store.schema import names

# A file system of several machines may show a new file late.
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Shared:
    """What the driver sees, for a node to compare."""

    version: str
    """Of vqtok."""
    config: Config
    config_file: str
    shard: SourceShard
    """One of the source shards."""
    mark: str
    """A file that the driver has made in the store: a folder of the same name on another disk has none."""
    digests: tuple[str, ...] = ()
    """Of what is looked at, in this order."""

    @property
    def store(self) -> Files:
        """The store."""
        return files_at(self.config.tokenize.store, self.config.tokenize.storage)

    def difference(self) -> str:
        """What this node does not see, or sees otherwise; empty where all is as it should be."""
        if self.version != __version__:
            return f"vqtok {__version__} is installed here, and the driver has {self.version}"
        for (name, look), digest in zip(self.looks(), self.digests, strict=True):
            try:
                reason = "" if look() == digest else "is another one here than where the driver runs"
            except (OSError, VqtokError) as error:
                reason = f"cannot be read here ({error})"
            if reason:
                return f"{name}: {reason}; all nodes need the same one, on a common file system or in an object store"
        return ""

    def looks(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """What there is to see, by the name that a user gave it, and what gives its digest."""
        tokenizer, shard = self.config.tokenizer, self.shard
        yield f"configuration {self.config_file}", lambda: _digest(Path(self.config_file).read_bytes())
        yield (
            f"tokenizer.path: {tokenizer.path}",
            lambda: digest_of(tokenizer_identity(tokenizer.path, tokenizer.storage)),
        )
        yield f"source.shards: {shard.base}/{shard.path}", lambda: _digest_of(shard)
        yield f"tokenize.store: {self.config.tokenize.store}", self._find_mark

    def _find_mark(self) -> str:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                self.store.stat(self.mark)
                return ""
            except FileNotFoundError:
                if time.monotonic() > deadline:
                    raise FileNotFoundError("is another folder here than where the driver runs") from None
                time.sleep(1)


@contextlib.contextmanager
def shared_by_nodes(config: Config, config_file: str, plan: Plan) -> Iterator[Shared]:
    """What nodes are to see, while there is a mark in the store. Raises VqtokError, OSError."""
    shard = plan.pending[0] if plan.pending else plan.shards[0]
    shared = Shared(__version__, config, config_file, shard, names.new_probe())
    plan.store.put(shared.mark, b"", durable=False)
    try:
        yield replace(shared, digests=tuple(look() for _, look in shared.looks()))
    finally:
        with contextlib.suppress(OSError):
            plan.store.delete(shared.mark)
            if isinstance(plan.store, LocalFiles):
                plan.store.path(".").rmdir()  # only an empty one: a job that is refused leaves none


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest_of(shard: SourceShard) -> str:
    """Of size and beginning; not of the time of the last change, which copies may not have kept."""
    file = source_file(shard)
    return _digest(f"{file.bytes} {file.head}".encode())
