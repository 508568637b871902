"""Listing some names among many: what begins with other letters, or lies deeper, is not asked for."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.store import ObjectStore

from pipeline.files.base import Stat
from pipeline.files.object_reading import Asking, stat_of

_PAGE = 1000
"""Names in one answer."""
_LAST = "\U0010ffff"
"""Sorts behind all that may come in its place."""


def level(files: Asking, folder: str, beginning: str) -> dict[str, Stat]:
    """The objects directly below `folder` whose names begin so, by name."""
    start = f"{folder}/{beginning}" if folder else beginning
    after = _before(start) if beginning and _is_sorted(files.root) else None

    def listed(client: ObjectStore) -> list[Any]:
        if after is None:
            return [*obstore.list_with_delimiter(client, folder or None)["objects"]]
        return [*_beginning(client, folder, start, after)]

    skipped = len(folder) + 1 if folder else 0
    found = {entry["path"][skipped:]: stat_of(entry) for entry in files.request(folder, listed, in_several=True)}
    return {name: stat for name, stat in found.items() if name.startswith(beginning)}


def _beginning(client: ObjectStore, folder: str, start: str, after: str) -> Iterator[Any]:
    """Objects of one level whose paths begin with `start`.

    object_store asks for whole folders only. So the list begins behind a name, ends at the first that begins
    otherwise, and begins anew behind a folder that fills the rest of an answer.
    """
    while True:
        page = _page(client, folder, after)
        for entry in page:
            if not entry["path"].startswith(start):
                return
            if "/" not in entry["path"][len(start) :]:
                yield entry
        if len(page) < _PAGE:
            return
        last = page[-1]["path"]
        deeper = last.find("/", len(start))
        after = last if deeper < 0 else f"{last[: deeper + 1]}{_LAST}"


def _page(client: ObjectStore, folder: str, after: str) -> Sequence[Any]:
    """The next names, one answer of them."""
    return next(iter(obstore.list(client, prefix=folder or None, offset=after, chunk_size=_PAGE)), [])


def _before(start: str) -> str | None:
    """What sorts right before all that begins with `start`; None where that cannot be told."""
    before, code = start[:-1], ord(start[-1]) - 1
    is_path = chr(code) != "/" or before.rpartition("/")[2]  # without an empty name in it
    return f"{before}{chr(code)}{_LAST}" if 0x20 <= code < 0xD800 and is_path else None


def _is_sorted(url: str) -> bool:
    """Whether a server lists names in the order of their bytes: Amazon's "directory buckets" do not."""
    parts = urlsplit(url)
    return parts.scheme in ("s3", "s3a", "gs") and not (parts.hostname or "").endswith("--x-s3")
