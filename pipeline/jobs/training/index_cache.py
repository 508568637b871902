"""Where the samples of the source shards are, kept in the tokenizer folder: a resumed training does not count anew."""

import io
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import SourceConfig
from pipeline.files import LocalFiles
from pipeline.records import SourceShard, digest_of
from pipeline.source.containers.container import ShardIndex

FILE = "source-index.npz"
_SAVING_SHARE = 0.1
"""Of the time of counting, at most, that saving in between may take: all is written each time."""


class IndexCache:
    """Indexes of files and objects. The output of a command may be another one each time, so it is not kept."""

    def __init__(self, folder: Path, source: SourceConfig) -> None:
        self._files = LocalFiles(folder)
        self._source = source
        self._starts = self._load()
        self._saved = self._starts.keys()
        """Names of what the file holds."""
        self._next_save = 0.0

    def find(self, shard: SourceShard) -> ShardIndex | None:
        """The index of a source shard that has not been written anew since."""
        starts = self._starts.get(self._name(shard))
        if starts is None or starts.dtype != np.int64 or starts.ndim > 1:
            return None
        if starts.ndim:
            return ShardIndex(len(starts) - 1, starts) if len(starts) else None
        # Memory is asked for by it, and every sample has a byte.
        return ShardIndex(int(starts), None) if 0 <= int(starts) <= (shard.bytes or 0) else None

    def save(self, shards: Sequence[SourceShard], indexes: Sequence[ShardIndex | None], final: bool = True) -> None:
        """Keep these, and of what was kept before what belongs to one of these source shards.

        Args:
            final: False while counting goes on: then it may be left for later, so as not to take most of the time.
        """
        if not final and time.monotonic() < self._next_save:
            return
        names = [self._name(shard) for shard in shards]
        starts = {name: self._starts[name] for name in names if name in self._starts}
        for shard, name, index in zip(shards, names, indexes, strict=True):
            if index is not None and shard.bytes is not None:
                # A number alone where samples are read from the beginning.
                starts[name] = np.array(index.samples, np.int64) if index.starts is None else index.starts
        self._starts = starts
        if starts.keys() != self._saved:  # a name stands for what was counted
            self._write()

    def _write(self) -> None:
        began = time.monotonic()
        file = io.BytesIO()
        arrays: Any = self._starts
        np.savez(file, **arrays)
        self._files.put(FILE, file.getvalue())
        self._saved = self._starts.keys()
        now = time.monotonic()
        self._next_save = now + (now - began) / _SAVING_SHARE

    def _name(self, shard: SourceShard) -> str:
        # All that decides whether counting would come to the same, with the same strictness. Not the folder: files that
        # are copied to a disk of the node are the same.
        strictness = [self._source.allow_unterminated, *(["regroup"] if self._source.regroup else [])]
        return digest_of([shard.path, shard.bytes, shard.version, *strictness])

    def _load(self) -> dict[str, np.ndarray]:
        try:
            data = self._files.read(FILE)
            _refuse_packed(data)
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile):
            return {}  # missing or damaged: they are counted again


def _refuse_packed(data: bytes) -> None:
    """Raise ValueError for what unpacks to more than is there: numpy stores arrays as they are."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > len(data):
            raise ValueError("it unpacks to more than it has")
