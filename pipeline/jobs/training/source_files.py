"""Which files a training reads, by what they are and not by where they lie. Needs no torch."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.jobs.training.changes import Change
from pipeline.records import Record, SourceShard
from pipeline.source.find import find_source_shards
from pipeline.source.shards.identity import SourceFile, is_same_file, source_file

_READS = 16


class Sources(Record):
    """The files of `source.shards` and of `train.holdout`, by their paths relative to the base."""

    shards: dict[str, SourceFile]
    holdout: dict[str, SourceFile]


def held_out_shards(config: Config) -> list[SourceShard]:
    """The source shards that `train.holdout` names; none when it is empty. Raises ConfigError."""
    if not config.train.holdout:
        return []
    patterns = {"shards": config.train.holdout, "base": None, "exclude": ()}
    try:
        return find_source_shards(config.source.model_copy(update=patterns))
    except ConfigError as error:
        raise ConfigError(str(error).replace("source.shards", "train.holdout")) from error


def read_sources(config: Config, known: Sources | None) -> Sources:
    """What the files are now; of those that are `known` nothing is read. Raises ConfigError."""
    return Sources(
        shards=_describe(find_source_shards(config.source), known.shards if known else {}),
        holdout=read_holdout(config, known),
    )


def read_holdout(config: Config, known: Sources | None) -> dict[str, SourceFile]:
    """The same of the held-out files alone."""
    return _describe(held_out_shards(config), known.holdout if known else {})


def changed_shards(config: Config, then: Sources) -> list[Change]:
    """Source shards that have come, gone, or are other files than then. Raises ConfigError."""
    return _changes("source.shards", find_source_shards(config.source), then.shards)


def changed_holdout(config: Config, then: Sources) -> list[Change]:
    """The same of held-out source shards."""
    return _changes("train.holdout", held_out_shards(config), then.holdout)


def _describe(shards: Iterable[SourceShard], known: Mapping[str, SourceFile]) -> dict[str, SourceFile]:
    def describe(shard: SourceShard) -> SourceFile:
        file = known.get(shard.path)
        unchanged = file is not None and (file.bytes, file.version) == (shard.bytes, shard.version)
        return file if file is not None and unchanged else source_file(shard)

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
    return f"{file.bytes:,} bytes, sha256 of the first 64 KiB {file.head[:12]}"
