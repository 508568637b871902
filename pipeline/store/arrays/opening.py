"""How the arrays of a store are opened: mapped where that can be, else read in ranges."""

import contextlib
import os
from collections.abc import Iterable
from functools import lru_cache, partial
from typing import BinaryIO, TypedDict

import numpy as np

from pipeline.files import Files, LocalFiles
from pipeline.overlap import Turns
from pipeline.store.arrays.chunk_file import chunk_file
from pipeline.store.arrays.chunk_format import ChunkFormat
from pipeline.store.arrays.chunked import ChunkedArray, Damage
from pipeline.store.arrays.mapped import MappedArray, RangedArray
from pipeline.store.arrays.stored_array import StoredArray
from pipeline.store.cache.parts import PartCache
from pipeline.store.cache.records import file_records
from pipeline.store.memory.memory_map import NotMapped, map_file
from pipeline.store.schema import names
from pipeline.store.schema.commits import FileRecord

# Parts of whose files the records are kept in memory; those of others are read from the cache.
_RECORDS = 256
_THREADS = min(4, os.cpu_count() or 1)
# A server answers after tens of milliseconds, whatever it is asked for, and any number of requests at once. What comes
# into a cache is fetched in threads of its own, besides.
_THREADS_AFAR, _THREADS_CACHED = 48, 8
_MERGED_BYTES = 4 << 20


class Reading(TypedDict, total=False):
    """Arguments of `Chunks` that depend on where a store is."""

    keep_open: bool
    threads: int
    merged_bytes: int


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
        self._known = lru_cache(_RECORDS)(self._read_records)
        self._turns, self._pid = Turns(), os.getpid()

    @property
    def _is_far(self) -> bool:
        """Whether arrays are read in ranges, a request for each."""
        return self.cache is None and not isinstance(self.files, LocalFiles)

    @property
    def reading(self) -> Reading:
        """How arrays of many parts are best read from here."""
        if isinstance(self.files, LocalFiles):
            return Reading(keep_open=self.cache is None, threads=_THREADS, merged_bytes=0)
        if self.cache is not None:
            return Reading(keep_open=False, threads=_THREADS_CACHED, merged_bytes=0)
        return Reading(keep_open=True, threads=_THREADS_AFAR, merged_bytes=_MERGED_BYTES)

    def array(self, part: str, attempt: str, path: str, stored: StoredArray, whole: bool = False) -> ChunkedArray:
        """The array at `path` in the group of an attempt, which was written as `stored` says.

        A damaged copy in the cache is thrown away and fetched again.

        Args:
            whole: all of it is going to be read.

        Raises Damage, CorruptStore, and OSError where files cannot be had.
        """
        try:
            if self._is_far and (supposed := ChunkFormat.supposed(stored)) is not None:
                return self._ranged(f"{names.PARTS}/{names.attempt(part, attempt)}/{path}", supposed, whole)
            return self._array(part, attempt, path, stored)
        except Damage:
            again = self.again(part, attempt, path, stored)
            if again is None:
                raise
            return again

    def again(self, part: str, attempt: str, path: str, stored: StoredArray) -> ChunkedArray | None:
        """The same array, fetched anew: what was read of it is damaged, and may be so only in the cache or on its way.

        None where it was read where it lies. Raises as `array` does.
        """
        if self.cache is None:
            return self._array(part, attempt, path, stored) if self._is_far else None
        folder = f"{names.PARTS}/{names.attempt(part, attempt)}"
        try:
            for name, record in self._records_of(part, attempt, path).items():
                self.cache.discard(self.files, f"{folder}/{name}", record)
        except OSError:  # a folder that is read-only now
            return self._past_cache(part, attempt, path, stored)
        return self._array(part, attempt, path, stored)

    def fetch(self, attempts: Iterable[tuple[str, str]], path: str) -> None:
        """Begin to copy the files of one array of some parts into the cache, if there is one; returns at once."""
        if self.cache is not None:
            self.cache.later([partial(self._bring, self.cache, part, attempt, path) for part, attempt in attempts])

    def _bring(self, cache: PartCache, part: str, attempt: str, path: str) -> None:
        folder = f"{names.PARTS}/{names.attempt(part, attempt)}"
        with contextlib.suppress(Exception):  # whatever it is, `array` meets it again
            for name, record in self._records_of(part, attempt, path).items():
                cache.bring(self.files, f"{folder}/{name}", record)

    def _array(self, part: str, attempt: str, path: str, stored: StoredArray) -> ChunkedArray:
        try:
            with self._file(part, attempt, f"{path}/zarr.json") as file:
                chunk_format = ChunkFormat.of(file.read(), stored)
            if not chunk_format.chunks:
                return MappedArray(chunk_format, np.empty(0, np.uint8))
            with self._data(part, attempt, f"{path}/{chunk_file(stored.dimensions)}") as file:
                return MappedArray(chunk_format, map_file(file), self.check_always)
        except NotMapped:
            return self._past_cache(part, attempt, path, stored)

    def _past_cache(self, part: str, attempt: str, path: str, stored: StoredArray) -> ChunkedArray:
        """An array that is read where it lies, in ranges."""
        place = f"{names.PARTS}/{names.attempt(part, attempt)}/{path}"
        return self._ranged(place, ChunkFormat.of(self.files.read(f"{place}/zarr.json"), stored))

    def _ranged(self, place: str, chunk_format: ChunkFormat, whole: bool = False) -> ChunkedArray:
        if not chunk_format.chunks:
            return MappedArray(chunk_format, np.empty(0, np.uint8))
        data = f"{place}/{chunk_file(chunk_format.stored.dimensions)}"
        try:
            return RangedArray(chunk_format, self.files, data, self.check_always, _MERGED_BYTES if whole else 0)
        except FileNotFoundError:
            raise Damage("its chunk file is missing") from None

    def _data(self, part: str, attempt: str, path: str) -> BinaryIO:
        try:
            return self._file(part, attempt, path)
        except FileNotFoundError:
            raise Damage("its chunk file is missing") from None

    def _file(self, part: str, attempt: str, path: str) -> BinaryIO:
        """A file that is here, or a copy of it. Raises NotMapped where there is neither."""
        whole = f"{names.PARTS}/{names.attempt(part, attempt)}/{path}"
        if self.cache is not None:
            if path not in (records := self._records(part, attempt)):
                raise FileNotFoundError(path)
            file = self.cache.open_if_room(self.files, whole, records[path])
        else:
            file = self.files.open(whole) if isinstance(self.files, LocalFiles) else None
        if file is None:
            raise NotMapped(whole)
        return file

    def _records_of(self, part: str, attempt: str, path: str) -> dict[str, FileRecord]:
        """What the commit says of the files of one array, by path in the group."""
        return {name: record for name, record in self._records(part, attempt).items() if name.startswith(f"{path}/")}

    def _records(self, part: str, attempt: str) -> dict[str, FileRecord]:
        """What the commit says of the files of an attempt, by path; read by the first of several threads."""
        if self._pid != os.getpid():  # what another thread held when this process was forked stays held
            self._turns, self._pid = Turns(), os.getpid()
        with self._turns.of(part):
            return self._known(part, attempt)

    def _read_records(self, part: str, attempt: str) -> dict[str, FileRecord]:
        assert self.cache is not None
        return {record.path: record for record in file_records(self.cache, self.files, part, attempt)}
