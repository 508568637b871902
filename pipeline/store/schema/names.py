"""Names of the files and folders of a store, relative to it."""

from typing import Annotated

from pydantic import Field

Name = Annotated[str, Field(pattern=r"^[^/\\.\x00-\x1f][^/\\\x00-\x1f]*$")]
"""A part or an attempt in a record: one step of a path."""

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
PROBE = "probe-"


def commit(part: str) -> str:
    """The commit record of a part."""
    return f"{COMMITS}/{part}.json"


def failure(part: str) -> str:
    """Why the last try at a part failed."""
    return f"{FAILURES}/{part}.json"


def attempt(part: str, attempt: str) -> str:
    """The Zarr group of one attempt, relative to PARTS or STAGING."""
    return f"{part}.{attempt}"


def part_of(path: str) -> str:
    """The part to whose attempt a file below PARTS belongs."""
    return path.removeprefix(f"{PARTS}/").partition("/")[0].rpartition(".")[0]


def rejects(part: str, attempt: str) -> str:
    """The rejects of one attempt, as JSON lines."""
    return f"{REJECTS}/{part}.{attempt}.jsonl"
