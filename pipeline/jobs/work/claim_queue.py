"""Hands the pending source shards of a job to one process, beside any number of others. Imports neither torch nor Zarr.

The processes agree on nothing: each tries to claim what it believes to be free. So that they seldom try the same, each
begins at a place of its own and goes on from neighbour to neighbour. Where it meets another process, or what another
has done, it looks at the store anew and goes on at a random place among what is free, which on average leaves half of
a stretch to the process that works on it. When nothing is free any more, it takes over the claims of processes that
died.

What this costs beyond a claim for each source shard is a few looks for each process, however many there are. A listing
of the commits takes a request for each thousand of them. Where there are many it waits until as many tries were in
vain, and until then a single part is asked about before it is claimed.
"""

import random
import threading
import time
from collections.abc import Collection, Sequence
from functools import cached_property

from pipeline.claims import Claims
from pipeline.files import Files, is_url
from pipeline.jobs.work.failures import note_failure
from pipeline.jobs.work.pauses import Pauses
from pipeline.records import SourceShard
from pipeline.store.schema.commits import committed_parts, is_committed
from pipeline.store.schema.failures import clear_failure, noted_failures

# While others are at work on all that is left: seconds to the next look, which soon become more.
_POLL_SECONDS = 0.5
_POLL_SECONDS_AFAR = 2.0

# Names in one answer to the listing of an object store.
_PAGE = 1000


class ClaimQueue:
    """A `ShardQueue`: each source shard is claimed before it is handed out, and none is handed out twice.

    Args:
        shards: of the job, in an order that all its processes have in common.
        committed: parts that are known to be committed.
        begin: where in the pending ones to begin, from 0 to 1.
        draw: decides where to go on; of another seed in every process.
        wait: whether `next` waits while others are at work on all that is left, for they may fail or die.
        stopped: ends such a wait.
    """

    def __init__(
        self,
        store: Files,
        claims: Claims,
        shards: Sequence[SourceShard],
        committed: Collection[str],
        begin: float,
        draw: random.Random,
        wait: bool = True,
        stopped: threading.Event | None = None,
    ) -> None:
        self._store = store
        self._claims = claims
        self._planned = frozenset(shard.part for shard in shards)
        self._open = {shard.part: shard for shard in shards if shard.part not in committed}
        self._listed = len(committed)
        self._begin: float | None = begin
        self._draw = draw
        self._walk: list[str] = []  # what to try next is at its end
        self._others: set[str] = set()
        self._refused: set[str] = set()
        self._stale: list[str] | None = None
        """Parts whose claims seemed not to count, where the last look told that."""
        self._in_vain = 0
        self._handed_out = False
        """Whether a source shard has been handed out since the last look that found nothing free."""
        self._waiting = False
        self._poll_s = _POLL_SECONDS_AFAR if is_url(store.root) else _POLL_SECONDS
        self._pauses = Pauses(self._poll_s)
        self._wait = wait
        self._stopped = stopped or threading.Event()
        self._failed: set[str] = set()

    @property
    def is_over(self) -> bool:
        """Whether every source shard has been handed out here or is known to be committed."""
        return not self._open

    def next(self) -> SourceShard | None:
        """A source shard that nobody else has, claimed. Raises OSError.

        When nothing is free this looks once more, for others may have failed; then it waits for them with growing
        pauses until everything is over, or does not wait.
        """
        while not self._stopped.is_set():
            looked = time.monotonic()
            while (part := self._next() or self._next_stale()) is not None:
                if self._take(part):
                    self._handed_out, self._waiting, self._pauses = True, False, Pauses(self._poll_s)
                    return self._open.pop(part)
            self._walk.clear()
            self._refused.clear()
            if self.is_over or not (self._handed_out or self._wait):
                return None
            if not self._handed_out:
                self._waiting = True
                self._stopped.wait(self._pauses.next_s(looked))
            self._handed_out = False
        return None

    def progress(self, shard: SourceShard, images: int, bytes_read: int) -> None:
        """Tell others how far it is, with the next heartbeat of its claim."""
        self._claims.progress(shard.part, images, bytes_read)

    def done(self, shard: SourceShard) -> None:
        """Forget earlier failures, and give the claim back.

        Those that were noted since this process began stay until the store is finished: nobody reads them.
        """
        if shard.part in self._noted:
            clear_failure(self._store, shard.part)
        self._claims.release(shard.part)

    def failed(self, shard: SourceShard, reason: str) -> None:
        """Note the reason in the store, and give the claim back, so that another process may try."""
        self._failed.add(shard.part)
        note_failure(self._store, shard, reason)
        self._claims.release(shard.part)

    def count_committed(self) -> int:
        """How many of the source shards are committed, by whomever, now that nothing is in work here."""
        if not self.is_over:
            return len(committed_parts(self._store, self._planned) & self._planned)
        # All others have been handed out and are done, or were seen to be committed.
        pending = [part for part in self._failed if not is_committed(self._store, part)]
        return len(self._planned) - len(pending)

    @cached_property
    def _noted(self) -> set[str]:
        """Parts whose failures were noted when the first one here was done."""
        return noted_failures(self._store)

    def list_commits(self) -> set[str]:
        """All committed parts, planned or not."""
        committed = committed_parts(self._store)
        self._listed, self._in_vain = len(committed), 0
        for part in self._open.keys() & committed:
            del self._open[part]
        return committed

    def _next(self) -> str | None:
        """What to try next, None where nothing seems to be free."""
        while self._walk:
            part = self._walk.pop()
            if part in self._others:
                self._walk.clear()  # what follows is what that process wants next
            elif part in self._open:
                return part
        return self._go_elsewhere()

    def _go_elsewhere(self) -> str | None:
        """Begin to walk where nobody is known to be at work; the first part there."""
        listed = self._look()
        order = list(self._open)
        free = [place for place, part in enumerate(order) if part not in self._others]
        while free:
            place = free.pop(self._choose(len(free)))
            if listed or not self._is_committed(order[place]):
                self._walk = [*reversed(order[:place]), *reversed(order[place + 1 :])]
                return order[place]
            if self._is_worth_listing():
                return self._go_elsewhere()
        return None

    def _look(self) -> bool:
        """See who is at work, and perhaps what is done: returns whether that was listed, too."""
        if not self._open:
            return False
        # Before the commits: claims outlive them.
        if self._waiting:  # the next question is which claims are stale
            others, self._stale = self._claims.look()
        else:
            others, self._stale = self._claims.others(), None
        self._others = others | self._refused
        worth = self._is_worth_listing()
        if worth:
            self.list_commits()
        return worth

    def _is_worth_listing(self) -> bool:
        return self._in_vain * _PAGE > self._listed

    def _choose(self, count: int) -> int:
        if self._begin is None:
            return self._draw.randrange(count)
        begin, self._begin = self._begin, None
        return int(begin * count)

    def _next_stale(self) -> str | None:
        """One of the parts whose claims do not seem to count any more."""
        if not self._open:
            return None
        claims, self._stale = self._claims.look()[1] if self._stale is None else self._stale, None
        stale = [part for part in claims if part in self._open and part not in self._refused]
        return self._draw.choice(stale) if stale else None

    def _take(self, part: str) -> bool:
        """Claim a part, unless somebody else has it or had it."""
        if not self._claims.acquire(part):
            self._refused.add(part)
            self._in_vain += 1
        elif not self._is_committed(part):
            return True
        else:
            self._claims.release(part)
        self._walk.clear()
        return False

    def _is_committed(self, part: str) -> bool:
        if not is_committed(self._store, part):
            return False
        del self._open[part]
        self._in_vain += 1
        return True
