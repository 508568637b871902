"""Object stores: Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure; plain HTTP for reading.

obstore (bindings of the Rust crate object_store) does the requests: it retries with backoff what the server
or the network broke off, and sends large objects in parts. Its errors become OSError here.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, TypeVar, cast

import obstore
from obstore import exceptions
from obstore.store import ObjectStore

from pipeline.files.base import Stat, TooLarge
from pipeline.files.clients import refuse_url
from pipeline.files.connection import Connection
from pipeline.files.object_listing import level
from pipeline.files.object_reading import ObjectStream, read_end, read_range, stat_of
from pipeline.files.object_writing import ONE_PUT_BYTES, put_all
from pipeline.files.refusals import may_be_done
from pipeline.storage import Storage

T = TypeVar("T")


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

    def level(self, folder: str, beginning: str = "") -> dict[str, Stat]:
        return level(self, folder, beginning)

    def stat(self, path: str) -> Stat:
        return self.request(path, lambda client: stat_of(obstore.head(client, path)))

    def stats(self, folder: str) -> dict[str, Stat]:
        def listed(client: ObjectStore) -> dict[str, Stat]:
            pages = obstore.list(client, prefix=folder or None)
            return {entry["path"][prefix:]: stat_of(entry) for page in pages for entry in page}

        prefix = len(folder) + 1 if folder else 0
        return self.request(folder, listed, in_several=True)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        if not start and length is None:
            return self.request(path, lambda client: bytes(obstore.get(client, path).bytes()))
        return read_range(self, path, start, None if length is None else start + length)[0] if length != 0 else b""

    def read_end(self, path: str, length: int) -> tuple[bytes, int]:
        return read_end(self, path, length)

    def fetch(self, path: str, most: int | None = None) -> tuple[bytes, Stat]:
        def fetched(client: ObjectStore) -> tuple[bytes | None, Stat]:
            answer = obstore.get(client, path)
            stat = stat_of(answer.meta)
            return None if most is not None and stat.bytes > most else bytes(answer.bytes()), stat

        data, stat = self.request(path, fetched)
        if data is None:
            raise TooLarge(stat, most or 0, f"{self.root}/{path}")
        return data, stat

    def open(self, path: str, start: int = 0, length: int | None = None) -> BinaryIO:
        return cast(BinaryIO, ObjectStream(self, path, start, length))

    def put(self, path: str, data: bytes, durable: bool = True) -> None:
        self.request(path, lambda client: obstore.put(client, path, data), in_several=len(data) > ONE_PUT_BYTES)

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
        return put_all(self, folder, contents)

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


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
