"""Processes that are starting up: what is said meanwhile, and how others get to know of them."""

import contextlib
import secrets
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from pipeline.claims import START, Claim, Claims, claimed_starts, is_local_and_gone, read_claim
from pipeline.errors import VqtokError
from pipeline.files import Files
from pipeline.printing import say
from pipeline.store.schema import names
from pipeline.world import launched_rank

# Many times what loading PyTorch takes. Whether a process of another host was killed cannot be told: its claim to be
# starting up just grows too old.
_LONGEST_SECONDS = 600.0


def say_what_is_loaded(processes: int = 1) -> None:
    """Print what there is to wait for, unless it is there already; of processes launched together one says so."""
    if _is_loading(processes):
        who = f"starting {processes} processes: " if processes > 1 else ""
        say(f"{who}loading PyTorch", error=True)


@contextlib.contextmanager
def announced(store: Files, processes: int, timeout_s: float) -> Iterator["contextlib.ExitStack"]:
    """Let `vqtok status` know of `processes` that start up, until the stack that it yields is closed or the body ends.

    Nothing is written where there is no store yet: a job that is refused leaves none. A store that cannot be written
    to is for the processes themselves to find.
    """
    with contextlib.ExitStack() as until_begun:
        if _is_loading(processes):
            with contextlib.suppress(OSError, VqtokError):
                _announce(store, processes, timeout_s, until_begun)
        yield until_begun


def _is_loading(processes: int) -> bool:
    """Whether PyTorch is yet to be loaded, by this process or those that it starts, and this one speaks for them."""
    return (processes > 1 or "torch" not in sys.modules) and launched_rank()[0] == 0


def _announce(store: Files, processes: int, timeout_s: float, until_begun: contextlib.ExitStack) -> None:
    store.stat(names.STORE)  # there is none before the first processes have begun
    for name in claimed_starts(store):
        if not may_live(read_claim(store, name)):
            store.delete(f"{names.CLAIMS}/{name}.json")
    claims = until_begun.enter_context(Claims(store, timeout_s))
    claims.acquire(f"{START}{processes}-{secrets.token_hex(6)}")


def read_starts(store: Files) -> list[Claim]:
    """The claims of processes that start up, without those that are known to have ended or have done so for long."""
    starts = (read_claim(store, name) for name in claimed_starts(store))
    return [start for start in starts if start is not None and may_live(start)]


def processes_of(start: Claim) -> int:
    """How many processes the claim of those that start up stands for."""
    count = start.part.removeprefix(START).partition("-")[0]
    return int(count) if count.isdecimal() else 1


def may_live(start: Claim | None) -> bool:
    """Whether the processes of a claim that they start up may be doing so still."""
    if start is None or is_local_and_gone(start):
        return False
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(start.since)
    except (ValueError, TypeError):  # no time, or one without its zone
        return False
    return abs(age.total_seconds()) < _LONGEST_SECONDS  # a clock that is ahead must not make it last for ever
