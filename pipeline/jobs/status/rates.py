"""How fast a job goes. Pure: no files, no clock."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

# A shorter pause belongs to the work: a process starts, or waits for the claim of one that died.
_PAUSE_SECONDS = 60.0
# Commits give their time in whole seconds: a rate over a shorter time would mean nothing.
_LEAST_SECONDS = 1.0


@dataclass(frozen=True)
class WorkDone:
    """One source shard, done or in work."""

    start: float
    """Seconds since the epoch, as are all times here."""
    end: float
    images: int
    bytes: int


@dataclass(frozen=True)
class Rate:
    """Over all processes."""

    images_per_second: float
    bytes_per_second: float
    """Bytes of source shards."""
    seconds: float
    """In which anybody was at work."""


def rate_of(work: Iterable[WorkDone], since: float = -math.inf, until: float = math.inf) -> Rate | None:
    """What was done between two moments, per second in which anybody was at work.

    Of a source shard that was in work only partly in that time, that part of its images counts: they are taken
    to come evenly. A day in which nothing ran does not count as time. None where there is too little to tell.
    """
    images = bytes_done = seconds = 0.0
    reached = None
    for item in sorted(work, key=lambda item: item.start):
        start, end = max(item.start, since), min(item.end, until)
        if start > end:
            continue
        share = (end - start) / (item.end - item.start) if item.end > item.start else 1.0
        images += share * item.images
        bytes_done += share * item.bytes
        if reached is None or start - reached > _PAUSE_SECONDS:
            reached = start
        seconds += max(end - reached, 0.0)
        reached = max(end, reached)
    if seconds < _LEAST_SECONDS:
        return None
    return Rate(images / seconds, bytes_done / seconds, seconds)
