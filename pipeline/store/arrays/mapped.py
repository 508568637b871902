"""Arrays of format 1: the index of the chunk file parsed once, chunks checked and decoded as they are needed."""

import math
from collections.abc import Iterator

import google_crc32c
import numpy as np

from pipeline.files import Files
from pipeline.store.arrays.chunk_file import CRC_BYTES, index_bytes, places_in, read_index
from pipeline.store.arrays.chunk_format import ChunkFormat
from pipeline.store.arrays.chunked import Damage
from pipeline.store.arrays.decoding import decode
from pipeline.store.memory.buffers import decoded_chunks
from pipeline.store.types import Array

_ENCODED_MORE = 1024
"""By so many bytes a chunk that cannot be compressed becomes longer at most: a header and its crc32c."""


class _ChunkedArray:
    """Reads rows out of the chunks that `_stored` gives."""

    def __init__(self, chunk_format: ChunkFormat, places: Array, check_always: bool) -> None:
        self.shape, self.dtype = chunk_format.shape, chunk_format.stored.dtype
        self._format = chunk_format
        self._compressor = chunk_format.stored.compressor
        self._chunk_shape = (chunk_format.chunk_rows, *self.shape[1:])
        self._chunk_bytes = math.prod(self._chunk_shape) * self.dtype.itemsize
        self._check_always = check_always
        self._places = places
        self._committed = chunk_format.stored.crc32c
        if self._committed is not None and len(self._committed) != len(places):
            raise Damage(f"it has {len(places)} chunks, and was committed with {len(self._committed)}")
        self._checked = np.zeros(len(places), np.bool_)

    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop: a view of the mapped file where chunks are stored as they are and one has them all."""
        rows = self._format.chunk_rows
        chunks = range(start // rows, -(-stop // rows) if stop > start else start // rows)
        stored = zip(chunks, self._stored(chunks), strict=True)
        read = [self._decoded(n, data)[max(start - n * rows, 0) : stop - n * rows] for n, data in stored]
        if len(read) == 1:
            return read[0]
        return np.concatenate(read) if read else np.empty((0, *self.shape[1:]), self.dtype)

    def _stored(self, chunks: range) -> Iterator[Array]:
        """Each of these chunks as it is stored, uint8, its crc32c last."""
        raise NotImplementedError

    def _decoded(self, number: int, stored: Array) -> Array:
        """A whole inner chunk; that of the last one reaches beyond the array."""
        payload = stored[:-CRC_BYTES]
        if self._check_always or not self._checked[number]:
            self._check(number, payload, stored[-CRC_BYTES:])
            self._checked[number] = True
        if self._compressor is None:
            decoded = payload
            if decoded.size != self._chunk_bytes:
                raise Damage(f"chunk {number} has {decoded.size:,} bytes instead of {self._chunk_bytes:,}")
        else:
            try:
                decoded = decode(self._compressor, payload, self._chunk_bytes, self.dtype.itemsize, decoded_chunks.take)
            except (RuntimeError, ValueError) as error:
                raise Damage(f"chunk {number} cannot be decoded ({error})") from error
        return decoded.view(self.dtype).reshape(self._chunk_shape)

    def _check(self, number: int, payload: Array, stored: Array) -> None:
        checksum = google_crc32c.value(payload)
        if checksum != int.from_bytes(stored.tobytes(), "little"):
            raise Damage(f"the checksum of chunk {number} is not that of its contents")
        if self._committed is not None and checksum != self._committed[number]:
            raise Damage(f"chunk {number} is not the one that was committed: sound, and of another file or attempt")


def _chunk_bytes(chunk_format: ChunkFormat) -> int:
    """What an inner chunk takes in its file at most."""
    shape, item_bytes = chunk_format.shape[1:], chunk_format.stored.dtype.itemsize
    return chunk_format.chunk_rows * math.prod(shape) * item_bytes + _ENCODED_MORE


class MappedArray(_ChunkedArray):
    """An array whose chunk file is mapped.

    Args:
        chunk_format: how it is stored.
        data: uint8 [bytes], the chunk file; an array without rows needs none.
        check_always: compare checksums whenever a chunk is read, not only the first time.

    Raises Damage for a chunk file without a sound index, or with other chunks than were committed.
    """

    def __init__(self, chunk_format: ChunkFormat, data: Array, check_always: bool = False) -> None:
        super().__init__(chunk_format, read_index(data, chunk_format.chunks), check_always)
        self._data = data

    @property
    def mapped(self) -> bool:
        """Whether what is read from one chunk is a view of the file."""
        return self._compressor is None

    def _stored(self, chunks: range) -> Iterator[Array]:
        for number in chunks:
            offset, length = self._places[number]
            yield self._data[offset : offset + length]


class RangedArray(_ChunkedArray):
    """An array whose chunk file is not mapped: chunks are asked for, those that lie together in one request.

    The index is asked for together with all before it where the file has but one chunk, or is little and wanted whole:
    this is no further request then.

    Args:
        files: the store.
        path: of the chunk file.
        whole_bytes: up to which size it is read at once.

    Raises as MappedArray does, and OSError where the file cannot be had.
    """

    def __init__(
        self, chunk_format: ChunkFormat, files: Files, path: str, check_always: bool = False, whole_bytes: int = 0
    ) -> None:
        self._files, self._path = files, path
        chunks = chunk_format.chunks
        most = chunks * _chunk_bytes(chunk_format)
        is_read_whole = chunks == 1 or most <= whole_bytes
        data, size = files.read_end(path, index_bytes(chunks) + (most if is_read_whole else 0))
        end = np.frombuffer(data, np.uint8)
        super().__init__(chunk_format, places_in(end[-min(index_bytes(chunks), size) :], size, chunks), check_always)
        self._end: tuple[int, Array] | None = (size - end.size, end) if is_read_whole else None
        """Where the end that was read begins, and its bytes, until all chunks have been used."""

    @property
    def mapped(self) -> bool:
        """What is read lies in memory."""
        return False

    def read(self, start: int, stop: int) -> Array:
        rows = super().read(start, stop)
        if self._checked.all():
            self._end = None
        return rows

    def _stored(self, chunks: range) -> Iterator[Array]:
        places = self._places[chunks.start : chunks.stop]
        if not len(places):
            return
        offsets, ends = places[:, 0], places.sum(axis=1)
        if np.array_equal(offsets[1:], ends[:-1]):
            data = self._bytes(int(offsets[0]), int(ends[-1]))
            yield from (
                data[start:end]
                for start, end in (places_of - offsets[0] for places_of in zip(offsets, ends, strict=True))
            )
        else:
            yield from (self._bytes(int(start), int(end)) for start, end in zip(offsets, ends, strict=True))

    def _bytes(self, start: int, end: int) -> Array:
        known = self._end
        if known is not None and known[0] <= start:
            return known[1][start - known[0] : end - known[0]]
        data = self._files.read(self._path, start, end - start)
        if len(data) != end - start:
            raise Damage(f"its chunk file ends before byte {end:,}")
        return np.frombuffer(data, np.uint8)
