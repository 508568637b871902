"""Samples of a source shard: members grouped by their WebDataset key."""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pipeline.errors import SourceError
from pipeline.files import Readable
from pipeline.source.tar import StrictTar

# https://github.com/webdataset/webdataset: the key ends at the first dot of the file's own name. One deviation:
# there `photos/.DS_Store` is a sample `photos/`; here a dotfile belongs to no sample in any folder.
_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True)
class Sample:
    """One image with its fellow files."""

    index: int
    """Position among the samples of the source shard."""
    key: str
    """The `__key__`."""
    members: dict[str, bytes | None] = field(repr=False)
    """Contents by extension in lower case; None for members that were not wanted."""


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

    Iterating raises SourceError.
    """

    def __init__(
        self,
        files: Readable,
        path: str,
        wanted: Callable[[str], bool] = lambda _: True,
        allow_unterminated: bool = False,
    ) -> None:
        self._files = files
        self._path = path
        self._wanted = functools.lru_cache(wanted)
        self._allow_unterminated = allow_unterminated
        self.digest = ""
        self.head = ""
        self.bytes = 0
        self.ignored: list[str] = []

    def __iter__(self) -> Iterator[Sample]:
        location = f"{self._files.root}/{self._path}"
        try:
            with self._files.open(self._path) as stream:
                tar = StrictTar(stream, location, self._wants, self._allow_unterminated)
                yield from self._group(tar, location)
                self.digest, self.head, self.bytes = tar.digest, tar.head, tar.bytes
        except FileNotFoundError:
            raise SourceError(f"{location}: the source shard is gone; restore it and run again") from None
        except OSError as error:
            raise SourceError(f"{location}: cannot be read: {error}; run again when it can") from error

    def _wants(self, name: str) -> bool:
        split = split_name(name)
        return split is not None and self._wanted(split[1])

    def _group(self, tar: StrictTar, location: str) -> Iterator[Sample]:
        sample: Sample | None = None
        seen: set[str] = set()
        for name, offset, data in tar:
            self.bytes = tar.bytes
            split = split_name(name)
            if split is None:
                self.ignored.append(name)
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
                sample = Sample(len(seen) - 1, key, {})
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
