"""A progress bar over all processes of a job. What this one does is known here; of the others the store tells."""

import sys
import threading
import time
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import NoReturn

from tqdm import tqdm

from pipeline.claims import Claim, claims_by_version
from pipeline.files import is_url
from pipeline.files.each import read_each
from pipeline.jobs.plan import Plan
from pipeline.jobs.work.pauses import Pauses
from pipeline.jobs.work.shard_queue import ShardQueue
from pipeline.records import SourceShard
from pipeline.store.schema.commits import committed_parts, read_commit

_DRAW_SECONDS = 1.0
# From one look at the store to the next. Where each look takes requests, the first one comes later, and then fewer do.
_LOOK_SECONDS = (1.0, 1.0)
_LOOK_SECONDS_AFAR = (5.0, 15.0)
# A job may have a million commits, and each of its processes may show a bar. So a bar reads a few new commits at each
# look and a limited number in all, and supposes that the others are like those. The last look may use up the limit.
_READS_A_LOOK = 32
_READS = 1000


@dataclass(frozen=True)
class _Look:
    """What the store said of the other processes."""

    committed: AbstractSet[str]
    """All committed parts of the job."""
    images: int = 0
    """Of those that other processes committed since this one began."""
    exact: bool = True
    """Whether that is counted, and not estimated from their bytes."""
    claims: list[Claim] = field(default_factory=list)
    """Those of other processes, as far as they were read."""


class JobProgress:
    """Shows bytes of source shards done and images per second, while used as a context manager."""

    def __init__(self, plan: Plan, enabled: bool) -> None:
        self._plan = plan
        self._enabled = enabled
        self._is_far = is_url(plan.store.root)
        self._bytes = {shard.part: shard.bytes or 0 for shard in plan.shards}
        self._before = frozenset(plan.committed & self._bytes.keys())
        self._images: dict[str, int] = {}
        self._claims: dict[str, tuple[str, Claim | None]] = {}
        self._own: dict[str, tuple[int, int]] = {}
        """Images and bytes done here, of parts that this process works on."""
        self._own_done: dict[str, int] = {}
        """Images of those that it has committed."""
        self._seen = _Look(self._before)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> "JobProgress":
        if self._enabled:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._enabled:
            self._thread.join()

    def of(self, queue: ShardQueue) -> ShardQueue:
        """The same queue; what becomes of the source shards that it hands out is shown, without a question."""
        return _Shown(queue, self)

    def at(self, shard: SourceShard, images: int, bytes_read: int) -> None:
        """How far a source shard is here."""
        self._own[shard.part] = images, bytes_read

    def ended(self, shard: SourceShard, committed: bool) -> None:
        """A source shard is not in work here any more."""
        images, _ = self._own.pop(shard.part, (0, 0))
        if committed:
            self._own_done[shard.part] = images

    def _run(self) -> None:
        bar: tqdm[NoReturn]
        with tqdm(
            total=sum(self._bytes.values()),
            initial=sum(self._bytes[part] for part in self._before),
            desc="tokenize",
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
            file=sys.stderr,
            # A log file wants a line now and then, a terminal wants motion.
            mininterval=0.1 if sys.stderr.isatty() else 10,
        ) as bar:
            pauses = Pauses(*(_LOOK_SECONDS_AFAR if self._is_far else _LOOK_SECONDS))
            looked = time.monotonic()
            next_look = looked + pauses.next_s(looked)
            while not self._stopped.wait(_DRAW_SECONDS):
                if time.monotonic() >= next_look:
                    looked = time.monotonic()
                    self._look(_READS_A_LOOK)
                    next_look = time.monotonic() + pauses.next_s(looked)
                self._show(bar)
            self._look(_READS_A_LOOK if self._is_far else _READS)
            self._show(bar)

    def _look(self, reads: int) -> None:
        """See what the other processes have done, and are at."""
        try:
            committed = frozenset(committed_parts(self._plan.store) & self._bytes.keys())
            images, exact = self._images_of(committed - self._before - {*self._own, *self._own_done}, reads)
            self._seen = _Look(committed, images, exact, self._others(committed))
        except Exception:
            return  # a picture of progress is not worth a failure

    def _images_of(self, parts: AbstractSet[str], reads: int) -> tuple[int, bool]:
        """Images of committed parts, of which at most `reads` more are read, and whether all were read.

        Those of the others are estimated from their bytes.
        """
        new = list(islice(parts - self._images.keys(), max(min(reads, _READS - len(self._images)), 0)))
        seen = read_each(lambda part: read_commit(self._plan.store, part).seen, new)
        self._images |= dict(zip(new, seen, strict=True))
        read, unread = parts & self._images.keys(), parts - self._images.keys()
        counted = sum(self._images[part] for part in read)
        per_byte = counted / max(sum(self._bytes[part] for part in read), 1)
        return counted + round(per_byte * sum(self._bytes[part] for part in unread)), not unread

    def _others(self, committed: AbstractSet[str]) -> list[Claim]:
        """Claims of other processes; of those that have changed a few are read."""
        mine = {*self._own, *self._own_done}
        self._claims = claims_by_version(self._plan.store, self._claims, mine | committed, _READS_A_LOOK)
        return [claim for _, claim in self._claims.values() if claim is not None and claim.part in self._bytes]

    def _show(self, bar: "tqdm[NoReturn]") -> None:
        look, own, own_done = self._seen, dict(self._own), dict(self._own_done)
        committed = look.committed | own_done.keys()
        claims = [claim for claim in look.claims if claim.part not in own and claim.part not in committed]
        images = look.images + sum(own_done.values())
        images += sum(images for images, _ in own.values()) + sum(claim.images for claim in claims)
        bytes_done = sum(self._bytes[part] for part in committed)
        bytes_done += sum(read for _, read in own.values()) + sum(claim.bytes for claim in claims)
        elapsed = bar.format_dict["elapsed"] or 1.0
        done = f"{len(committed)}/{len(self._bytes)} source shards, {'' if look.exact else 'about '}{images:,} images"
        bar.set_postfix_str(f"{done}, {images / elapsed:.0f} images/s", refresh=False)
        bar.update(max(bytes_done - bar.n, 0))


class _Shown:
    """A queue, what becomes of whose source shards a bar is told."""

    def __init__(self, queue: ShardQueue, bar: JobProgress) -> None:
        self._queue = queue
        self._bar = bar

    def next(self) -> SourceShard | None:
        return self._queue.next()

    def progress(self, shard: SourceShard, images: int, bytes_read: int) -> None:
        self._bar.at(shard, images, bytes_read)
        self._queue.progress(shard, images, bytes_read)

    def done(self, shard: SourceShard) -> None:
        self._bar.ended(shard, committed=True)
        self._queue.done(shard)

    def failed(self, shard: SourceShard, reason: str) -> None:
        self._bar.ended(shard, committed=False)
        self._queue.failed(shard, reason)
