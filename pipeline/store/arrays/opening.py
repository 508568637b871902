"""How the arrays of a store are opened: mapped where that can be, else through zarr-python."""

from collections.abc import Iterable
from functools import lru_cache
from typing import BinaryIO

import numpy as np

from pipeline.files import Files, LocalFiles
from pipeline.store.arrays.chunked import ChunkedArray, Damage, ZarrArray, chunk_file
from pipeline.store.arrays.mapped import ChunkFormat, MappedArray
from pipeline.store.cache.parts import PartCache
from pipeline.store.memory.memory_map import NotMapped, map_file
from pipeline.store.schema import names
from pipeline.store.schema.commits import FileRecord, read_commit


class Opening:
    """Opens the arrays of committed attempts.

    Args:
        files: the store.
        cache: where local copies of its files are kept. Without one, files of a local store are mapped as they are, and
            those of an object store are read through zarr-python, a request for every range.
        check_always: compare checksums whenever a chunk is read, not only the first time.
    """

    def __init__(self, files: Files, cache: PartCache | None = None, check_always: bool = False) -> None:
        self.files = files
        self.cache = cache
        self.check_always = check_always
        self._records = lru_cache(256)(self._read_records)

    def array(self, part: str, attempt: str, path: str) -> ChunkedArray:
        """The array at `path` in the group of an attempt.

        Raises Damage, CorruptStore, and OSError where files cannot be had.
        """
        folder = f"{names.PARTS}/{names.attempt(part, attempt)}"
        if self.cache is None and not isinstance(self.files, LocalFiles):
            return ZarrArray(self.files, f"{folder}/{path}")
        with self._open(part, folder, f"{path}/zarr.json") as file:
            chunk_format = ChunkFormat.of(file.read())
        if chunk_format is None:
            return ZarrArray(self.files, f"{folder}/{path}")
        if not chunk_format.shape[0]:
            return MappedArray(chunk_format, np.empty(0, np.uint8))
        try:
            with self._open(part, folder, f"{path}/{chunk_file(len(chunk_format.shape))}") as file:
                return MappedArray(chunk_format, map_file(file), self.check_always)
        except FileNotFoundError:
            raise Damage("its chunk file is missing") from None
        except NotMapped:
            return ZarrArray(self.files, f"{folder}/{path}")

    def fetch(self, attempts: Iterable[tuple[str, str]], path: str) -> None:
        """Begin to copy the files of one array of some parts into the cache, if there is one; returns at once."""
        if self.cache is not None:
            for part, attempt in attempts:
                folder = f"{names.PARTS}/{names.attempt(part, attempt)}"
                records = self._records(part)
                wanted = [name for name in records if name.startswith(f"{path}/")]
                self.cache.prefetch(self.files, [(f"{folder}/{name}", records[name]) for name in wanted])

    def _open(self, part: str, folder: str, path: str) -> BinaryIO:
        if self.cache is None:
            return self.files.open(f"{folder}/{path}")
        records = self._records(part)
        if path not in records:
            raise FileNotFoundError(path)
        return self.cache.open(self.files, f"{folder}/{path}", records[path])

    def _read_records(self, part: str) -> dict[str, FileRecord]:
        return {record.path: record for record in read_commit(self.files, part).files}
