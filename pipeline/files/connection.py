"""Requests to an object store: repeated while that may help, with newer credentials where the old ones have ended."""

import errno
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import ClassVar, TypeVar

from obstore import exceptions
from obstore.store import ObjectStore

from pipeline.errors import VqtokError
from pipeline.files.clients import Client, make_client
from pipeline.files.refusals import Refusal, is_missing_bucket, refusal_of
from pipeline.storage import Storage

T = TypeVar("T")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 15.0


def growing_pauses(draws: random.Random | None = None) -> Iterator[float]:
    """Seconds between tries, each drawn from all up to twice the bound before: processes that failed together do not
    come again together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter, full jitter)."""
    draws, bound = draws or random.Random(), _FIRST_PAUSE_S
    while True:
        yield draws.uniform(0, bound)
        bound = min(2 * bound, _LONGEST_PAUSE_S)


class Connection:
    """What all requests below a URL go through. Made when it is first used, in the process that uses it."""

    _network_pid: ClassVar[int | None] = None
    """The process that made the first client, and with it the network threads of all."""

    def __init__(self, url: str, storage: Storage) -> None:
        self._url = url
        self._storage = storage
        self._lock = threading.Lock()
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """Raises ConfigError as `make_client` does, and VqtokError in a process that was forked from one with such
        threads."""
        Connection._network_pid = Connection._network_pid or os.getpid()
        if Connection._network_pid != os.getpid():
            raise VqtokError(
                f"{self._url}: this process was forked from one that has an object store open, and its network "
                "threads do not survive that; start worker processes with spawn or forkserver "
                "(multiprocessing_context='spawn' of a DataLoader)"
            )
        with self._lock:
            if self._client is None:
                self._client = make_client(self._url, self._storage)
            return self._client

    def ask(self, path: str, request: Callable[[ObjectStore], T], in_several: bool = False) -> T:
        """The answer to a request that may be made again.

        Args:
            in_several: whether it may take more than one request of the protocol, such as a list of many pages.

        Raises FileNotFoundError, FileExistsError, and Refusal for all else.
        """
        url, started, renewed, pauses = f"{self._url}/{path}", time.monotonic(), False, growing_pauses()
        while True:
            client = self.client
            key = client.key
            try:
                return request(client.patient if in_several else client.plain)
            except (exceptions.BaseError, FileNotFoundError) as error:
                seconds = time.monotonic() - started
                refusal = _translated(error, url, seconds)
            if not renewed and self._renew(refusal, client, key):
                renewed = True
                continue
            pause = next(pauses)
            if _is_final(refusal) or seconds + pause > self._storage.patience_s:
                raise refusal
            time.sleep(pause)

    def _renew(self, refusal: OSError, client: Client, key: str) -> bool:
        """Whether the request may be let through now, with other credentials."""
        if not isinstance(refusal, Refusal) or not refusal.needs_credentials:
            return False
        if not client.has_newer(key, refusal.have_ended):
            return False
        with self._lock:
            if self._client is client:  # and no other thread has made it anew
                # A new one, for the old one keeps its credentials for a while.
                self._client = make_client(self._url, self._storage, client.credentials)
        return True


def _translated(error: BaseException, url: str, seconds: float) -> OSError:
    if isinstance(error, FileNotFoundError | exceptions.NotFoundError) and not is_missing_bucket(error):
        return FileNotFoundError(errno.ENOENT, "no such object", url)
    if isinstance(error, exceptions.AlreadyExistsError):
        return FileExistsError(errno.EEXIST, "the object is already there", url)
    if isinstance(error, exceptions.PreconditionError):
        return OSError(errno.ESTALE, "it was replaced while it was read", url)
    return refusal_of(error, url, seconds)


def _is_final(error: OSError) -> bool:
    if isinstance(error, FileExistsError):
        return False  # S3 says so of two writers at once, too, of whom neither has written
    return error.is_final if isinstance(error, Refusal) else True
