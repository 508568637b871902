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
import time
from collections.abc import Collection, Iterator, Sequence

from pipeline.claims import Claims
from pipeline.files import Files
from pipeline.records import SourceShard
from pipeline.store.schema.commits import committed_parts, is_committed

# While others are at work on all that is left: seconds to the next look, which soon become more.
_POLL_SECONDS = 0.5
_LONGEST_POLL_SECONDS = 5.0

# Names in an answer of an object store.
_PAGE = 1000


class Handout:
    """The source shards that are left for one process.

    Args:
        shards: of the job, in an order that all its processes have in common.
        committed: parts that are known to be committed.
        begin: where in the pending ones to begin, from 0 to 1.
        draw: decides where to go on; of another seed in every process.
    """

    def __init__(
        self,
        store: Files,
        claims: Claims,
        shards: Sequence[SourceShard],
        committed: Collection[str],
        begin: float,
        draw: random.Random,
    ) -> None:
        self._store = store
        self._claims = claims
        self._open = {shard.part: shard for shard in shards if shard.part not in committed}
        self._listed = len(committed)
        self._begin: float | None = begin
        self._draw = draw
        self._walk: list[str] = []  # what to try next is at its end
        self._others: set[str] = set()
        self._refused: set[str] = set()
        self._in_vain = 0
        self._handed_out = 0

    @property
    def is_over(self) -> bool:
        """Whether every source shard has been handed out here or is known to be committed."""
        return not self._open

    def rounds(self, wait: bool) -> Iterator[Iterator[SourceShard]]:
        """Rounds of source shards that nobody else has, each claimed when it is asked for, until none can be had.

        After a round of none there is a pause, for others may fail or die, until everything is over; without `wait`
        that round is the last. No source shard is handed out twice, so that one that fails here is left to others.
        Raises OSError.
        """
        pause = _POLL_SECONDS
        while True:
            looked, self._handed_out = time.monotonic(), 0
            yield self._claimed()
            if self.is_over or not (self._handed_out or wait):
                return
            if self._handed_out:
                pause = _POLL_SECONDS
                continue
            # Looking costs many requests in a large store elsewhere.
            time.sleep(max(pause, 5 * (time.monotonic() - looked)))
            pause = min(1.5 * pause, _LONGEST_POLL_SECONDS)

    def _claimed(self) -> Iterator[SourceShard]:
        self._walk.clear()
        self._refused.clear()
        while (part := self._next() or self._next_stale()) is not None:
            if self._take(part):
                self._handed_out += 1
                yield self._open.pop(part)

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
        self._others = self._claims.others() | self._refused  # before the commits: claims outlive them
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
        stale = [part for part in self._claims.stale() if part in self._open and part not in self._refused]
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
