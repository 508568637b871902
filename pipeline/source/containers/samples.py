"""Samples of a source shard: members grouped by their WebDataset key."""

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator

from pipeline.errors import SourceError
from pipeline.files import Readable
from pipeline.source.containers.tar import Member, StrictTar
from pipeline.source.sample import Sample

# https://github.com/webdataset/webdataset: the key ends at the first dot of the file's own name. One deviation:
# there `photos/.DS_Store` is a sample `photos/`; here a dotfile belongs to no sample in any folder.
_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


@functools.lru_cache(maxsize=16)  # asked twice of each member
def split_name(name: str) -> tuple[str, str] | None:
    """(key, extension in lower case) of a member's name, or None for a name that WebDataset skips."""
    match = _KEY_AND_EXTENSION.fullmatch(name)
    if match is None or _META.match(name):
        return None
    return match[1], match[2].lower()


class SampleReader:
    """Iterates over the samples of one source shard, once, in order.

    Reading is strict (see `StrictTar`), and the members of a sample must stand together. After the last
    sample `digest` is the sha256 of the tar, `head` that of its first 64 KiB, and `ignored` names the members
    that belong to no sample; `bytes` counts up to the size of the tar.

    Args:
        wanted: which extensions are read into memory; all by default.
        digests: whether `digest` and `head` are asked for. Without them, large members that are not wanted are not
            read from a local file.

    Iterating raises SourceError.
    """

    def __init__(
        self,
        files: Readable,
        path: str,
        wanted: Callable[[str], bool] = lambda _: True,
        allow_unterminated: bool = False,
        digests: bool = True,
    ) -> None:
        self._files = files
        self._path = path
        self._wanted = functools.lru_cache(wanted)
        self._allow_unterminated = allow_unterminated
        self._digests = digests
        self.digest = ""
        self.head = ""
        self.bytes = 0
        self.ignored: list[str] = []

    def __iter__(self) -> Iterator[Sample]:
        location = f"{self._files.root}/{self._path}"
        with source_errors(location), self._files.open(self._path) as stream:
            tar = StrictTar(stream, location, self._wants, self._allow_unterminated, self._digests)
            yield from group_members(self._counted(tar), location, self.ignored)
            self.bytes = tar.bytes
            if self._digests:
                self.digest, self.head = tar.digest, tar.head

    def _wants(self, name: str) -> bool:
        split = split_name(name)
        return split is not None and self._wanted(split[1])

    def _counted(self, tar: StrictTar) -> Iterator[Member]:
        for member in tar:
            self.bytes = tar.bytes
            yield member


@contextlib.contextmanager
def source_errors(location: str) -> Iterator[None]:
    """What goes wrong in reading the source shard at `location` as a SourceError."""
    try:
        yield
    except FileNotFoundError:
        raise SourceError(f"{location}: the source shard is gone; restore it and run again") from None
    except OSError as error:
        raise SourceError(f"{location}: cannot be read: {error}; run again when it can") from error


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


def read_samples(files: Readable, path: str) -> Iterator[Sample]:
    """All samples of one source shard with all their members. Raises SourceError."""
    return iter(SampleReader(files, path))
