"""Parts of objects: one request for each, which also tells the size of the whole and its entity tag."""

import errno
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import obstore
from obstore import exceptions
from obstore.store import ObjectStore

from pipeline.files.base import Stat

T = TypeVar("T")

# Large enough that the time between two requests does not matter, small enough for many streams at once.
_BLOCK_BYTES = 8 << 20


class Asking(Protocol):
    """What makes requests below a URL, with patience."""

    root: str

    def request(self, path: str, ask: Callable[[ObjectStore], T], in_several: bool = False) -> T:
        """The answer to a request that may be made again; or to several requests. Raises OSError."""


def stat_of(meta: Any) -> Stat:
    """What an answer says of an object."""
    return Stat(meta["size"], meta["last_modified"].isoformat(), meta["e_tag"])


def read_range(files: Asking, path: str, start: int, end: int | None, etag: str | None = None) -> tuple[bytes, Stat]:
    """Bytes `start` to `end`, fewer only where the object ends, and what is known of it. Raises FileNotFoundError.

    Args:
        etag: what the object must still be; other contents are an OSError.
    """
    # A weak entity tag never matches: https://datatracker.ietf.org/doc/html/rfc9110#section-13.1.1
    same = {} if not etag or etag.startswith("W/") else {"if_match": etag}
    options: Any = {"range": {"offset": start} if end is None else (start, end), **same}

    def ask(client: ObjectStore) -> tuple[bytes, Stat]:
        try:
            answer = obstore.get(client, path, options=options)
            return bytes(answer.bytes()), stat_of(answer.meta)
        except exceptions.BaseError as error:
            if not _is_of_range(error):
                raise
            stat = stat_of(obstore.head(client, path))
            if start < stat.bytes:
                raise
            return b"", stat

    return files.request(path, ask)


def read_end(files: Asking, path: str, length: int) -> tuple[bytes, int]:
    """The last `length` bytes, all of a shorter object, and the size of the object. Raises FileNotFoundError."""
    if files.root.startswith(("az:", "abfs")):  # which have no such request
        size = files.request(path, lambda client: stat_of(obstore.head(client, path))).bytes
        return read_range(files, path, max(size - length, 0), size)[0] if size else b"", size
    options: Any = {"range": {"suffix": length}}

    def ask(client: ObjectStore) -> tuple[bytes, int]:
        try:
            answer = obstore.get(client, path, options=options)
            return bytes(answer.bytes()), answer.meta["size"]
        except exceptions.BaseError as error:
            if not _is_of_range(error) or stat_of(obstore.head(client, path)).bytes:
                raise
            return b"", 0

    return files.request(path, ask)


def _is_of_range(error: exceptions.BaseError) -> bool:
    """Whether an error may be that of a range behind the end, of which an empty object has no other."""
    text = str(error)
    return "416" in text or "range" in text.lower()


class ObjectStream:
    """One object, or a stretch of it, read forward, the next block already on its way.

    The first answer tells what the object is; all others must be of the same contents.
    """

    def __init__(self, files: Asking, path: str, start: int, length: int | None) -> None:
        self._files = files
        self._path = path
        self._stop = None if length is None else start + length
        self._etag: str | None = None
        self._buffer = b""
        self._position = 0
        self._requested = start
        self._fetcher = ThreadPoolExecutor(1, "fetch")
        self._next = self._request()

    def __enter__(self) -> "ObjectStream":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read(self, size: int = -1) -> bytes:
        pieces = []
        while size:
            if self._position == len(self._buffer):
                if self._next is None:
                    break
                self._buffer, self._position = self._next.result(), 0
                self._next = self._request()
            piece = self._buffer[self._position :] if size < 0 else self._buffer[self._position : self._position + size]
            self._position += len(piece)
            size -= len(piece) if size > 0 else 0
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        self._fetcher.shutdown(cancel_futures=True)

    def _request(self) -> "Future[bytes] | None":
        start = self._requested
        if self._stop is not None and start >= self._stop:
            return None
        end = start + _BLOCK_BYTES if self._stop is None else min(start + _BLOCK_BYTES, self._stop)
        self._requested = end
        return self._fetcher.submit(self._fetch, start, end)

    def _fetch(self, start: int, end: int) -> bytes:
        data, stat = read_range(self._files, self._path, start, end, self._etag)
        if self._stop is None or self._etag is None:
            self._etag = stat.etag
            self._stop = stat.bytes if self._stop is None else min(self._stop, stat.bytes)
        wanted = max(0, min(end, self._stop) - start)
        if len(data) != wanted:
            raise OSError(errno.EIO, f"{len(data):,} of {wanted:,} bytes from byte {start:,} on", self._path)
        return data
