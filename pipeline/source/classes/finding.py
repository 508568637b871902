"""What a collection tells of its classes: found once, and frozen in the store.

A class that came later would shift the indices of others."""

from collections.abc import Collection, Sequence

from pipeline.config import SourceConfig
from pipeline.errors import BadLabel, ConfigError, SourceError
from pipeline.files import is_url
from pipeline.records import SourceShard
from pipeline.source.classes.names import read_classes
from pipeline.source.classes.tables import read_table
from pipeline.source.labels.labels import Labels, unknown_class
from pipeline.source.labels.table import Table
from pipeline.source.labels.values import index_in
from pipeline.source.reading import class_names, open_shard
from pipeline.source.selection import Selection
from pipeline.source.shards.opening import shard_name


def find_classes(source: SourceConfig, shards: Sequence[SourceShard]) -> tuple[str, ...] | None:
    """The classes that a new store is born with; None where labels are integers, of which nobody tells names.

    Raises ConfigError where they must be named, SourceError for a file that cannot be read.
    """
    if source.classes is not None:
        return read_classes(source.classes, source.storage)
    rule = source.label_rule
    if rule is None:
        return None
    if rule.kind == "prefix":
        raise ConfigError(f"source.classes: source.label = {source.label} needs a file with the names of all classes")
    if rule.kind == "folder":
        return _folders(source, shards)
    first = min(shards, key=lambda shard: shard.part, default=None)
    return None if first is None else class_names(first, source)


def _folders(source: SourceConfig, shards: Sequence[SourceShard]) -> tuple[str, ...] | None:
    found: set[str] = set()
    for shard in shards:
        names = class_names(shard, source)
        if names is None:
            raise ConfigError(
                f"source.classes: source.label = folder finds the classes of folders by itself, but "
                f"{shard_name(shard)} would have to be read first; name them in a file"
            )
        found.update(names)
    return tuple(sorted(found)) or None


def refuse_other_names(shard: SourceShard, source: SourceConfig, classes: Sequence[str] | None) -> None:
    """Raise SourceError for a source shard that tells classes which the store lacks, or has in another order."""
    if classes is None or (names := class_names(shard, source)) is None:
        return
    if source.label == "folder":
        if unknown := set(names).difference(classes):
            name = min(unknown)
            raise SourceError(
                f"{shard_name(shard)}: {unknown_class(name, classes)}. Where it does not belong here, move it "
                f"away and name {name + '/*'!r} below its folder in source.exclude: its samples are rejects then"
            )
    elif source.classes is None and names != tuple(classes):
        raise SourceError(
            f"{shard_name(shard)}: its classes are others than those of the store, or in another order; name those "
            "that count in source.classes, and another tokenize.store"
        )


def labels_of(source: SourceConfig, classes: Sequence[str] | None, shards: Sequence[SourceShard]) -> Labels:
    """What the samples of a job are labelled by.

    A table of one label a line needs the keys of all source shards: of local files they are read for it, by every
    process of a job. Raises ConfigError, SourceError.
    """
    rule = source.label_rule
    if rule is None or rule.kind != "table":
        return Labels(source, classes)
    table = read_table(rule.argument, source.storage)
    _refuse_unknown_labels(table, classes)
    if not table.by_key:
        _refuse_distant_files(table, shards)
        table = table.with_keys([key for shard in shards for key in _keys_of(shard, source)])
    return Labels(source, classes, table)


def _refuse_distant_files(table: Table, shards: Sequence[SourceShard]) -> None:
    """Raise ConfigError where the keys could only be known by fetching everything once for each process."""
    for shard in shards:
        if shard.listing is None and (is_url(shard.base) or shard.bytes is None):
            raise ConfigError(
                f"source.label: {table.file}: a label a line is for collections whose keys are known before they are "
                f"read, and {shard_name(shard)} would have to be fetched for them; write `key,label` lines instead"
            )


def _keys_of(shard: SourceShard, source: SourceConfig) -> list[str]:
    """The keys of the samples that have an image."""
    is_image = Selection(source).is_image
    samples = open_shard(shard, source, contents=False, digests=False)
    return [sample.key for sample in samples if any(map(is_image, sample.members))]


def _refuse_unknown_labels(table: Table, classes: Collection[str] | None) -> None:
    known = frozenset(classes or ())
    for name, label in table.by_key.items() or enumerate(table.in_order, 1):
        try:
            is_known = label in known or index_in(label, table.file, label) is not None
        except BadLabel as error:
            raise ConfigError(f"source.label: {error}") from None
        if not is_known:
            what = f"is not among the {len(known):,} classes" if known else "is no integer"
            where = f" of {name!r}" if table.by_key else f", number {name}, where a comma would separate it from a key,"
            raise ConfigError(
                f"source.label: {table.file}: the label {label!r}{where} {what}; name all classes in source.classes"
            )
