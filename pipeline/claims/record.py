"""Claims as their files say them."""

import os
import socket
from collections.abc import Collection, Mapping

from pydantic import ValidationError

from pipeline.errors import CorruptStore
from pipeline.files import Files, Stat
from pipeline.files.damage import damaged, naming_no_file
from pipeline.files.each import read_each
from pipeline.process.identity import boot_id, pid_namespace, process_start
from pipeline.records import Count, Record

FOLDER = "claims"
START = "~start-"
"""What the claim of processes that start up begins with, then how many they are: no part is called so."""


class Claim(Record):
    """Contents of `claims/<part>.json`."""

    part: str
    token: str
    """Random, one for every claim."""
    host: str
    boot_id: str
    pid_namespace: str
    """Containers of one host may share its name and boot id, but not the numbers of their processes."""
    pid: int
    pid_started: int
    """Start of the process in clock ticks after boot: process numbers are used again."""
    since: str = ""
    """When it was made, UTC by the clock of its host, ISO 8601. For people; nothing is decided by it."""
    beats: int = 0
    """Counts up while the process lives; its standing still is what makes a claim stale."""
    images: Count = 0
    """Images done, for progress."""
    bytes: Count = 0
    """Bytes of the source shard read, for progress."""


def claimed_parts(files: Files) -> list[str]:
    """Names of all parts with a claim, live or not, sorted, from a single listing."""
    return [name for name in claimed(files) if not name.startswith(START)]


def claimed_starts(files: Files) -> list[str]:
    """Names of the claims, live or not, of processes that have not begun to work."""
    return [name for name in claimed(files) if name.startswith(START)]


def claimed(files: Files) -> list[str]:
    """Names of all claims, live or not, sorted, from a single listing."""
    with naming_no_file(files, FOLDER, "no folder"):
        return [name.removesuffix(".json") for name in files.list(FOLDER)]


def read_claim(files: Files, part: str) -> Claim | None:
    """The claim on a part, live or not; None where there is none, or none that can be read."""
    try:
        return find_claim(files, part)
    except CorruptStore:
        return None


def find_claim(files: Files, part: str) -> Claim | None:
    """The claim on a part, live or not; None where there is none.

    Raises CorruptStore for one that cannot be read: damaged, or of a later version.
    """
    path = claim_path(part)
    try:
        with naming_no_file(files, path, "not a claim"):
            return Claim.model_validate_json(files.read(path))
    except FileNotFoundError:
        return None  # released meanwhile
    except ValidationError as error:
        raise damaged(files, path, f"not a claim ({error.errors()[0]['msg']})") from None


def read_claims(files: Files) -> list[Claim]:
    """All claims that can be read, live or not, sorted by part."""
    claims = (read_claim(files, part) for part in claimed_parts(files))
    return [claim for claim in claims if claim is not None]


def claims_by_version(
    files: Files, known: Mapping[str, tuple[str, Claim | None]], without: Collection[str], reads: int
) -> dict[str, tuple[str, Claim | None]]:
    """Claims on parts with their files' versions, from a listing; at most `reads` that are new or changed are read.

    Args:
        known: what this returned before; what is not read stays as it was.
        without: parts that are of no interest.
    """
    stats = files.level(FOLDER)
    names = {name.removesuffix(".json"): version_of(stat) for name, stat in sorted(stats.items())}
    wanted = {part: version for part, version in names.items() if part not in without and not part.startswith(START)}
    found = {part: known[part] for part in wanted if part in known}
    changed = [part for part, version in wanted.items() if part not in found or found[part][0] != version][:reads]
    read = read_each(lambda part: read_claim(files, part), changed)
    return found | {part: (wanted[part], claim) for part, claim in zip(changed, read, strict=True)}


def is_local_and_gone(claim: Claim) -> bool:
    """Whether the claim's process ran on this host since its last boot, where we could see it, and has ended."""
    return (
        claim.host == socket.gethostname()
        and claim.boot_id == boot_id() != ""
        and claim.pid_namespace == pid_namespace(os.getpid())
        and process_start(claim.pid) != claim.pid_started
    )


def version_of(stat: Stat) -> str:
    """Another text for every heartbeat."""
    return f"{stat.bytes} {stat.version}"


def claim_path(part: str) -> str:
    """The file of the claim on a part."""
    return f"{FOLDER}/{part}.json"
