"""Which source shards a configuration names, and what each is called in the store."""

import fnmatch
import glob
import hashlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from braceexpand import braceexpand

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.records import SourceShard

_WILDCARD = re.compile(r"[*?\[{]")


def find_source_shards(source: SourceConfig) -> list[SourceShard]:
    """Expand the patterns of a configuration into source shards, sorted by part name.

    The order and the number of patterns make no difference to the result: a part is named after the path
    of its source shard relative to the base, and after nothing else. An excluded file may be missing.

    Raises ConfigError for a pattern that matches nothing, a missing file, a URL scheme that cannot be
    opened, a file outside `source.base`, two files with one path relative to their bases, and one file
    with two.
    """
    if not source.shards:
        raise ConfigError("source.shards: names no file; give at least one tar")
    excluded = [name for pattern in source.exclude for name in _expand_braces(pattern, "source.exclude")]
    shards: dict[str, SourceShard] = {}
    paths: dict[Path, str] = {}
    try:
        for pattern in source.shards:
            for file, shard in _shards_of(pattern, source.base, excluded):
                other = shards.setdefault(shard.path, shard)
                if other is not shard and Path(other.base).resolve() != Path(shard.base).resolve():
                    raise ConfigError(
                        f"{Path(other.base, other.path)} and {file} are both {shard.path} relative to their "
                        "patterns' folders; set source.base to a folder above both"
                    )
                path = paths.setdefault(_absolute(file), shard.path)
                if path != shard.path:
                    raise ConfigError(
                        f"{file} is named by two patterns, as {path} and as {shard.path} relative to their "
                        "folders; leave one pattern out, or set source.base"
                    )
    except OSError as error:
        raise ConfigError(f"source.shards: {error}; see to the file or correct the pattern") from error
    if not shards:
        raise ConfigError(f"source.shards: no source shards left: source.exclude matches all of {source.shards}")
    return sorted(shards.values(), key=lambda shard: shard.part)


def part_name(path: str) -> str:
    """Name of the part that the source shard at `path` (relative to its base) becomes."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", PurePosixPath(path).name.removesuffix(".tar"))[:100]
    return f"{stem}-{hashlib.sha256(path.encode()).hexdigest()[:12]}"


def _shards_of(pattern: str, base: str | None, excluded: Collection[str]) -> Iterator[tuple[str, SourceShard]]:
    """Files of one pattern as they are named, with what they are as source shards."""
    folder = Path(base).expanduser() if base else _literal_folder(pattern)
    named = [(file, _relative(file, folder)) for file in _expand(pattern)]
    kept = [(file, path) for file, path in named if not _is_excluded(file, path, excluded)]
    missing = [file for file, _ in kept if not Path(file).is_file()]
    if missing:
        raise ConfigError(
            f"source.shards: {pattern!r}: {len(missing)} of {len(kept)} source shards are missing, "
            f"first {missing[0]}; correct the pattern or the folder, or name them in source.exclude"
        )
    for file, path in kept:
        yield file, SourceShard(path=path, base=str(folder), part=part_name(path), bytes=Path(file).stat().st_size)


def _expand(pattern: str) -> list[str]:
    """Files that one pattern stands for: braces first, then globs. Those it names outright may be missing."""
    if pattern.startswith("pipe:"):
        raise ConfigError(f"source.shards: {pattern!r}: commands are not run; give files")
    scheme, separator, _ = pattern.partition("://")
    if separator and scheme != "file":
        raise ConfigError(
            f"source.shards: {scheme}:// cannot be read yet ({pattern.partition('?')[0]}); "
            "copy or mount the collection as local files"
        )
    local = str(Path(pattern.removeprefix("file://")).expanduser())
    if Path(local).is_file():
        return [local]  # a name with braces in it is still a name
    files = [file for name in _expand_braces(local, "source.shards") for file in _expand_glob(name)]
    if not files:
        raise ConfigError(f"source.shards: {pattern!r} matches no file; correct the pattern or the folder")
    return files


def _expand_glob(name: str) -> list[str]:
    if Path(name).is_file() or not glob.has_magic(name):
        return [name]  # brackets, too, may be part of a name
    return [file for file in glob.glob(name, recursive=True) if not Path(file).is_dir()]


def _expand_braces(pattern: str, field: str) -> list[str]:
    try:
        return list(braceexpand(pattern))
    except ValueError:
        raise ConfigError(f"{field}: {pattern!r}: a brace is opened or closed alone; correct the pattern") from None


def _literal_folder(pattern: str) -> Path:
    """The folder named before the first wildcard of a pattern."""
    local = str(Path(pattern.removeprefix("file://")).expanduser())
    if Path(local).is_file():
        return Path(local).parent
    wildcard = _WILDCARD.search(local)
    return Path(local[: wildcard.start()] + "x").parent if wildcard else Path(local).parent


def _relative(file: str, base: Path) -> str:
    try:
        path = _absolute(file).relative_to(_absolute(base)).as_posix()
        path.encode()
        return path
    except UnicodeEncodeError:
        raise ConfigError(f"source.shards: {file!r}: its name is not UTF-8; rename the file") from None
    except ValueError:
        raise ConfigError(f"source.base: {file} does not lie in {base}; name a folder above it") from None


def _absolute(path: str | Path) -> Path:
    # `Path.absolute` keeps `..` and so finds /data/../other/a.tar below /data; `Path.resolve` follows links.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _is_excluded(file: str, path: str, excluded: Collection[str]) -> bool:
    return any(name in (path, file) or fnmatch.fnmatch(path, name) or fnmatch.fnmatch(file, name) for name in excluded)
