"""Data sets of the Hugging Face hub, `hf://datasets/<owner>/<name>/<path>`: for reading, through huggingface_hub.

The library remembers what it has listed, for all jobs of a process; here the hub is asked again.
"""

import contextlib
import errno
import io
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, BinaryIO, NoReturn, cast

from huggingface_hub import HfFileSystem
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from pipeline.errors import ConfigError
from pipeline.files.base import Stat, TooLarge
from pipeline.files.ranges import Ranges
from pipeline.files.secret_urls import refuse_credentials
from pipeline.storage import Storage

SCHEME = "hf"
_BUFFER_BYTES = 8 << 20
_UNSEEN = (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError)
"""The hub tells nobody whether a data set does not exist or is another's."""


class HubFiles:
    """`Files` below a URL of the hub. Writing raises OSError."""

    def __init__(self, url: str, storage: Storage | None = None) -> None:
        refuse_credentials(url)
        self.root = url.rstrip("/")
        self._storage = storage or Storage()
        if self._storage.profile or self._storage.region:
            raise ConfigError(f"{url}: storage.profile and storage.region are for s3://; leave them out")
        self._top = self.root.partition("://")[2]

    def __reduce__(self) -> tuple[type["HubFiles"], tuple[str, Storage]]:
        return HubFiles, (self.root, self._storage)

    @cached_property
    def client(self) -> Any:
        token = False if self._storage.anonymous else None
        return HfFileSystem(endpoint=self._storage.endpoint, token=token)

    def folders(self, folder: str) -> list[str]:
        return sorted(name for name, entry in self._level(folder).items() if entry["type"] == "directory")

    def names(self, folder: str) -> list[str]:
        return sorted(self._level(folder))

    def list(self, folder: str) -> list[str]:
        return sorted(name for name, entry in self._level(folder).items() if entry["type"] == "file")

    def level(self, folder: str, beginning: str = "") -> dict[str, Stat]:
        entries = self._level(folder).items()
        return {name: _stat(entry) for name, entry in entries if entry["type"] == "file" and name.startswith(beginning)}

    def stat(self, path: str) -> Stat:
        with self._translated(path):
            # Without `expand_info` there is no digest.
            entry = self.client.info(self._path(path), refresh=True, expand_info=True)
        if entry["type"] != "file":
            raise FileNotFoundError(errno.ENOENT, "no such file", f"{self.root}/{path}")
        return _stat(entry)

    def stats(self, folder: str) -> dict[str, Stat]:
        top = self._path(folder)
        with self._translated(folder):
            found: dict[str, Any] = self.client.find(top, detail=True, refresh=True)
        return {path[len(top) + 1 :]: _stat(entry) for path, entry in found.items()}

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        end = None if length is None else start + length
        with self._translated(path):  # without a cache, for its own reads 5 MiB ahead of the few bytes of a header
            return bytes(self.client.cat_file(self._path(path), start=start, end=end, cache_type="none"))

    def read_end(self, path: str, length: int) -> tuple[bytes, int]:
        size = self.stat(path).bytes
        return self.read(path, max(size - length, 0)), size

    def fetch(self, path: str, most: int | None = None) -> tuple[bytes, Stat]:
        stat = self.stat(path)
        if most is not None and stat.bytes > most:
            raise TooLarge(stat, most, f"{self.root}/{path}")
        return self.read(path), stat

    def open(self, path: str, start: int = 0, length: int | None = None) -> BinaryIO:
        size = self.stat(path).bytes
        stop = size if length is None else min(start + length, size)
        ranges = Ranges(lambda at, count: self.read(path, start + at, count), max(0, stop - start))
        return cast(BinaryIO, io.BufferedReader(ranges, _BUFFER_BYTES))

    def put(self, path: str, data: bytes, durable: bool = True) -> None:
        self._refuse(path)

    def put_if_absent(self, path: str, data: bytes, durable: bool = True) -> bool:
        self._refuse(path)

    def put_folder(self, folder: str, contents: Mapping[str, bytes], staging: str) -> dict[str, Stat]:
        self._refuse(folder)

    def delete(self, path: str) -> None:
        self._refuse(path)

    def delete_folder(self, folder: str) -> None:
        self._refuse(folder)

    def _refuse(self, path: str) -> NoReturn:
        raise OSError(errno.EROFS, "the hub is for reading here; name another place", f"{self.root}/{path}")

    def _path(self, path: str) -> str:
        return f"{self._top}/{path}" if path else self._top

    def _level(self, folder: str) -> dict[str, Any]:
        try:
            with self._translated(folder):
                entries = self.client.ls(self._path(folder), detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        return {entry["name"].rpartition("/")[2]: entry for entry in entries}

    @contextlib.contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        """Errors of huggingface_hub, and of whatever it speaks HTTP with, as OSError."""
        url = f"{self.root}/{path}"
        try:
            yield
        except FileNotFoundError as error:
            if isinstance(error.__cause__, _UNSEEN):
                reason = "no such data set or revision, or none that you may see"
                raise PermissionError(errno.EACCES, f"{reason}: log in (hf auth login), or set HF_TOKEN", url) from None
            raise FileNotFoundError(errno.ENOENT, "no such file, or nothing that you may see (HF_TOKEN)", url) from None
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise OSError(errno.EIO, f"the hub does not answer: {reason}", url) from error


def _stat(entry: Mapping[str, Any]) -> Stat:
    lfs = entry.get("lfs") or {}
    digest = lfs.get("sha256") or lfs.get("oid") or entry.get("blob_id") or ""
    return Stat(entry["size"], digest, digest or None)
