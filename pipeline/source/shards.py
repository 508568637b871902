"""Which source shards a configuration names, and what each is called in the store."""

import fnmatch
import glob
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from braceexpand import braceexpand

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.records import SourceShard

_WILDCARD = re.compile(r"[*?\[{]")


def find_source_shards(source: SourceConfig) -> list[SourceShard]:
    """Expand the patterns of a configuration into source shards, sorted by part name.

    The order and the number of patterns make no difference to the result: a part is named after the path
    of its source shard relative to the base, and after nothing else.

    Raises ConfigError for a pattern that matches nothing, a missing file, a URL scheme that cannot be
    opened, a file outside `source.base`, and two files with one path relative to their bases.
    """
    if not source.shards:
        raise ConfigError("source.shards: names no source shards; give paths, globs or brace patterns")
    shards: dict[str, SourceShard] = {}
    for pattern in source.shards:
        base = Path(source.base).expanduser() if source.base else _literal_folder(pattern)
        for file in _expand(pattern):
            path = _relative(file, base)
            if _is_excluded(file, path, source.exclude):
                continue
            shard = SourceShard(path=path, base=str(base), part=part_name(path), bytes=Path(file).stat().st_size)
            other = shards.setdefault(path, shard)
            if Path(other.base).resolve() != base.resolve():
                raise ConfigError(
                    f"{Path(other.base, path)} and {file} are both {path} relative to their patterns' folders; "
                    "set source.base to a folder above both"
                )
    if not shards:
        raise ConfigError(f"source.shards: no source shards left: source.exclude matches all of {source.shards}")
    return sorted(shards.values(), key=lambda shard: shard.part)


def part_name(path: str) -> str:
    """Name of the part that the source shard at `path` (relative to its base) becomes."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", PurePosixPath(path).name.removesuffix(".tar"))[:100]
    return f"{stem}-{hashlib.sha256(path.encode()).hexdigest()[:12]}"


def _expand(pattern: str) -> list[str]:
    """Files that one pattern stands for: braces first, then globs."""
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
        return [local]  # a name with brackets in it is still a name
    names = list(braceexpand(local))
    missing = [name for name in names if not glob.has_magic(name) and not Path(name).is_file()]
    if missing:
        raise ConfigError(
            f"source.shards: {pattern!r}: {len(missing)} of {len(names)} source shards are missing, "
            f"first {missing[0]}; correct the pattern or the folder"
        )
    files = [
        file
        for name in names
        for file in (glob.glob(name, recursive=True) if glob.has_magic(name) else [name])
        if Path(file).is_file()
    ]
    if not files:
        raise ConfigError(f"source.shards: {pattern!r} matches no file; correct the pattern or the folder")
    return files


def _literal_folder(pattern: str) -> Path:
    """The folder named before the first wildcard of a pattern."""
    local = str(Path(pattern.removeprefix("file://")).expanduser())
    if Path(local).is_file():
        return Path(local).parent
    wildcard = _WILDCARD.search(local)
    return Path(local[: wildcard.start()] + "x").parent if wildcard else Path(local).parent


def _relative(file: str, base: Path) -> str:
    try:
        return Path(file).absolute().relative_to(base.absolute()).as_posix()
    except ValueError:
        raise ConfigError(f"source.base: {file} does not lie in {base}; name a folder above it") from None


def _is_excluded(file: str, path: str, patterns: Iterable[str]) -> bool:
    names = [name for pattern in patterns for name in braceexpand(pattern)]
    return any(fnmatch.fnmatch(path, name) or fnmatch.fnmatch(file, name) for name in names)
