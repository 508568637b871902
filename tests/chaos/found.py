"""What a store holds: every key once, and the arrays of an uninterrupted run.

It is read as docs/store-format.md says, by JSON and Zarr alone, and then once more through `TokenStore`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pipeline.errors import VqtokError
from pipeline.store import TokenStore


@dataclass(frozen=True)
class Expected:
    """What must be in the finished store."""

    keys: dict[str, list[str]]
    """The keys of every source shard, by part."""
    digests: dict[str, str]
    """Content digest of every part."""
    content_digest: str


@dataclass
class Found:
    """What a look at a store tells."""

    lost: int = 0
    """Keys of committed source shards (of all of them in a complete store) that are neither row nor reject."""
    doubled: int = 0
    """Keys that are there once more than in the source."""
    digests_equal: bool = False
    """Whether all is committed, with the digests of the uninterrupted run."""
    problems: list[str] = field(default_factory=list)


def look(store: Path, expected: Expected, complete: bool) -> Found:
    """Read a store by its format, then through `TokenStore`.

    At any moment, whoever has just been killed or is at work, the parts that are committed must be whole.
    """
    found = Found()
    manifest = _guarded(found, "manifest.json", _read, store / "manifest.json")  # before the commits: they grow
    commits = _guarded(found, "commits", read_commits, store) or {}
    found.problems += [f"commit of an unknown part: {part}" for part in commits.keys() - expected.keys.keys()]
    keys = {part: _guarded(found, part, _keys_of_part, store, commit) or [] for part, commit in commits.items()}
    digests = {part: _guarded(found, part, part_digest, store, commit) for part, commit in commits.items()}
    found.problems += [
        f"{part}: other arrays than without interruption"
        for part, digest in digests.items()
        if digest != expected.digests.get(part, digest)
    ]
    for part, commit in commits.items():
        _guarded(found, f"the listing of {part}", _expect_listing, store, commit, expected.keys.get(part, []))
    _count(found, keys, expected.keys if complete else {part: expected.keys.get(part, []) for part in commits})
    for entry in manifest["parts"] if manifest else []:
        if commits.get(entry["part"], {}).get("attempt") != entry["attempt"]:
            found.problems.append(f"the manifest names an attempt at {entry['part']} that is not committed")
    if (store / "store.json").exists():
        _guarded(found, "TokenStore", _look_through_reader, store, expected, complete, found)
    if complete:
        lines = sorted(f"{part} {digest}\n" for part, digest in digests.items())
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        found.digests_equal = manifest is not None and digest == manifest["content_digest"] == expected.content_digest
    return found


def _look_through_reader(store: Path, expected: Expected, complete: bool, found: Found) -> None:
    reader = TokenStore(store, partial=not complete)
    rejected = {entry.part: _rejected_keys(store, entry.part, entry.attempt) for entry in reader.manifest.parts}
    rows, starts = reader.keys, reader.part_starts
    keys = {
        entry.part: rows[start:stop] + rejected[entry.part]
        for entry, start, stop in zip(reader.manifest.parts, starts[:-1], starts[1:], strict=True)
    }
    reader.read(slice(None))
    seen = Found()
    _count(seen, keys, expected.keys if complete else {part: expected.keys.get(part, []) for part in keys})
    found.lost, found.doubled = max(found.lost, seen.lost), max(found.doubled, seen.doubled)


def _expect_listing(store: Path, commit: dict[str, Any], keys: list[str]) -> None:
    """What is committed of a folder says in a file of its own which files it was made of."""
    if "/#" not in commit["sources"][0]["path"]:
        return
    listing = json.loads((store / "listings" / f"{commit['part']}.json").read_bytes())["listing"]
    files = [f"{inside}/{name}".lstrip("/") for inside, names in listing["files"].items() for name in names]
    if {file.rpartition(".")[0] for file in files} != {*keys}:
        raise ValueError(f"{files} are not those of {keys}")


def _count(found: Found, keys: dict[str, list[str]], planned: dict[str, list[str]]) -> None:
    there = Counter((part, key) for part in keys for key in keys[part])
    wanted = Counter((part, key) for part in planned for key in planned[part])
    found.lost, found.doubled = (wanted - there).total(), (there - wanted).total()


def _guarded(found: Found, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """A part that cannot be read at all is a problem among others, and the look goes on."""
    try:
        return function(*arguments)
    except (OSError, ValueError, KeyError, VqtokError) as error:
        found.problems.append(f"{what}: {type(error).__name__}: {error}")
        return None


def read_commits(store: Path) -> dict[str, dict[str, Any]]:
    paths = [path for path in (store / "commits").glob("*.json") if not path.name.startswith(".")]
    return {path.name.removesuffix(".json"): json.loads(path.read_bytes()) for path in paths}


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_bytes()) if path.exists() else None


def _rejected_keys(store: Path, part: str, attempt: str) -> list[str]:
    file = store / "rejects" / f"{part}.{attempt}.jsonl"
    return [json.loads(line)["key"] for line in file.read_text().splitlines()] if file.exists() else []


def _group(store: Path, commit: dict[str, Any]) -> zarr.Group:
    return zarr.open_group(store / "tokens.zarr" / "parts" / f"{commit['part']}.{commit['attempt']}", mode="r")


def _keys_of_part(store: Path, commit: dict[str, Any]) -> list[str]:
    """Rows and rejects, in no particular order."""
    group = _group(store, commit)
    data = np.asarray(group["key/data"][...]).tobytes()
    offsets = np.asarray(group["key/offsets"][...]).tolist()
    rows = [data[start:stop].decode() for start, stop in pairwise(offsets)]
    return rows + _rejected_keys(store, commit["part"], commit["attempt"])


def part_digest(store: Path, commit: dict[str, Any]) -> str:
    """As docs/store-format.md defines it."""
    digest = hashlib.sha256()
    members = _group(store, commit).members(max_depth=None)
    for path, node in sorted((path, node) for path, node in members if isinstance(node, zarr.Array)):
        array = np.asarray(node[...])
        array = array.astype(array.dtype.newbyteorder("<"))
        digest.update(f"{path} {array.dtype.str} {','.join(map(str, array.shape))}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
