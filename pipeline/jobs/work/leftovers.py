"""What processes that were killed leave beside the parts of a finished store, and what they leave out."""

import contextlib
from collections.abc import Collection

from pipeline.claims import START, claimed, read_claim
from pipeline.errors import VqtokError
from pipeline.files import Files
from pipeline.jobs.plan import Plan
from pipeline.jobs.work.starting import may_live
from pipeline.store.schema import names
from pipeline.store.schema.failures import clear_failure, noted_failures

MANIFEST = "manifest"
"""The claim on making the manifest. No part has this name: theirs end in a digest."""


def put_in_order(plan: Plan) -> None:
    """Clear the leftovers of a finished job, and write the files of single source shards that `listings/` lacks.

    What cannot be written harms no reader of tokens.
    """
    clear_leftovers(plan.store, plan.committed)
    with contextlib.suppress(OSError, VqtokError):
        plan.listings.write_parts()


def clear_leftovers(store: Files, committed: Collection[str]) -> None:
    """Delete the claims on committed parts, and the notes of their failures.

    A process that lives may hold such a claim for a moment, before it releases it: it is no worse off without. What
    cannot be deleted harms nobody.
    """
    with contextlib.suppress(OSError, VqtokError):
        for name in claimed(store):
            if name in committed or name == MANIFEST or _is_dead_start(store, name):
                store.delete(f"{names.CLAIMS}/{name}.json")
        for part in noted_failures(store) & {*committed}:
            clear_failure(store, part)


def _is_dead_start(store: Files, name: str) -> bool:
    return name.startswith(START) and not may_live(read_claim(store, name))
