"""Claims: who is working on what. They only spare double work; nothing is lost or doubled without them."""

import contextlib
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from pipeline.errors import CorruptStore
from pipeline.files import Files, Stat
from pipeline.files.damage import damaged, naming_no_file
from pipeline.overlap import within
from pipeline.records import Count, Record

_FOLDER = "claims"
START = "~start-"
"""What the claim of processes that start up begins with, then how many they are: no part is called so."""
# How long a process that gives up waits for its last writes.
_GOODBYE_SECONDS = 10.0
# Often enough for a progress bar.
_BEAT_SECONDS = 2.0


class Claim(Record):
    """Contents of `claims/<part>.json`."""

    part: str
    token: str
    """Random, one for every claim."""
    host: str
    boot_id: str
    pid_namespace: str
    """Containers of one host may share its name and boot id, but not the numbers of their processes."""
    pid: int
    pid_started: int
    """Start of the process in clock ticks after boot: process numbers are used again."""
    since: str = ""
    """When it was made, UTC by the clock of its host, ISO 8601. For people; nothing is decided by it."""
    beats: int = 0
    """Counts up while the process lives; its standing still is what makes a claim stale."""
    images: Count = 0
    """Images done, for progress."""
    bytes: Count = 0
    """Bytes of the source shard read, for progress."""


@dataclass
class _Held:
    claim: Claim
    written: float = field(default_factory=time.monotonic)
    """When its file was, or would have been, on our monotonic clock."""
    images: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class _Seen:
    """A claim of another process, as it was when it last changed."""

    version: str
    """Of its file: every heartbeat makes another one."""
    since: float
    """When it was first seen so, on our monotonic clock."""
    claim: Claim | None
    """What it says; None where that cannot be read."""


class Claims:
    """The claims of one process in a store. Use as a context manager: leaving it releases them all.

    Args:
        files: the store.
        timeout_s: seconds after which a claim without a heartbeat is stale, on this process's own
            monotonic clock: other hosts' clocks are never compared.
    """

    def __init__(self, files: Files, timeout_s: float) -> None:
        self._files = files
        self._timeout_s = timeout_s
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()
        # Held while a heartbeat is written or a claim deleted: a beat that is late must not revive a claim. It is
        # another lock because a distant store takes its time, and `progress` is called between two batches.
        self._writing = threading.Lock()
        self._seen: dict[str, _Seen] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    @property
    def owner(self) -> str:
        """This process, unlike any other: its host, boot, number and start."""
        pid = os.getpid()
        return f"{socket.gethostname()} {_boot_id()} {_pid_namespace(pid)} {pid} {_process_start(pid)}"

    def __enter__(self) -> "Claims":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if error is None:
            self._thread.join()
            self.release_all()
        else:  # it may be the store that does not answer, and what is not released becomes stale
            within(_GOODBYE_SECONDS, self._thread.join, self.release_all)

    def acquire(self, part: str) -> bool:
        """Claim a part, taking over a stale claim. Returns whether it is ours now."""
        if part in self._held:
            return False
        if self._create(part):
            return True
        if self.is_live(part):
            return False
        if part in self._seen:
            # A stale claim. Two may come to this line together; the worst that follows is double work.
            self._remove(part)
        return self._create(part)

    def _remove(self, part: str) -> None:
        """Delete a claim that counts no more, even if something else is in its place."""
        try:
            self._files.delete(_path(part))
        except (IsADirectoryError, PermissionError):  # Linux says the one of a folder, macOS the other
            self._files.delete_folder(_path(part))

    def _create(self, part: str) -> bool:
        claim = Claim(
            part=part,
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            boot_id=_boot_id(),
            pid_namespace=_pid_namespace(os.getpid()),
            pid=os.getpid(),
            pid_started=_process_start(os.getpid()) or 0,
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        # Held before it is written: a signal that arrives in between must not leave a claim that nobody releases.
        with self._lock:
            self._held[part] = _Held(claim)
        # A claim that a power cut takes away is that of a process that has ended, so none of its writes are durable.
        if not self._files.put_if_absent(_path(part), claim.to_json(), durable=False):
            with self._lock:
                del self._held[part]
            return False
        return True

    def release(self, part: str) -> None:
        """Give a part back, unless somebody has taken it over meanwhile."""
        with self._lock:
            held = self._held.pop(part, None)
        # A claim that cannot be removed becomes stale, and that is no reason to fail.
        with contextlib.suppress(OSError), self._writing:
            if held is not None and self._is_ours(held.claim):
                self._files.delete(_path(part))

    def release_all(self) -> None:
        """Give back everything that is held."""
        for part in list(self._held):
            self.release(part)

    def progress(self, part: str, images: int, bytes_read: int) -> None:
        """What the next heartbeat of a held claim tells the others."""
        with self._lock:
            if part in self._held:
                self._held[part].images, self._held[part].bytes = images, bytes_read

    def is_live(self, part: str) -> bool:
        """Whether a claim of another process on `part` counts, as far as this process has seen."""
        try:
            version = _version(self._files.stat(_path(part)))
        except FileNotFoundError:
            self._seen.pop(part, None)
            return False
        return self._is_live(part, version, read_claim(self._files, part))

    def others(self) -> set[str]:
        """Parts that other processes claim, live or not, from a single listing."""
        return {part for part in claimed_parts(self._files) if part not in self._held}

    def look(self) -> tuple[set[str], list[str]]:
        """What `others` returns, and the parts of those claims that no longer seem to count, sorted.

        From a single listing: `acquire` looks at each again.
        """
        stats = self._files.stats(_FOLDER)
        names = {name.removesuffix(".json"): name for name in sorted(stats) if name.endswith(".json")}
        others = [part for part in names if part not in self._held]
        self._seen = {part: self._seen[part] for part in others if part in self._seen}
        stale = []
        for part in others:
            claim = self._seen[part].claim if part in self._seen else read_claim(self._files, part)
            if not self._is_live(part, _version(stats[names[part]]), claim):
                stale.append(part)
        return {part for part in others if not part.startswith(START)}, stale

    def _is_live(self, part: str, version: str, claim: Claim | None) -> bool:
        now = time.monotonic()
        seen = self._seen.get(part)
        since = seen.since if seen is not None and seen.version == version else now
        self._seen[part] = _Seen(version, since, claim)
        return now - since < self._timeout_s and not (claim is not None and is_local_and_gone(claim))

    def _beat(self) -> None:
        """One claim at a time, so that a process writes as often whatever it holds."""
        while not self._stopped.wait(min(self._timeout_s / 6 / max(len(self._held), 1), _BEAT_SECONDS)):
            with self._lock:
                longest_ago = min(self._held.values(), key=lambda held: held.written, default=None)
            if longest_ago is not None:
                self._beat_once(longest_ago)
                longest_ago.written = time.monotonic()

    def _beat_once(self, entry: _Held) -> None:
        claim = entry.claim
        try:
            if not self._is_ours(claim):
                return
            beat = claim.model_copy(update={"beats": claim.beats + 1, "images": entry.images, "bytes": entry.bytes})
            with self._writing:
                with self._lock:
                    if self._held.get(claim.part) is not entry:
                        return  # released meanwhile, and perhaps claimed anew
                self._files.put(_path(claim.part), beat.to_json(), durable=False)
                entry.claim = beat
        except OSError:
            return  # a full disk ends the job where it writes its parts; a missed beat harms nobody

    def _is_ours(self, claim: Claim) -> bool:
        present = read_claim(self._files, claim.part)
        return present is not None and present.token == claim.token


def claimed_parts(files: Files) -> list[str]:
    """Names of all parts with a claim, live or not, sorted, from a single listing."""
    return [name for name in _claimed(files) if not name.startswith(START)]


def claimed_starts(files: Files) -> list[str]:
    """Names of the claims, live or not, of processes that have not begun to work."""
    return [name for name in _claimed(files) if name.startswith(START)]


def _claimed(files: Files) -> list[str]:
    with naming_no_file(files, _FOLDER, "no folder"):
        return [name.removesuffix(".json") for name in files.list(_FOLDER)]


def read_claim(files: Files, part: str) -> Claim | None:
    """The claim on a part, live or not; None where there is none, or none that can be read."""
    try:
        return find_claim(files, part)
    except CorruptStore:
        return None


def find_claim(files: Files, part: str) -> Claim | None:
    """The claim on a part, live or not; None where there is none.

    Raises CorruptStore for one that cannot be read: damaged, or of a later version.
    """
    path = _path(part)
    try:
        with naming_no_file(files, path, "not a claim"):
            return Claim.model_validate_json(files.read(path))
    except FileNotFoundError:
        return None  # released meanwhile
    except ValidationError as error:
        raise damaged(files, path, f"not a claim ({error.errors()[0]['msg']})") from None


def read_claims(files: Files) -> list[Claim]:
    """All claims that can be read, live or not, sorted by part."""
    claims = (read_claim(files, part) for part in claimed_parts(files))
    return [claim for claim in claims if claim is not None]


def is_local_and_gone(claim: Claim) -> bool:
    """Whether the claim's process ran on this host since its last boot, where we could see it, and has ended."""
    return (
        claim.host == socket.gethostname()
        and claim.boot_id == _boot_id() != ""
        and claim.pid_namespace == _pid_namespace(os.getpid())
        and _process_start(claim.pid) != claim.pid_started
    )


def _version(stat: Stat) -> str:
    return f"{stat.bytes} {stat.version}"


def _path(part: str) -> str:
    return f"{_FOLDER}/{part}.json"


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@cache
def _pid_namespace(pid: int) -> str:
    """That of this process, whose number is `pid`: a forked one may be in another."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _process_start(pid: int) -> int | None:
    """Start of a process in clock ticks after boot (field 22 of proc(5) stat), None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])
