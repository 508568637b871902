"""Pieces written by several processes."""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from pipeline.errors import ExportError
from pipeline.jobs.exporting.place import Place
from pipeline.jobs.exporting.work import Work
from pipeline.overlap import ordered_map
from pipeline.process.signals import leave_signals_to_parent
from pipeline.records import JSON


def write_pieces(work: Work, place: Place, pieces: Sequence[int], processes: int) -> Iterator[tuple[int, JSON]]:
    """Write pieces in so many processes, this one where it is one. Gives each with what is to be known of it.

    Raises what writing raises, ExportError where a process dies.
    """
    processes = min(processes, len(pieces))
    if processes <= 1:
        for piece in pieces:
            yield piece, work.write(place, piece)
        return
    # Not forked: libraries of formats and object stores have threads.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(processes, context, _begin, (work, place)) as pool:
        try:
            yield from ordered_map(_write, pieces, pool, ahead=2 * processes)
        except BrokenProcessPool:
            raise ExportError(
                "a process died, perhaps killed for its memory; run the same command again to go on, with fewer "
                "--processes if so"
            ) from None


_ours: tuple[Work, Place] | None = None
"""In a process of the pool."""


def _begin(work: Work, place: Place) -> None:
    global _ours
    _ours = work, place
    leave_signals_to_parent()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    """The pool would wait for work for ever after its parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _write(piece: int) -> tuple[int, JSON]:
    assert _ours is not None
    work, place = _ours
    return piece, work.write(place, piece)
