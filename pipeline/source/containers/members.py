"""Members of a source shard, and how they are grouped into samples by their WebDataset keys."""

import functools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline.errors import SourceError
from pipeline.source.sample import Sample

# https://github.com/webdataset/webdataset: the key ends at the first dot of the file's own name. One deviation:
# there `photos/.DS_Store` is a sample `photos/`; here a dotfile belongs to no sample in any folder.
_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


class Member(NamedTuple):
    """A file inside a source shard; `data` is None where it was not wanted."""

    name: str
    offset: int
    data: bytes | None
    start: int
    """The byte at which what belongs to it begins: before `offset` where a long name comes first."""


@functools.lru_cache(maxsize=16)  # asked twice of each member
def split_name(name: str) -> tuple[str, str] | None:
    """(key, extension in lower case) of a member's name, or None for a name that WebDataset skips."""
    match = _KEY_AND_EXTENSION.fullmatch(name)
    if match is None or _META.match(name):
        return None
    return match[1], match[2].lower()


def group_members(members: Iterable[Member], location: str, ignored: list[str], first: int = 0) -> Iterator[Sample]:
    """Samples of the members of a source shard, or of a stretch of it whose first sample has the index `first`.

    Names of members that belong to no sample are added to `ignored`. Raises SourceError where members of a sample
    stand apart.
    """
    sample: Sample | None = None
    seen: set[str] = set()
    for name, offset, data, start in members:
        split = split_name(name)
        if split is None:
            ignored.append(name)
            continue
        key, extension = split
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            if key in seen:
                raise SourceError(
                    f"{location}: at byte {offset:,}: key {key!r} comes again after other samples; the "
                    "members of a sample must stand together and keys be unique: sort the tar by name"
                )
            seen.add(key)
            sample = Sample(first + len(seen) - 1, key, {}, start)
        if extension in sample.members:
            raise SourceError(
                f"{location}: at byte {offset:,}: two members {key}.{extension}; keys must be unique in a "
                "source shard: rename one and repack"
            )
        sample.members[extension] = data
    if sample is not None:
        yield sample
