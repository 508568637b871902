"""Any rows of a store, gathered from the chunks of its parts.

    row numbers ──▶ chunks, mapped or decoded ──▶ the offset of each row in `space` ──▶ one gather

Rows lie in many files and many buffers. All of these lie in one range of addresses, from which numpy gathers rows in
one call.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np

from pipeline.store.arrays.chunks import Chunks
from pipeline.store.arrays.located import Located
from pipeline.store.arrays.opening import Reading
from pipeline.store.arrays.parts import Part
from pipeline.store.memory.space import space
from pipeline.store.types import Array


class RowArray:
    """One array of all parts of a store, as if it were one.

    Args:
        parts: the parts, in order.
        path: of the array in each part.
        dtype: of its elements.
        row_shape: of a row.
        in_pieces: whether a row is gathered one piece at a time, those of its first dimension.
        cache_bytes, check_always, reading: how chunks are read and kept, see `Chunks`.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        path: str,
        dtype: str,
        row_shape: tuple[int, ...] = (),
        in_pieces: bool = False,
        cache_bytes: int = 1 << 28,
        check_always: bool = False,
        **reading: Unpack[Reading],
    ) -> None:
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._row_bytes = self._dtype.itemsize * int(np.prod(row_shape))
        self._row_shape = row_shape
        pieces, self._piece_shape = (row_shape[0], row_shape[1:]) if in_pieces else (1, row_shape)
        self._piece_bytes = self._row_bytes // pieces
        self._piece, self._row = np.dtype((np.void, self._piece_bytes)), np.dtype((np.void, self._row_bytes))
        self._chunks = Chunks(parts, path, self._row_bytes, cache_bytes, check_always, **reading)
        self.chunk_starts = self._chunks.starts
        """int64 [chunks + 1]: chunk i holds the rows chunk_starts[i] to chunk_starts[i + 1]; none crosses parts."""

    def gather(self, located: Located) -> Array:
        """The rows, [n, *row_shape], a copy; of rows in pieces the first one of each, [n, *row_shape[1:]]."""
        rows = space.gather(located.offsets, self._piece)
        return rows.view(self._dtype).reshape(len(located), *self._piece_shape)

    def gather_whole(self, located: Located) -> Array:
        """The rows with all of their pieces, [n, *row_shape], a copy."""
        return space.gather(located.offsets, self._row).view(self._dtype).reshape(len(located), *self._row_shape)

    def at_pieces(self, located: Located, pieces: int | Array) -> Located:
        """The same rows from another piece on, or from those of int64 [n]: what `gather` then gives.

        Each must be one that rows have.
        """
        if isinstance(pieces, int) and pieces == 0:
            return located
        return replace(located, offsets=located.offsets + pieces * self._piece_bytes)

    def locate(self, rows: Array) -> Located:
        """Map or decode the chunks of int64 [n] row numbers, all within the store.

        Safe to call from several threads. Raises CorruptStore naming part, chunk and remedy; StoreError where a
        file cannot be had.
        """
        origins, memory = self._chunks.origins(self._chunks.of_rows(rows))
        return Located(rows, origins + rows * self._row_bytes, memory)

    def read_ahead(self, rows: Array) -> None:
        """Have the operating system read the mapped chunks of int64 [n] rows, one in each, if it has dropped them.

        Returns at once. Where they are in memory still it takes some microseconds: a sample of the chunks is looked at.
        """
        self._chunks.read_ahead(self._chunks.of_rows(rows))

    def begin_runs(self, starts: Array, lengths: Array) -> Callable[[], Located]:
        """Begin to map or decode runs of consecutive rows, int64 [runs] each, every one within a chunk.

        Returns at once what waits for them, and raises then what `locate` raises.
        """
        wait = self._chunks.begin(self._chunks.of_rows(starts))

        def located() -> Located:
            origins, memory = wait()
            first = starts - (np.cumsum(lengths) - lengths)  # row of each run, less its place among all rows
            rows, offsets = np.repeat(first, lengths), np.repeat(origins + first * self._row_bytes, lengths)
            places = np.arange(len(rows))
            rows += places
            places *= self._row_bytes  # in place, for the pages of fresh arrays take longer than the sums
            offsets += places
            return Located(rows, offsets, memory)

        return located
