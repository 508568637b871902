"""Where the samples of the source shards are, kept in the tokenizer folder: a resumed training does not count anew."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import SourceConfig
from pipeline.files import LocalFiles
from pipeline.records import SourceShard, digest_of
from pipeline.source.containers.access import ShardIndex
from pipeline.source.shards.find import location

FILE = "source-index.npz"


class IndexCache:
    """Indexes of files and objects. The output of a command may be another one each time, so it is not kept."""

    def __init__(self, folder: Path, source: SourceConfig) -> None:
        self._files = LocalFiles(folder)
        self._source = source
        self._starts = self._load()
        self._known = len(self._starts)

    def find(self, shard: SourceShard) -> ShardIndex | None:
        """The index of a source shard that has not been written anew since."""
        starts = self._starts.get(self._name(shard))
        return None if starts is None else ShardIndex(len(starts) - 1, starts)

    def save(self, shards: Sequence[SourceShard], indexes: Sequence[ShardIndex | None]) -> None:
        """Keep these, too."""
        for shard, index in zip(shards, indexes, strict=True):
            if index is not None and index.starts is not None:
                self._starts[self._name(shard)] = index.starts
        if len(self._starts) > self._known:
            file = io.BytesIO()
            arrays: Any = self._starts
            np.savez(file, **arrays)
            self._files.put(FILE, file.getvalue())
            self._known = len(self._starts)

    def _name(self, shard: SourceShard) -> str:
        # All that decides whether counting would come to the same, with the same strictness.
        return digest_of([location(shard), shard.bytes, shard.version, self._source.allow_unterminated])

    def _load(self) -> dict[str, np.ndarray]:
        try:
            with np.load(io.BytesIO(self._files.read(FILE)), allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return {}  # missing or damaged: they are counted again
