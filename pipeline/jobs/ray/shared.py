"""What every node must see as the driver does: configuration, tokenizer, source and store."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import __version__
from pipeline.config import Config
from pipeline.errors import VqtokError
from pipeline.files import Files, LocalFiles, files_at
from pipeline.jobs.plan import Plan
from pipeline.models.tokenizers.registry import tokenizer_identity
from pipeline.records import SourceShard, digest_of
from pipeline.source.shards.identity import source_file
from pipeline.storage import Storage
from pipeline.store.schema import names

# A file system of several machines may show a new file late.
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Shared:
    """What the driver sees. Compared in the first seconds of every task."""

    version: str
    """Of vqtok."""
    config: str
    """Path of the configuration file."""
    config_digest: str
    tokenizer: str
    tokenizer_storage: Storage
    tokenizer_digest: str
    shard: SourceShard
    """One of the source shards."""
    shard_digest: str
    store: str
    store_storage: Storage
    mark: str
    """A file that the driver has made in the store: a folder of the same name on another disk has none."""

    @property
    def files(self) -> Files:
        """The store."""
        return files_at(self.store, self.store_storage)

    def difference(self) -> str | None:
        """What this node does not see, or sees otherwise; None where all is as it should be."""
        if self.version != __version__:
            return f"vqtok {__version__} is installed here, and the driver has {self.version}"
        for name, digest, look in (
            (f"configuration {self.config}", self.config_digest, lambda: _file_digest(self.config)),
            (
                f"tokenizer.path: {self.tokenizer}",
                self.tokenizer_digest,
                lambda: _tokenizer_digest(self.tokenizer, self.tokenizer_storage),
            ),
            (f"source.shards: {self.shard.base}/{self.shard.path}", self.shard_digest, lambda: _digest_of(self.shard)),
            (f"tokenize.store: {self.store}", "", self._find_mark),
        ):
            if reason := _reason(digest, look):
                return f"{name}: {reason}; all nodes need the same one, on a common file system or in an object store"
        return None

    def _find_mark(self) -> str:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                self.files.stat(self.mark)
                return ""
            except FileNotFoundError:
                if time.monotonic() > deadline:
                    raise FileNotFoundError("is another folder here than where the driver runs") from None
                time.sleep(1)


def _reason(digest: str, look: Callable[[], str]) -> str | None:
    try:
        found = look()
    except (OSError, VqtokError) as error:
        return f"cannot be read here ({error})"
    return None if found == digest else "is another one here than where the driver runs"


@contextlib.contextmanager
def shared_by_nodes(config: Config, config_file: str, plan: Plan) -> Iterator[Shared]:
    """What nodes are to see, while there is a mark in the store. Raises VqtokError, OSError."""
    shard = plan.pending[0] if plan.pending else plan.shards[0]
    with _marked(plan.store) as mark:
        yield Shared(
            version=__version__,
            config=config_file,
            config_digest=_file_digest(config_file),
            tokenizer=config.tokenizer.path,
            tokenizer_storage=config.tokenizer.storage,
            tokenizer_digest=_tokenizer_digest(config.tokenizer.path, config.tokenizer.storage),
            shard=shard,
            shard_digest=_digest_of(shard),
            store=config.tokenize.store,
            store_storage=config.tokenize.storage,
            mark=mark,
        )


@contextlib.contextmanager
def _marked(store: Files) -> Iterator[str]:
    mark = names.new_probe()
    store.put(mark, b"", durable=False)
    try:
        yield mark
    finally:
        with contextlib.suppress(OSError):
            store.delete(mark)
            if isinstance(store, LocalFiles):
                store.path(".").rmdir()  # only an empty one: a job that is refused leaves none


def _file_digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _tokenizer_digest(path: str, storage: Storage) -> str:
    return digest_of(tokenizer_identity(path, storage))


def _digest_of(shard: SourceShard) -> str:
    """Of size and beginning; not of the time of the last change, which copies may not have kept."""
    file = source_file(shard)
    return hashlib.sha256(f"{file.bytes} {file.head}".encode()).hexdigest()
