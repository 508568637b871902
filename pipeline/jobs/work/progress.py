"""A progress bar over all processes of a job, read from the store alone."""

import sys
import threading
import time
from itertools import islice
from types import TracebackType
from typing import NoReturn

from tqdm import tqdm

from pipeline.claims import read_claims
from pipeline.jobs.plan import Plan
from pipeline.store.schema.commits import committed_parts, read_commit

_POLL_SECONDS = 1.0
# A job may have a million commits, and each of its processes may show a bar. So a bar reads a few new commits at each
# look and a limited number in all, and supposes that the others are like those. The last look may use up the limit.
_READS_A_LOOK = 32
_READS = 1000


class JobProgress:
    """Shows bytes of source shards done and images per second, while used as a context manager."""

    def __init__(self, plan: Plan, enabled: bool) -> None:
        self._plan = plan
        self._enabled = enabled
        self._bytes = {shard.part: shard.bytes or 0 for shard in plan.shards}
        self._before = set(plan.committed)
        self._images: dict[str, int] = {}
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

    def _run(self) -> None:
        done = sum(self._bytes.get(part, 0) for part in self._before)
        bar: tqdm[NoReturn]
        with tqdm(
            total=sum(self._bytes.values()),
            initial=done,
            desc="tokenize",
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
            file=sys.stderr,
            # A log file wants a line now and then, a terminal wants motion.
            mininterval=0.1 if sys.stderr.isatty() else 10,
        ) as bar:
            pause = _POLL_SECONDS
            while not self._stopped.wait(pause):
                started = time.monotonic()
                self._show(bar)
                # Listing a large store elsewhere takes a while: it should not be all that this thread does.
                pause = max(_POLL_SECONDS, 10 * (time.monotonic() - started))
            self._show(bar, _READS)

    def _images_of(self, parts: set[str], reads: int) -> tuple[int, bool]:
        """Images of committed parts, of which at most `reads` more are read, and whether all were read.

        Those of the others are estimated from their bytes.
        """
        for part in islice(parts - self._images.keys(), min(reads, _READS - len(self._images))):
            self._images[part] = read_commit(self._plan.store, part).seen
        counted, unread = sum(self._images.values()), parts - self._images.keys()
        per_byte = counted / max(sum(self._bytes[part] for part in self._images), 1)
        return counted + round(per_byte * sum(self._bytes[part] for part in unread)), not unread

    def _show(self, bar: "tqdm[NoReturn]", reads: int = _READS_A_LOOK) -> None:
        try:
            committed = committed_parts(self._plan.store) & self._bytes.keys()
            images, exact = self._images_of(committed - self._before, reads)
            claims = [claim for claim in read_claims(self._plan.store) if claim.part not in committed]
        except Exception:
            return  # a picture of progress is not worth a failure
        images += sum(claim.images for claim in claims)
        bytes_done = sum(self._bytes[part] for part in committed) + sum(claim.bytes for claim in claims)
        elapsed = bar.format_dict["elapsed"] or 1.0
        done = f"{len(committed)}/{len(self._bytes)} source shards, {'' if exact else 'about '}{images:,} images"
        bar.set_postfix_str(f"{done}, {images / elapsed:.0f} images/s", refresh=False)
        bar.update(max(bytes_done - bar.n, 0))
