"""The claims of one process."""

import contextlib
import math
import os
import random
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType

from pipeline.claims.record import (
    FOLDER,
    START,
    Claim,
    claim_path,
    claimed_parts,
    is_local_and_gone,
    read_claim,
    version_of,
)
from pipeline.files import Files
from pipeline.files.each import read_each
from pipeline.overlap import within
from pipeline.process.identity import boot_id, describe_process, pid_namespace, process_start

# How long a process that gives up waits for its last writes.
_GOODBYE_SECONDS = 10.0
# The first heartbeat of a claim, soon enough for whoever looks on. Later ones come less often, for in an object store
# each is a request, but six times in the time after which a claim is stale.
_BEAT_SECONDS = 2.0
_SLOWER = 1.5
_TICK_SECONDS = 1.0


@dataclass
class _Held:
    claim: Claim
    written: float = field(default_factory=time.monotonic)
    """When its file was, or would have been, on our monotonic clock."""
    proven: float = -math.inf
    """When the last write that succeeded was begun: the claim was ours then."""
    pause_s: float = _BEAT_SECONDS
    """From `written` to the next heartbeat."""
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
        """This process, unlike any other."""
        return describe_process()

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
            self._files.delete(claim_path(part))
        except (IsADirectoryError, PermissionError):  # Linux says the one of a folder, macOS the other
            self._files.delete_folder(claim_path(part))

    def _create(self, part: str) -> bool:
        claim = Claim(
            part=part,
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            boot_id=boot_id(),
            pid_namespace=pid_namespace(os.getpid()),
            pid=os.getpid(),
            pid_started=process_start(os.getpid()) or 0,
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        # Held before it is written: a signal that arrives in between must not leave a claim that nobody releases.
        held = _Held(claim, pause_s=min(_BEAT_SECONDS, self._timeout_s / 6))
        with self._lock:
            self._held[part] = held
        # A claim that a power cut takes away is that of a process that has ended, so none of its writes are durable.
        if not self._files.put_if_absent(claim_path(part), claim.to_json(), durable=False):
            with self._lock:
                del self._held[part]
            return False
        held.proven = held.written
        return True

    def release(self, part: str) -> None:
        """Give a part back, unless somebody has taken it over meanwhile."""
        with self._lock:
            held = self._held.pop(part, None)
        # A claim that cannot be removed becomes stale, and that is no reason to fail.
        with contextlib.suppress(OSError), self._writing:
            if held is not None and self._is_ours(held):
                self._files.delete(claim_path(part))

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
            version = version_of(self._files.stat(claim_path(part)))
        except FileNotFoundError:
            self._seen.pop(part, None)
            return False
        seen = self._seen.get(part)
        is_known = seen is not None and seen.version == version
        return self._is_live(part, version, seen.claim if seen and is_known else read_claim(self._files, part))

    def others(self) -> set[str]:
        """Parts that other processes claim, live or not, from a single listing."""
        return {part for part in claimed_parts(self._files) if part not in self._held}

    def look(self) -> tuple[set[str], list[str]]:
        """What `others` returns, and the parts of those claims that no longer seem to count, sorted.

        From a single listing: `acquire` looks at each again.
        """
        stats = self._files.stats(FOLDER)
        names = {name.removesuffix(".json"): name for name in sorted(stats) if name.endswith(".json")}
        others = [part for part in names if part not in self._held]
        self._seen = {part: self._seen[part] for part in others if part in self._seen}
        new = [part for part in others if part not in self._seen]
        claims = dict(zip(new, read_each(lambda part: read_claim(self._files, part), new), strict=True))
        claims |= {part: seen.claim for part, seen in self._seen.items()}
        stale = [part for part in others if not self._is_live(part, version_of(stats[names[part]]), claims[part])]
        return {part for part in others if not part.startswith(START)}, stale

    def _is_live(self, part: str, version: str, claim: Claim | None) -> bool:
        now = time.monotonic()
        seen = self._seen.get(part)
        since = seen.since if seen is not None and seen.version == version else now
        self._seen[part] = _Seen(version, since, claim)
        return now - since < self._timeout_s and not (claim is not None and is_local_and_gone(claim))

    def _beat(self) -> None:
        """One claim at a time, so that a process writes as often whatever it holds."""
        while not self._stopped.wait(min(self._timeout_s / 6 / max(len(self._held), 1), _TICK_SECONDS)):
            with self._lock:
                first = min(self._held.values(), key=lambda held: held.written + held.pause_s, default=None)
            if first is not None and time.monotonic() >= first.written + first.pause_s:
                self._beat_once(first)
                first.written = time.monotonic()
                # Processes that began together do not write together for ever.
                first.pause_s = min(_SLOWER * first.pause_s, self._timeout_s / 6) * random.uniform(0.8, 1.0)

    def _beat_once(self, entry: _Held) -> None:
        claim = entry.claim
        try:
            if not self._is_ours(entry):
                return
            beat = claim.model_copy(update={"beats": claim.beats + 1, "images": entry.images, "bytes": entry.bytes})
            with self._writing:
                with self._lock:
                    if self._held.get(claim.part) is not entry:
                        return  # released meanwhile, and perhaps claimed anew
                begun = time.monotonic()
                self._files.put(claim_path(claim.part), beat.to_json(), durable=False)
                entry.claim, entry.proven = beat, begun
        except OSError:
            return  # a full disk ends the job where it writes its parts; a missed beat harms nobody

    def _is_ours(self, held: _Held) -> bool:
        """Whether nobody has taken a claim over. The store is asked only where it has stood still for long enough."""
        if time.monotonic() - held.proven < self._timeout_s / 2:
            return True
        present = read_claim(self._files, held.claim.part)
        return present is not None and present.token == held.claim.token
