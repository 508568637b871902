"""A file as it lies there, compressed or not: counted and hashed while it is read."""

import hashlib
from typing import BinaryIO

from pipeline.source.shards.identity import HEAD_BYTES

PIECE_BYTES = 1 << 18
"""Read and hashed at once: hashing little pieces takes longer, and lets go of the interpreter lock for each."""


class RawStream:
    """Reads a stream forward, a piece at a time, and knows what it has read. It cannot seek.

    Args:
        digests: whether `digest` and `head` will be asked for.
    """

    def __init__(self, stream: BinaryIO, digests: bool = True) -> None:
        self._stream = stream
        self._sha256 = hashlib.sha256() if digests else None
        self._head = hashlib.sha256()
        self._ahead = b""
        self.bytes = 0
        """Taken from the stream so far."""

    @property
    def digest(self) -> str:
        """sha256 in hex of all that has been read."""
        assert self._sha256 is not None
        return self._sha256.hexdigest()

    @property
    def head(self) -> str:
        """sha256 in hex of the first HEAD_BYTES, as far as they have been read."""
        return self._head.hexdigest()

    def peek(self, size: int) -> bytes:
        """At least `size` of the bytes that come next, fewer where the stream ends before."""
        while len(self._ahead) < size and (piece := self._next()):
            self._ahead += piece
        return self._ahead

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(PIECE_BYTES), b""))
        data = self._ahead or self._next()
        self._ahead = data[size:]
        return data[:size] if self._ahead else data

    def _next(self) -> bytes:
        piece = self._stream.read(PIECE_BYTES)
        if self._sha256 is not None:
            self._sha256.update(piece)
            if self.bytes < HEAD_BYTES:
                self._head.update(piece[: HEAD_BYTES - self.bytes])
        self.bytes += len(piece)
        return piece
