"""Object stores: Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure; plain HTTP for reading.

obstore (bindings of the Rust crate object_store) does the requests: it retries with backoff what the server
or the network broke off, and sends large objects in parts. Its errors become OSError here.
"""

import contextlib
import errno
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, TypeVar, cast

import obstore
from obstore import exceptions
from obstore.store import ObjectStore

from pipeline.files.base import Stat, TooLarge
from pipeline.files.clients import refuse_url
from pipeline.files.connection import Connection
from pipeline.files.refusals import may_be_done
from pipeline.storage import Storage

T = TypeVar("T")

# Large enough that the time between two requests does not matter, small enough for many streams at once.
_BLOCK_BYTES = 8 << 20

# obstore sends what is larger in parts.
_ONE_PUT_BYTES = 5 << 20


class ObjectFiles:
    """`Files` below a URL. There are no folders: a path with files below it counts as one.

    Raises ConfigError for a URL that cannot be one of an object store.
    """

    def __init__(self, url: str, storage: Storage | None = None) -> None:
        refuse_url(url)
        self.root = url.rstrip("/")
        self._storage = storage or Storage()
        self._connection = Connection(self.root, self._storage)

    def __reduce__(self) -> tuple[type["ObjectFiles"], tuple[str, Storage]]:
        return ObjectFiles, (self.root, self._storage)  # another process makes a client of its own

    @property
    def client(self) -> ObjectStore:
        """The obstore client, with the root as its prefix. Raises as `Connection.client` does."""
        return self._connection.client.plain

    def folders(self, folder: str) -> list[str]:
        return sorted(_name(path) for path in self._level(folder)["common_prefixes"])

    def names(self, folder: str) -> list[str]:
        return self.list(folder)  # there are no folders in the place of objects

    def list(self, folder: str) -> list[str]:
        return sorted(_name(entry["path"]) for entry in self._level(folder)["objects"])

    def stat(self, path: str) -> Stat:
        return self.request(path, lambda client: _stat(obstore.head(client, path)))

    def stats(self, folder: str) -> dict[str, Stat]:
        def listed(client: ObjectStore) -> dict[str, Stat]:
            pages = obstore.list(client, prefix=folder or None)
            return {entry["path"][prefix:]: _stat(entry) for page in pages for entry in page}

        prefix = len(folder) + 1 if folder else 0
        return self.request(folder, listed, in_several=True)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        if not start and length is None:
            return self.request(path, lambda client: bytes(obstore.get(client, path).bytes()))
        size = self.stat(path).bytes
        end = size if length is None else min(start + length, size)
        if start >= end:
            return b""
        return self.request(path, lambda client: bytes(obstore.get_range(client, path, start=start, end=end)))

    def fetch(self, path: str, most: int | None = None) -> tuple[bytes, Stat]:
        def fetched(client: ObjectStore) -> tuple[bytes | None, Stat]:
            answer = obstore.get(client, path)
            stat = _stat(answer.meta)
            return None if most is not None and stat.bytes > most else bytes(answer.bytes()), stat

        data, stat = self.request(path, fetched)
        if data is None:
            raise TooLarge(stat, most or 0, f"{self.root}/{path}")
        return data, stat

    def open(self, path: str, start: int = 0, length: int | None = None) -> BinaryIO:
        return cast(BinaryIO, _Stream(self, path, start, length))

    def put(self, path: str, data: bytes, durable: bool = True) -> None:
        self.request(path, lambda client: obstore.put(client, path, data), in_several=len(data) > _ONE_PUT_BYTES)

    def put_if_absent(self, path: str, data: bytes, durable: bool = True) -> bool:
        def created(client: ObjectStore) -> bool:
            try:
                obstore.put(client, path, data, mode="create", use_multipart=False)
                return True
            except (exceptions.BaseError, FileNotFoundError) as error:
                if not may_be_done(error):
                    raise
                refused = error
            # A reply can be lost after the object was written; "already there" is also said of a conflict
            # (HTTP 409) in which nobody's bytes were written. What is there now decides.
            try:
                return bytes(obstore.get(client, path).bytes()) == data
            except FileNotFoundError:
                raise refused from None

        return self.request(path, created)

    def put_folder(self, folder: str, contents: Mapping[str, bytes], staging: str) -> dict[str, Stat]:
        for path, data in contents.items():
            self.put(f"{folder}/{path}", data)
        return self.stats(folder)

    def delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.request(path, lambda client: obstore.delete(client, path))

    def delete_folder(self, folder: str) -> None:
        if paths := [f"{folder}/{path}" for path in self.stats(folder)]:
            self.request(folder, lambda client: obstore.delete(client, paths), in_several=True)

    def request(self, path: str, ask: Callable[[ObjectStore], T], in_several: bool = False) -> T:
        """The answer to a request that may be made again; see `Connection.ask`."""
        return self._connection.ask(path, ask, in_several)

    def _level(self, folder: str) -> Any:
        return self.request(folder, lambda client: obstore.list_with_delimiter(client, folder or None), in_several=True)


class _Stream:
    """One object, or a stretch of it, read forward, the next block already on its way."""

    def __init__(self, files: ObjectFiles, path: str, start: int, length: int | None) -> None:
        self._files = files
        self._path = path
        stat = files.stat(path)
        self._stop = stat.bytes if length is None else min(start + length, stat.bytes)
        # A weak entity tag never matches: https://datatracker.ietf.org/doc/html/rfc9110#section-13.1.1
        self._same = {} if not stat.etag or stat.etag.startswith("W/") else {"if_match": stat.etag}
        self._buffer = b""
        self._position = 0
        self._requested = start
        self._fetcher = ThreadPoolExecutor(1, "fetch")
        self._next = self._request()

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read(self, size: int = -1) -> bytes:
        pieces = []
        left = self._stop if size < 0 else size
        while left:
            if self._position == len(self._buffer):
                if self._next is None:
                    break
                self._buffer, self._position = self._next.result(), 0
                self._next = self._request()
            piece = self._buffer[self._position : self._position + left]
            self._position += len(piece)
            left -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        self._fetcher.shutdown(cancel_futures=True)

    def _request(self) -> Future[bytes] | None:
        start = self._requested
        if start >= self._stop:
            return None
        self._requested = min(start + _BLOCK_BYTES, self._stop)
        return self._fetcher.submit(self._fetch, start, self._requested)

    def _fetch(self, start: int, end: int) -> bytes:
        options: Any = {"range": (start, end), **self._same}
        data = self._files.request(
            self._path, lambda client: bytes(obstore.get(client, self._path, options=options).bytes())
        )
        if len(data) != end - start:
            raise OSError(errno.EIO, f"{len(data):,} of {end - start:,} bytes from byte {start:,} on", self._path)
        return data


def _stat(meta: Any) -> Stat:
    return Stat(meta["size"], meta["last_modified"].isoformat(), meta["e_tag"])


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
