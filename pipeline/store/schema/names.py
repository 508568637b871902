"""Names of the files and folders of a store, relative to it.

Whatever a file says is a name becomes a path only when it has the form of one: nothing leads out of the store.
"""

import re
import secrets
from typing import Annotated

from pydantic import Field

_PART = r"[A-Za-z0-9_-]{1,200}(\+r[0-9]{1,9})?"
_ATTEMPT = r"[A-Za-z0-9]{1,64}"
_OURS = re.compile(r"[A-Za-z0-9_-]{0,100}-[0-9a-f]{12}(\+r[0-9]{1,9})?\.[0-9a-f]{8}")

PartName = Annotated[str, Field(pattern=rf"^{_PART}$")]
"""A part, as records and the names of files have it."""
AttemptName = Annotated[str, Field(pattern=rf"^{_ATTEMPT}$")]
"""An attempt at one."""


# Without a character that is no dot it would lead elsewhere.
_STEP = r"[^/\x00-\x1f]*[^/.\x00-\x1f][^/\x00-\x1f]*"
Step = Annotated[str, Field(pattern=rf"^{_STEP}$")]
"""A name in a record that becomes that of a group."""
Inside = Annotated[str, Field(pattern=rf"^{_STEP}(/{_STEP})*$")]
"""A path in a record, relative to the folder that it is about."""

STORE = "store.json"
MANIFEST = "manifest.json"
HIERARCHY = "tokens.zarr"
PARTS = f"{HIERARCHY}/parts"
CODEBOOK = f"{HIERARCHY}/codebook"
RULE = "rule"
"""Group in HIERARCHY for what var-input rules need beside the codebook, a group for each rule."""
STAGING = "staging"
COMMITS = "commits"
CLAIMS = "claims"
FAILURES = "failures"
REJECTS = "rejects"
LISTINGS = "listings"
"""Which files of a folder make which source shard: see `source/folders/listings.py`."""

WRITTEN = (PARTS, STAGING, COMMITS, CLAIMS, FAILURES, REJECTS, LISTINGS)
"""Folders that a job makes files or folders in."""

_PROBE = re.compile(r"probe-[0-9a-f]{16}")


def new_probe() -> str:
    """What is written to see whether it can be, unlike any other; a file or a folder."""
    return f"probe-{secrets.token_hex(8)}"


def is_probe(name: str) -> bool:
    """Whether a name is one of these."""
    return _PROBE.fullmatch(name) is not None


def is_part(name: str) -> bool:
    """Whether a part can be called so."""
    return re.fullmatch(_PART, name) is not None


def is_attempt(name: str) -> bool:
    """Whether `part.attempt` is a name that this package gives: nothing else is deleted."""
    return _OURS.fullmatch(name) is not None


def commit(part: str) -> str:
    """The commit record of a part."""
    return f"{COMMITS}/{part}.json"


def failure(part: str) -> str:
    """Why the last try at a part failed."""
    return f"{FAILURES}/{part}.json"


def attempt(part: str, attempt: str) -> str:
    """The Zarr group of one attempt, relative to PARTS or STAGING."""
    return f"{part}.{attempt}"


def attempt_of(path: str) -> tuple[str, str]:
    """Part and attempt to which a file below PARTS belongs."""
    part, _, attempt = path.removeprefix(f"{PARTS}/").partition("/")[0].rpartition(".")
    return part, attempt


def rejects(part: str, attempt: str) -> str:
    """The rejects of one attempt, as JSON lines."""
    return f"{REJECTS}/{part}.{attempt}.jsonl"
