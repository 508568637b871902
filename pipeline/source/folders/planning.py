"""The source shards of a folder: those that are listed, and new ones of the files that are in no listing."""

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.errors import ConfigError
from pipeline.files import Files, files_at
from pipeline.records import Listing, SourceShard
from pipeline.source.extensions import CONTAINER
from pipeline.source.folders.listings import ListedPart, Listings, Mode
from pipeline.source.folders.names import FileSample, joined, samples_of, split_file_name
from pipeline.source.folders.scan import Scan, scan_folder
from pipeline.source.shards.naming import part_name
from pipeline.storage import Storage

SHARD_SAMPLES = 1024
"""Of a source shard, but for the last one of each time at which files came: full batches of any usual size."""
_PARTS_AT_ONCE = 64
"""Decided by one file of the log."""

IsImage = Callable[[str], bool]


def folder_shards(
    base: str,
    folder: str,
    is_image: IsImage,
    excluded: Collection[str],
    listings: Listings,
    scan_folder: Callable[[Files, str], Scan] = scan_folder,
    storage: Storage | None = None,
) -> Iterator[SourceShard]:
    """The source shards of the folder at `folder`, relative to `base`.

    Files are taken in the order of their keys. Those that came after the listing of their folder make source shards of
    their own; what has no image beside it is in none.

    Args:
        is_image: whether a file with this extension may be the image of its sample.
        excluded: patterns of files that are not listed.
        storage: how `base` is reached, where it is a URL.

    Raises ConfigError for a folder without images, OSError for one that cannot be read, CorruptStore.
    """
    leaves_out = _matcher(base, folder, excluded)
    while True:
        # In this order: what others list meanwhile, of files that come meanwhile, does not seem to be gone.
        log = listings.read(folder)
        scan = scan_folder(files_at(base, storage), folder)
        state = _State(scan, [part for parts in log for part in parts], leaves_out)
        new = [] if log and listings.mode is Mode.LISTED else list(_new_parts(folder, state, is_image))
        if listings.mode is not Mode.KEEP or _decide(folder, listings, log, new):
            break
    if not state.parts and not new:
        raise ConfigError(
            f"source.shards: {joined(base, folder)}: no image in it: {scan.extensions()}; name a folder of images, or "
            "the files, such as *.tar"
        )
    if state.late:
        listings.remarks.append(
            f"{joined(base, folder)}: {len(state.late):,} files came after their samples were listed, and are left "
            f"out, such as {min(state.late)!r}"
        )
    listings.remarks += _left_alone(joined(base, folder), state)
    for part in state.parts:
        yield _shard(base, storage, folder, part, state.missing_of(part), is_kept=True)
    for part in new:
        yield _shard(base, storage, folder, part, (), is_kept=listings.mode is Mode.KEEP)


def _left_alone(folder: str, state: "_State") -> list[str]:
    """What to say of tars and Parquet files among the images, which nobody reads here."""
    free = (joined(inside, name) for inside, names in state.free.items() for name in names)
    found = [path for path in free if CONTAINER.fullmatch(path)]
    return [left_alone(folder, found)] if found else []


def left_alone(folder: str, paths: Sequence[str]) -> str:
    """A remark on tars and Parquet files below a folder that are not read."""
    return (
        f"{folder}: tars or Parquet files are left alone in it, {len(paths):,} of them, such as {min(paths)!r}; where "
        "they hold images, name them in source.shards"
    )


def _decide(folder: str, listings: Listings, log: list[list[ListedPart]], new: list[ListedPart]) -> bool:
    """Write new parts down; False where another process wrote something down instead."""
    for start in range(0, len(new), _PARTS_AT_ONCE):
        parts = new[start : start + _PARTS_AT_ONCE]
        if not listings.add(folder, len(log), parts):
            return False
        log.append(parts)
    return True


@dataclass
class _State:
    """What there is, beside what is listed."""

    scan: Scan
    parts: list[ListedPart]
    leaves_out: Callable[[str], bool]
    missing: set[str] = field(default_factory=set)
    """Paths of files that are listed and no longer there."""
    free: dict[str, set[str]] = field(default_factory=dict)
    """Names of files in no listing, by folder."""
    late: list[str] = field(default_factory=list)
    """Paths of files that belong to samples that were listed without them."""

    def __post_init__(self) -> None:
        taken: dict[str, set[str]] = {}
        for part in self.parts:
            for folder, names in part.files.items():
                taken.setdefault(folder, set()).update(names)
        for folder in self.scan.names.keys() | taken.keys():
            found, listed = self.scan.names.get(folder, set()), taken.get(folder, set())
            if found != listed:
                self._compare(folder, found, listed)

    def _compare(self, folder: str, found: set[str], listed: set[str]) -> None:
        gone = (joined(folder, name) for name in listed - found)
        self.missing.update(path for path in gone if not self.leaves_out(path))
        stems = {split[0] for name in listed if (split := split_file_name(name))}
        for name in found - listed:
            split = split_file_name(name)
            if split is None or self.leaves_out(joined(folder, name)):
                continue
            if split[0] in stems:
                self.late.append(joined(folder, name))
            else:
                self.free.setdefault(folder, set()).add(name)

    def missing_of(self, part: ListedPart) -> tuple[str, ...]:
        if not self.missing:
            return ()
        paths = (joined(folder, name) for folder, names in part.files.items() for name in names)
        return tuple(sorted(path for path in paths if path in self.missing))


def _new_parts(folder: str, state: _State, is_image: IsImage) -> Iterator[ListedPart]:
    """Source shards of the samples that are in no listing, in the order of their keys."""
    samples = [
        sample for sample in samples_of(state.free) if any(is_image(extension) for extension, _ in sample.members)
    ]
    for start in range(0, len(samples), SHARD_SAMPLES):
        yield _part(folder, samples[start : start + SHARD_SAMPLES], state.scan)


def _part(folder: str, samples: list[FileSample], scan: Scan) -> ListedPart:
    files: dict[str, list[str]] = {}
    paths = [path for sample in samples for _, path in sample.members]
    for path in paths:
        inside, _, name = path.rpartition("/")
        files.setdefault(inside, []).append(name)
    return ListedPart(joined(folder, f"#{samples[0].key}"), sum(map(scan.bytes, paths)), files)


def _shard(
    base: str, storage: Storage | None, folder: str, part: ListedPart, missing: tuple[str, ...], is_kept: bool
) -> SourceShard:
    listing = Listing(folder, part.files, missing, is_kept)
    name = part_name(part.path)
    return SourceShard(path=part.path, base=base, part=name, bytes=part.bytes, listing=listing, storage=storage)


def _matcher(base: str, folder: str, excluded: Iterable[str]) -> Callable[[str], bool]:
    """Whether a path relative to the folder is left out: a pattern may be relative to the base, or whole."""
    matches = [re.compile(fnmatch.translate(pattern)).match for pattern in excluded]

    def leaves_out(path: str) -> bool:
        relative = joined(folder, path)
        return any(match(relative) or match(joined(base, relative)) for match in matches)

    return leaves_out if matches else lambda path: False
