"""Processes that are starting up: what is said meanwhile, and how others get to know of them."""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator

from pipeline.claims import START, Claims, is_local_and_gone, read_starts
from pipeline.errors import VqtokError
from pipeline.files import Files


def say_what_is_loaded(processes: int = 1) -> None:
    """Print what there is to wait for, unless it is there already."""
    if "torch" not in sys.modules:
        who = f"starting {processes} processes: " if processes > 1 else ""
        print(f"{who}loading PyTorch", file=sys.stderr, flush=True)


@contextlib.contextmanager
def announced(store: Files, processes: int, timeout_s: float) -> Iterator["contextlib.ExitStack"]:
    """Let `vqtok status` know of `processes` that start, until the stack it gives is closed or the body left.

    A store that cannot be written to is for the processes themselves to find.
    """
    with contextlib.ExitStack() as until_begun:
        if "torch" not in sys.modules and os.environ.get("RANK", "0") == "0":
            with contextlib.suppress(OSError, VqtokError):
                for start in read_starts(store):
                    if is_local_and_gone(start):
                        store.delete(f"claims/{start.part}.json")
                claims = until_begun.enter_context(Claims(store, timeout_s))
                claims.acquire(f"{START}{processes}-{secrets.token_hex(6)}")
        yield until_begun
