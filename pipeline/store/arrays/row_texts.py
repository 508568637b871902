"""Keys and kept members of any rows of a store."""

import os
import threading
from collections.abc import Sequence

import numpy as np
from cachetools import LRUCache

from pipeline.store.arrays.parts import Part
from pipeline.store.arrays.storage import Texts
from pipeline.store.types import Array

_CACHE_BYTES = 1 << 26

Piece = tuple[Texts, Array | None]
"""Byte strings of the rows of one chunk, and which of them are present."""


class RowTexts:
    """Byte strings of all parts of a store, read and kept in pieces of a chunk of its tokens.

    Args:
        parts: the parts, in order.
        path: of the packed strings in each part: `key` or `fields/<name>`.
        chunk_starts: int64 [chunks + 1], first rows of the chunks; none crosses parts.
        optional: whether rows may have none.
    """

    def __init__(self, parts: Sequence[Part], path: str, chunk_starts: Array, optional: bool) -> None:
        self._parts = parts
        self._path = path
        self._chunk_starts = chunk_starts
        self._optional = optional
        self._part_starts = np.concatenate([[0], np.cumsum([part.rows for part in parts])]).astype(np.int64)
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._pieces: LRUCache[int, Piece] = LRUCache(_CACHE_BYTES, getsizeof=lambda piece: piece[0].data.nbytes)

    def read(self, rows: Array) -> list[bytes | None]:
        """The strings of int64 [n] row numbers, None where a row has none. Raises CorruptStore and StoreError."""
        if os.getpid() != self._pid:  # a lock that another thread held does not survive a fork
            self._begin()
        chunks = self._chunk_starts.searchsorted(rows, side="right") - 1
        pieces = {chunk: self._piece(chunk) for chunk in set(chunks.tolist())}
        local = rows - self._chunk_starts[chunks]
        found: list[bytes | None] = []
        for chunk, row in zip(chunks.tolist(), local.tolist(), strict=True):
            texts, present = pieces[chunk]
            found.append(texts[row] if present is None or present[row] else None)
        return found

    def _piece(self, chunk: int) -> Piece:
        with self._lock:
            piece = self._pieces.get(chunk)
        if piece is None:
            piece = self._read_piece(chunk)
            with self._lock:
                if piece[0].data.nbytes <= self._pieces.maxsize:
                    self._pieces[chunk] = piece
        return piece

    def _read_piece(self, chunk: int) -> Piece:
        first, end = self._chunk_starts[chunk : chunk + 2].tolist()
        number = int(np.searchsorted(self._part_starts, first, side="right")) - 1
        part, start = self._parts[number], int(self._part_starts[number])
        rows = slice(first - start, end - start)
        present = part.read(f"{self._path}/present", rows) if self._optional else None
        return part.texts(self._path, rows.start, rows.stop), present
