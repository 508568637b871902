"""Object stores: Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure; plain HTTP for reading.

obstore (bindings of the Rust crate object_store) does the requests: it retries with backoff what the server
or the network broke off, and sends large objects in parts. Its errors become OSError here.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import cached_property
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import ObjectStore, from_url

from pipeline.errors import ConfigError, VqtokError
from pipeline.files.base import Stat

T = TypeVar("T")

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "http", "https")

RETRY_SECONDS = 180.0
"""How long one request is repeated before the server counts as gone."""

# What came to nothing is tried again after so many seconds.
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)

# Large enough that the time between two requests does not matter, small enough for many streams at once.
_BLOCK_BYTES = 8 << 20

# Where object_store itself finds credentials.
_AWS_NATIVE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)


class ObjectFiles:
    """`Files` below a URL. There are no folders: a path with files below it counts as one.

    Raises ConfigError for a URL that cannot be one of an object store.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.query or parts.fragment or parts.username or parts.password:
            # They may hold secrets, and part names and commit records would carry them on.
            raise ConfigError(
                f"{parts.scheme}://{parts.hostname}{parts.path}: a URL here has no user, query or fragment; "
                "put credentials into the environment"
            )
        if parts.scheme not in SCHEMES:
            raise ConfigError(f"{url}: {parts.scheme}:// cannot be opened; known are {', '.join(SCHEMES)} and folders")
        self.root = url.rstrip("/")
        self._scheme = parts.scheme

    def __reduce__(self) -> tuple[type["ObjectFiles"], tuple[str]]:
        return ObjectFiles, (self.root,)  # another process makes a client of its own

    @property
    def client(self) -> ObjectStore:
        """The obstore client, with the root as its prefix."""
        client, pid = self._client_and_owner
        if pid != os.getpid():
            raise VqtokError(
                f"{self.root}: this process was forked from one that has the object store open, and its network "
                "threads do not survive that; start worker processes with spawn or forkserver "
                "(multiprocessing_context='spawn' of a DataLoader)"
            )
        return client

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
        return self.request(folder, listed)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        if not start and length is None:
            return self.request(path, lambda client: bytes(obstore.get(client, path).bytes()))
        size = self.stat(path).bytes
        end = size if length is None else min(start + length, size)
        if start >= end:
            return b""
        return self.request(path, lambda client: bytes(obstore.get_range(client, path, start=start, end=end)))

    def fetch(self, path: str) -> tuple[bytes, Stat]:
        def fetched(client: ObjectStore) -> tuple[bytes, Stat]:
            answer = obstore.get(client, path)
            return bytes(answer.bytes()), _stat(answer.meta)

        return self.request(path, fetched)

    def open(self, path: str, start: int = 0, length: int | None = None) -> BinaryIO:
        return cast(BinaryIO, _Stream(self, path, start, length))

    def put(self, path: str, data: bytes, durable: bool = True) -> None:
        self.request(path, lambda client: obstore.put(client, path, data))

    def put_if_absent(self, path: str, data: bytes, durable: bool = True) -> bool:
        for pause in (0.0, *_PAUSES):
            time.sleep(pause)
            try:
                with self._translated(path):
                    obstore.put(self.client, path, data, mode="create", use_multipart=False)
                return True
            except PermissionError:
                raise
            except OSError as error:
                refusal = error
            # A reply can be lost after the object was written; "already there" is also said of a conflict
            # (HTTP 409) in which nobody's bytes were written. What is there now decides.
            with contextlib.suppress(FileNotFoundError):
                return self.read(path) == data
        raise refusal

    def put_folder(self, folder: str, contents: Mapping[str, bytes], staging: str) -> dict[str, Stat]:
        for path, data in contents.items():
            self.put(f"{folder}/{path}", data)
        return self.stats(folder)

    def delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.request(path, lambda client: obstore.delete(client, path))

    def delete_folder(self, folder: str) -> None:
        if paths := [f"{folder}/{path}" for path in self.stats(folder)]:
            self.request(folder, lambda client: obstore.delete(client, paths))

    def request(self, path: str, ask: Callable[[ObjectStore], T]) -> T:
        """The answer to a request that may be made again, such as every request here but a creation.

        object_store repeats what fails before an answer begins; an answer that breaks off is repeated here.
        """
        started = time.monotonic()
        for pause in _PAUSES:
            try:
                with self._translated(path):
                    return ask(self.client)
            except (FileNotFoundError, PermissionError):
                raise
            except OSError:
                if time.monotonic() - started > RETRY_SECONDS:
                    raise
            time.sleep(pause)
        with self._translated(path):
            return ask(self.client)

    def _level(self, folder: str) -> Any:
        return self.request(folder, lambda client: obstore.list_with_delimiter(client, folder or None))

    @cached_property
    def _client_and_owner(self) -> tuple[ObjectStore, int]:
        credentials: Any = _aws_credentials(self.root) if self._scheme.startswith("s3") else None
        try:
            client = from_url(
                self.root,
                retry_config={"max_retries": 12, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
                client_options={
                    "allow_http": True,  # the URL or the endpoint says whether it is used
                    "connect_timeout": timedelta(seconds=10),
                    "timeout": timedelta(seconds=60),
                },
                **({"credential_provider": credentials} if credentials else {}),
            )
        except (exceptions.BaseError, ValueError) as error:
            raise ConfigError(f"{self.root}: {_first_line(error)}; see to the URL and the environment") from error
        return client, os.getpid()

    @contextlib.contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        """Errors of obstore as OSError."""
        url = f"{self.root}/{path}"
        try:
            yield
        except (FileNotFoundError, exceptions.NotFoundError):
            raise FileNotFoundError(errno.ENOENT, "no such object", url) from None
        except exceptions.AlreadyExistsError:
            raise FileExistsError(errno.EEXIST, "the object is already there", url) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise PermissionError(errno.EACCES, _first_line(error), url) from error
        except exceptions.PreconditionError:
            raise OSError(errno.EIO, "it was replaced while it was read", url) from None
        except exceptions.BaseError as error:
            raise OSError(errno.EIO, _first_line(error), url) from error


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


def _aws_credentials(url: str) -> object | None:
    """What boto3 finds: ~/.aws with its profiles, roles and sessions, or the machine's own.

    None leaves it to object_store, which knows the variables of the environment.
    """
    if any(variable in os.environ for variable in _AWS_NATIVE):
        return None
    try:
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    try:
        return Boto3CredentialProvider()
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"{url}: no credentials in the environment (AWS_ACCESS_KEY_ID, ...), in ~/.aws or of this machine "
            f"({error}); set AWS_SKIP_SIGNATURE=true for a public bucket"
        ) from None


def _stat(meta: Any) -> Stat:
    return Stat(meta["size"], meta["last_modified"].isoformat(), meta["e_tag"])


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].strip(" :")
