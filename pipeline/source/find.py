"""Which source shards a configuration names, and what each is called in the store."""

import fnmatch
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError, SourceError
from pipeline.files import is_url
from pipeline.files.refusals import is_passing, with_remedy
from pipeline.files.secret_urls import refuse_credentials
from pipeline.printing import printable
from pipeline.records import SourceShard, Stretch
from pipeline.redaction import PIPE, redacted_place
from pipeline.source.folders.listings import Listings
from pipeline.source.folders.planning import folder_shards
from pipeline.source.selection import Selection
from pipeline.source.shards.naming import part_name
from pipeline.source.shards.opening import absolute, location, shard_name
from pipeline.source.shards.patterns import expand, expand_braces, literal_folder


def find_source_shards(source: SourceConfig, listings: Listings | None = None) -> list[SourceShard]:
    """Expand the patterns of a configuration into source shards, sorted by part name.

    The order and the number of patterns make no difference to the result: a part is named after the path
    of its source shard relative to the base, and after nothing else. An excluded file may be missing.

    Args:
        listings: where it is written down which files of a folder make which source shard.

    Raises ConfigError for a pattern that matches nothing, a missing file, a URL that cannot be opened, a
    command without `source.allow_pipe`, a file outside `source.base`, two files with one path relative to
    their bases, one file with two, and a folder that lies in another; SourceError where a server does not answer;
    CorruptStore for damaged listings.
    """
    if not source.shards:
        raise ConfigError("source.shards: names no file; give at least one tar")
    if source.base is not None:
        refuse_credentials(source.base, "source.base")
    excluded = [name for pattern in source.exclude for name in expand_braces(pattern, "source.exclude")]
    listings = listings or Listings()
    shards: dict[str, SourceShard] = {}
    paths: dict[str, str] = {}
    try:
        for pattern in source.shards:
            for shard in _shards_of(pattern, source, excluded, listings):
                other = shards.setdefault(shard.path, shard)
                if other is not shard and location(other) != location(shard):
                    raise ConfigError(
                        f"{shard_name(other)} and {shard_name(shard)} are both {printable(shard.path)} relative to "
                        "their patterns' folders; set source.base to a folder above both"
                    )
                path = paths.setdefault(location(shard), shard.path)
                if path != shard.path:
                    raise ConfigError(
                        f"{shard_name(shard)} is named by two patterns, as {printable(path)} and as "
                        f"{printable(shard.path)} relative to their folders; leave one pattern out, or set source.base"
                    )
    except OSError as error:
        refused = SourceError if is_passing(error) else ConfigError  # a configuration is not wrong of a server's outage
        raise refused(f"source.shards: {with_remedy(error, 'see to the file or correct the pattern')}") from error
    refuse_overlap(shards.values())
    if not shards:
        shown = ", ".join(map(redacted_place, source.shards))
        raise ConfigError(f"source.shards: no source shards left: source.exclude matches all of {shown}")
    return sorted(shards.values(), key=lambda shard: shard.part)


def refuse_overlap(shards: Iterable[SourceShard], field: str = "source.shards") -> None:
    """Raise ConfigError where files of one folder are those of another, which it lies in, or are called the same."""
    places: dict[str, str] = {}
    for shard in shards:
        if shard.listing is not None:
            place = _place(shard.base, shard.listing.folder)
            called = places.setdefault(place, shard.listing.folder)
            if called != shard.listing.folder:
                raise ConfigError(
                    f"{field}: {printable(place)} is named twice, as {printable(called)} and as "
                    f"{printable(shard.listing.folder)} relative to its base; "
                    "leave one out"
                )
    for outer in places:
        for inner in places:
            if inner.startswith(f"{outer.rstrip('/')}/") and inner != outer:
                raise ConfigError(
                    f"{field}: {printable(inner)} lies in {printable(outer)}, so that its images would be taken twice; "
                    "leave one of them out"
                )
    if len(set(places.values())) < len(places):
        raise ConfigError(
            f"{field}: {' and '.join(map(printable, sorted(places)))} have one path relative to their patterns' "
            "folders; set source.base to a folder above them"
        )


def refuse_among_images(output: str, shards: Iterable[SourceShard], field: str) -> None:
    """Raise ConfigError for a local folder that images lie in: as a store or a tokenizer it would hide them."""
    if not Path(output).is_dir():
        return
    place = os.path.realpath(output)
    for shard in shards:
        if shard.listing is None or is_url(shard.base):
            continue
        top = _place(shard.base, shard.listing.folder)
        if os.path.commonpath([top, place]) not in (top, place):
            continue
        for inside in shard.listing.files:
            folder = os.path.normpath(f"{top}/{inside}")
            if folder == place or folder.startswith(f"{place}/"):
                raise ConfigError(
                    f"{field}: {printable(output)} holds images of the collection, such as those in "
                    f"{printable(folder)}, which would be passed over from then on; name a folder of its own"
                )


def _place(base: str, folder: str) -> str:
    """A folder, the same text however it is named."""
    return f"{base}/{folder}".rstrip("/") if is_url(base) else os.path.realpath(Path(base, folder))


def _shards_of(
    pattern: str, source: SourceConfig, excluded: Collection[str], listings: Listings
) -> Iterator[SourceShard]:
    """What the files and folders of one pattern are as source shards."""
    if pattern.startswith(PIPE):
        if source.nested:
            raise ConfigError(
                "source.nested: a tar in the output of a command cannot be read where it lies; give a file"
            )
        yield from _commands(pattern, source.allow_pipe)
        return
    folder = _folder(source.base or literal_folder(pattern))
    named = [(found, _relative(found.file, folder)) for found in expand(pattern, source.storage)]
    kept = [(found, path) for found, path in named if not _is_excluded(found.file, path, excluded)]
    missing = [found.file for found, _ in kept if found.stat is None and not found.is_folder]
    if missing:
        raise ConfigError(
            f"source.shards: {redacted_place(pattern)!r}: {len(missing)} of {len(kept)} source shards are missing, "
            f"first {printable(missing[0])}; correct the pattern or the folder, or name them in source.exclude"
        )
    for found, path in kept:
        if found.is_folder:
            is_image = Selection(source).is_image
            inside = "" if path == "." else path
            of_folder = folder_shards(folder, inside, is_image, excluded, listings, storage=source.storage)
            yield from (shard for shard in of_folder if not _is_excluded(location(shard), shard.path, excluded))
            continue
        assert found.stat is not None
        shard = SourceShard(
            path=path,
            base=folder,
            part=part_name(path),
            bytes=found.stat.bytes,
            version=found.stat.version,
            storage=source.storage,
        )
        yield from _inner_shards(shard, source, excluded) if source.nested else [shard]


def _inner_shards(outer: SourceShard, source: SourceConfig, excluded: Collection[str]) -> Iterator[SourceShard]:
    """The source shards that lie in a file. Raises ConfigError for two of one name."""
    from pipeline.source.containers.registry import shards_in  # imports numpy, which commands that look need not

    names: set[str] = set()
    try:
        for name, start, size in shards_in(outer, source):
            if name in names:
                raise ConfigError(
                    f"source.nested: {shard_name(outer)}: holds two files {printable(name)}; rename one and repack"
                )
            names.add(name)
            path = f"{outer.path}#{name}"
            if not _is_excluded(f"{location(outer)}#{name}", path, excluded):
                inside = Stretch(file=outer.path, start=start)
                update = {"path": path, "part": part_name(path), "bytes": size, "inside": inside}
                yield outer.model_copy(update=update)
    except SourceError as error:
        raise ConfigError(str(error)) from error


def _commands(pattern: str, allowed: bool) -> Iterator[SourceShard]:
    """The source shards of a `pipe:` pattern, named after a digest of their commands, which may hold secrets."""
    if not allowed:
        raise ConfigError(
            "source.shards: the command of a pipe: source runs only with "
            "source.allow_pipe=true; set it for configurations that you trust, or give files or URLs"
        )
    for command in expand_braces(pattern, "source.shards"):
        tars = re.findall(r"([\w.-]+)\.tar\b", command) or ["output"]
        path = f"pipe/{hashlib.sha256(command.encode()).hexdigest()[:16]}/{tars[-1]}.tar"
        yield SourceShard(path=path, base=command, part=part_name(path), bytes=None)


def _folder(base: str) -> str:
    return base.rstrip("/") if is_url(base) else str(Path(base.removeprefix("file://")).expanduser())


def _relative(file: str, base: str) -> str:
    try:
        if is_url(file) and file.startswith(f"{base}/"):
            path = file[len(base) + 1 :]
        else:
            path = absolute(file).relative_to(absolute(base)).as_posix()
        path.encode()
        return path
    except UnicodeEncodeError:
        raise ConfigError(f"source.shards: {file!r}: its name is not UTF-8; rename the file") from None
    except ValueError:
        raise ConfigError(
            f"source.base: {printable(file)} does not lie in {printable(base)}; name a folder above it"
        ) from None


def _is_excluded(file: str, path: str, excluded: Collection[str]) -> bool:
    return any(name in (path, file) or fnmatch.fnmatch(path, name) or fnmatch.fnmatch(file, name) for name in excluded)
