"""Which files a training reads, by what they are and not by where they lie. Needs no torch."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.files import LocalFiles
from pipeline.jobs.training.changes import Change
from pipeline.records import Record, SourceShard
from pipeline.source.find import find_source_shards
from pipeline.source.folders.listings import Listings, Mode
from pipeline.source.shards.identity import SourceFile, is_same_file, source_file

_READS = 16
_HOLDOUT = "holdout"
"""Where in the tokenizer folder files of held-out folders are listed."""


class Sources(Record):
    """The files of `source.shards` and of `train.holdout`, by their paths relative to the base."""

    shards: dict[str, SourceFile]
    holdout: dict[str, SourceFile]


def found_shards(config: Config, mode: Mode = Mode.LOOK) -> list[SourceShard]:
    """The source shards that `source.shards` names. Files of folders are listed in the tokenizer folder.

    Raises ConfigError.
    """
    return find_source_shards(config.source, Listings(LocalFiles(config.tokenizer.path), mode))


def held_out_shards(config: Config, mode: Mode = Mode.LOOK) -> list[SourceShard]:
    """The source shards that `train.holdout` names; none when it is empty. Raises ConfigError."""
    if not config.train.holdout:
        return []
    patterns = {"shards": config.train.holdout, "base": None, "exclude": ()}
    listings = Listings(LocalFiles(Path(config.tokenizer.path, _HOLDOUT)), mode)
    try:
        return find_source_shards(config.source.model_copy(update=patterns), listings)
    except ConfigError as error:
        raise ConfigError(str(error).replace("source.shards", "train.holdout")) from error


def read_sources(config: Config, known: Sources | None, mode: Mode = Mode.LOOK) -> Sources:
    """What the files are now; of those that are `known` nothing is read. Raises ConfigError."""
    return Sources(
        shards=_describe(found_shards(config, mode), known.shards if known else {}),
        holdout=read_holdout(config, known, mode),
    )


def read_holdout(config: Config, known: Sources | None, mode: Mode = Mode.LOOK) -> dict[str, SourceFile]:
    """The same of the held-out files alone."""
    return _describe(held_out_shards(config, mode), known.holdout if known else {})


def changed_shards(config: Config, then: Sources) -> list[Change]:
    """Source shards that have come, gone, or are other files than then. Raises ConfigError."""
    return _changes("source.shards", found_shards(config), then.shards)


def changed_holdout(config: Config, then: Sources) -> list[Change]:
    """The same of held-out source shards."""
    return _changes("train.holdout", held_out_shards(config), then.holdout)


def _describe(shards: Iterable[SourceShard], known: Mapping[str, SourceFile]) -> dict[str, SourceFile]:
    def describe(shard: SourceShard) -> SourceFile:
        file = known.get(shard.path)
        if file is not None and shard.version and (file.bytes, file.version) == (shard.bytes, shard.version):
            return file
        return source_file(shard)

    shards = list(shards)
    with ThreadPoolExecutor(_READS) as reads:
        files = list(reads.map(describe, shards))
    return {shard.path: file for shard, file in zip(shards, files, strict=True)}


def _changes(field: str, shards: Iterable[SourceShard], then: Mapping[str, SourceFile]) -> list[Change]:
    now = {shard.path: shard for shard in shards}

    def change(path: str) -> Change | None:
        here, there = now.get(path), then.get(path)
        if here and there and is_same_file(here, **there.model_dump()):
            return None
        return Change(
            f"{field}[{path}]",
            here=_in_words(source_file(here)) if here else None,
            there=_in_words(there) if there else None,
        )

    with ThreadPoolExecutor(_READS) as reads:
        changes = list(reads.map(change, sorted(now.keys() | then.keys())))
    return [change for change in changes if change is not None]


def _in_words(file: SourceFile) -> str:
    if file.bytes is None:
        return "the output of a command"
    if not file.version:
        return f"files of {file.bytes:,} bytes, their names {file.head[:12]}"
    return f"{file.bytes:,} bytes, sha256 of the first 64 KiB {file.head[:12]}"
