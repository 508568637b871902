"""How the arrays of a store are opened: mapped where that can be, else read in ranges."""

from collections.abc import Iterable
from functools import lru_cache
from typing import BinaryIO

import numpy as np

from pipeline.files import Files, LocalFiles
from pipeline.files.damage import damaged
from pipeline.store.arrays.chunk_file import chunk_file
from pipeline.store.arrays.chunk_format import ChunkFormat
from pipeline.store.arrays.chunked import ChunkedArray, Damage
from pipeline.store.arrays.mapped import MappedArray, RangedArray
from pipeline.store.arrays.stored_array import StoredArray
from pipeline.store.cache.parts import PartCache
from pipeline.store.memory.memory_map import NotMapped, map_file
from pipeline.store.schema import names
from pipeline.store.schema.commits import FileRecord, read_commit


class Opening:
    """Opens the arrays of committed attempts.

    Args:
        files: the store.
        cache: where local copies of its files are kept. Without one, files of a local store are mapped as they are, and
            those of an object store are read in ranges, a request for each.
        check_always: compare checksums whenever a chunk is read, not only the first time.
    """

    def __init__(self, files: Files, cache: PartCache | None = None, check_always: bool = False) -> None:
        self.files = files
        self.cache = cache
        self.check_always = check_always
        self._records = lru_cache(256)(self._read_records)

    def array(self, part: str, attempt: str, path: str, stored: StoredArray) -> ChunkedArray:
        """The array at `path` in the group of an attempt, which was written as `stored` says.

        A damaged copy in the cache is thrown away and fetched again.

        Raises Damage, CorruptStore, and OSError where files cannot be had.
        """
        try:
            return self._array(part, attempt, path, stored)
        except Damage:
            if not self.discard(part, attempt, path):
                raise
            return self._array(part, attempt, path, stored)

    def discard(self, part: str, attempt: str, path: str) -> bool:
        """Delete the copies of an array's files from the cache; whether there is one that may have had them."""
        if self.cache is None:
            return False
        folder = f"{names.PARTS}/{names.attempt(part, attempt)}"
        for name, record in self._records_of(part, path).items():
            self.cache.discard(self.files, f"{folder}/{name}", record)
        return True

    def fetch(self, attempts: Iterable[tuple[str, str]], path: str) -> None:
        """Begin to copy the files of one array of some parts into the cache, if there is one; returns at once."""
        if self.cache is not None:
            for part, attempt in attempts:
                folder = f"{names.PARTS}/{names.attempt(part, attempt)}"
                wanted = self._records_of(part, path).items()
                self.cache.prefetch(self.files, [(f"{folder}/{name}", record) for name, record in wanted])

    def _array(self, part: str, attempt: str, path: str, stored: StoredArray) -> ChunkedArray:
        folder = f"{names.PARTS}/{names.attempt(part, attempt)}"
        with self._open(part, folder, f"{path}/zarr.json") as file:
            chunk_format = ChunkFormat.of(file.read(), stored)
        if not chunk_format.chunks:
            return MappedArray(chunk_format, np.empty(0, np.uint8))
        data = f"{path}/{chunk_file(stored.dimensions)}"
        try:
            if self.cache is None and not isinstance(self.files, LocalFiles):
                return RangedArray(chunk_format, self.files, f"{folder}/{data}", self.check_always)
            with self._open(part, folder, data) as file:
                return MappedArray(chunk_format, map_file(file), self.check_always)
        except NotMapped:
            return RangedArray(chunk_format, self.files, f"{folder}/{data}", self.check_always)
        except FileNotFoundError:
            raise Damage("its chunk file is missing") from None

    def _open(self, part: str, folder: str, path: str) -> BinaryIO:
        if self.cache is None:
            return self.files.open(f"{folder}/{path}")
        records = self._records(part)
        if path not in records:
            raise FileNotFoundError(path)
        return self.cache.open(self.files, f"{folder}/{path}", records[path])

    def _records_of(self, part: str, path: str) -> dict[str, FileRecord]:
        """What the commit says of the files of one array, by path in the group."""
        return {name: record for name, record in self._records(part).items() if name.startswith(f"{path}/")}

    def _read_records(self, part: str) -> dict[str, FileRecord]:
        try:
            return {record.path: record for record in read_commit(self.files, part).files}
        except FileNotFoundError:
            raise damaged(self.files, names.commit(part), "missing, and the manifest speaks of it") from None
