"""Members of a source shard, and how they are grouped into samples by their WebDataset keys."""

import functools
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from pipeline.errors import SourceError
from pipeline.printing import printable
from pipeline.source.sample import Sample

# https://github.com/webdataset/webdataset: the key ends at the first dot of the file's own name. One deviation:
# there `photos/.DS_Store` is a sample `photos/`; here a dotfile belongs to no sample in any folder.
_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")
_MOST_IGNORED = 100


class Member(NamedTuple):
    """A file inside a source shard; `data` is None where it was not wanted."""

    name: str
    offset: int
    data: bytes | None
    start: int
    """The byte at which what belongs to it begins: before `offset` where a long name comes first."""
    plain: bool = True
    """Whether it is a file with contents, and no link, sparse or special file."""
    contents_at: int = 0
    size: int = 0
    """Where its contents lie, in bytes."""
    problem: str = ""
    """Why they were not read, though they are wanted."""


@functools.lru_cache(maxsize=16)  # asked twice of each member
def split_name(name: str) -> tuple[str, str] | None:
    """(key, extension in lower case) of a member's name, or None for a name that WebDataset skips."""
    match = _KEY_AND_EXTENSION.fullmatch(name)
    if match is None or _META.match(name):
        return None
    return match[1], match[2].lower()


def group_members(
    members: Iterable[Member], location: str, ignored: list[str], first: int = 0, is_compressed: bool = False
) -> Iterator[Sample]:
    """Samples of the members of a source shard, or of a stretch of it whose first sample has the index `first`.

    Names of members that belong to no sample are noted in `ignored`. A sample with two members of one extension has a
    `problem`. Raises SourceError where members of a sample stand apart.
    """
    sample: Sample | None = None
    seen: set[str] = set()
    for member in members:
        split = split_name(member.name) if member.plain else None
        if split is None:
            note_ignored(ignored, member.name)
            continue
        key, extension = split
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            if key in seen:
                raise SourceError(
                    f"{location}: at byte {member.offset:,}: key {key!r} comes again after other samples; the members "
                    f"of a sample must stand together: {how_to_sort(location, is_compressed)}"
                )
            seen.add(key)
            sample = Sample(first + len(seen) - 1, key, {}, member.start)
        add_member(sample, extension, member.data)
        if member.problem:
            add_problem(sample, extension, member.problem)
    if sample is not None:
        yield sample


def note_ignored(ignored: list[str], name: str) -> None:
    """Name one more member that belongs to no sample; of many, the first hundred are named."""
    if len(ignored) < _MOST_IGNORED:
        ignored.append(name)


def add_member(sample: Sample, extension: str, data: bytes | None) -> None:
    """One more member of a sample; where there is one of that extension the first one stays, and is no better."""
    if extension in sample.members:
        sample.problems.append(f"duplicate: two members .{printable(extension)}")
    else:
        sample.members[extension] = data


def add_problem(sample: Sample, extension: str, problem: str) -> None:
    """Why a member of a sample was not read."""
    sample.problems.append(f".{printable(extension)}: {problem}")


def how_to_sort(location: str, is_compressed: bool) -> str:
    """What to do about a tar whose samples lie in pieces."""
    regroup = "set source.regroup=true, which reads a local tar that is not compressed as it is"
    if is_compressed:
        regroup = "decompress it, for source.regroup to read it as it is then"
    if not location.isprintable() or "\\" in location:  # nothing to paste into a shell
        return f"{regroup}, or repack it"
    name = re.sub(r"\.(tgz|tar\.\w+)$", ".tar", PurePosixPath(location).name)
    tar, folder, sorted_tar = (shlex.quote(text) for text in (location, f"{name}.unpacked", f"sorted-{name}"))
    return (
        f"{regroup}, or repack it: mkdir -- {folder} && tar -xf {tar} -C {folder} && "
        f"tar --sort=name --transform='s|^\\./||' -cf {sorted_tar} -C {folder} ."
    )
