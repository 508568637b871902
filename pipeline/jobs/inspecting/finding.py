"""The source shards of what a user names, and the keys of the section `source` that they need."""

from collections.abc import Set
from pathlib import Path
from typing import NamedTuple

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError, SourceError
from pipeline.records import SourceShard
from pipeline.source.extensions import CONTAINER
from pipeline.source.find import find_source_shards
from pipeline.source.folders.listings import Listings
from pipeline.source.folders.planning import left_alone
from pipeline.source.reading import open_shard
from pipeline.source.shards.opening import absolute, location
from pipeline.storage import Storage

_FILES = ("*.tar", "*.tar.*", "*.tgz", "*.parquet")


class Collection(NamedTuple):
    """What is looked at."""

    source: SourceConfig
    shards: list[SourceShard]
    remarks: list[str]
    """On what lies beside them."""


def find_collection(name: str, storage: Storage) -> Collection:
    """Find the source shards of a path, pattern or URL. A local folder may hold images, or tars, or Parquet files.

    Raises ConfigError where there is nothing of the kind.
    """
    source, listings = SourceConfig(shards=(name,), label=None, storage=storage), Listings()
    try:
        found = Collection(source, find_source_shards(source, listings), listings.remarks)
    except ConfigError as error:
        found = _files_of(name, error)
    return _of_inner_tars(found)


def _files_of(name: str, error: ConfigError) -> Collection:
    """The tars or Parquet files of a folder without images. Raises `error` where there are none."""
    folder = Path(name.removeprefix("file://")).expanduser()
    if folder.is_dir():
        for place in ("", "**/"):
            for kind in _FILES:
                if next(folder.glob(place + kind), None):
                    source = SourceConfig(shards=(f"{name.rstrip('/')}/{place}{kind}",), label=None)
                    shards = find_source_shards(source)
                    return Collection(source, shards, _beside(folder, {location(shard) for shard in shards}))
    raise error


def _beside(folder: Path, looked_at: Set[str]) -> list[str]:
    """What to say of files of another kind; not of the tables that img2dataset leaves beside its tars."""
    files = [path for path in folder.rglob("*") if CONTAINER.fullmatch(path.name)]
    files = [path for path in files if str(absolute(path)) not in looked_at]
    others = [path for path in files if path.suffix != ".parquet" or not path.with_suffix(".tar").exists()]
    return [left_alone(str(folder), [str(path.relative_to(folder)) for path in others])] if others else []


def _of_inner_tars(found: Collection) -> Collection:
    """The same, where the files are tars of tars as those inside."""
    first = found.shards[0]
    if first.listing is not None or not _holds_tars(first, found.source):
        return found
    source = found.source.model_copy(update={"nested": True})
    return Collection(source, find_source_shards(source), found.remarks)


def _holds_tars(shard: SourceShard, source: SourceConfig) -> bool:
    """Whether the first sample of a source shard is a tar. A file that cannot be read is none."""
    try:
        first = next(iter(open_shard(shard, source, contents=False, digests=False)), None)
    except (SourceError, ConfigError):
        return False
    return first is not None and all(name.split(".")[0] in ("tar", "tgz") for name in first.members)
