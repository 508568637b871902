"""The names of a collection's classes: found once, and frozen in the store, for a class that came later would shift the
indices of others."""

from collections.abc import Collection, Sequence

from pipeline.config import SourceConfig
from pipeline.errors import BadLabel, ConfigError, SourceError
from pipeline.records import JSON, SourceShard
from pipeline.source.classes.tables import read_lines, read_table, table_digest
from pipeline.source.labels.labels import Labels, unknown_class
from pipeline.source.labels.table import Table
from pipeline.source.labels.values import index_in
from pipeline.source.reading import class_names, open_shard
from pipeline.source.selection import Selection
from pipeline.source.shards.opening import shard_name

_SHOWN = 5
"""Classes at each end of a list that is shown."""


def read_classes(file: str) -> tuple[str, ...]:
    """The names in a file, one a line. Raises ConfigError."""
    names = [line.strip() for line in read_lines(file, "source.classes")]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise ConfigError(f"source.classes: {file}: it is empty; name the classes, one a line")
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            raise ConfigError(f"source.classes: {file}: line {number} is empty, and would be the class {number - 1}")
        if seen.setdefault(name, number) != number:
            raise ConfigError(f"source.classes: {file}: {name!r} stands in the lines {seen[name]} and {number}")
    return tuple(names)


def find_classes(source: SourceConfig, shards: Sequence[SourceShard]) -> tuple[str, ...] | None:
    """The classes that a new store is born with; None where labels are integers, of which nobody tells names.

    Raises ConfigError where they must be named, SourceError for a file that cannot be read.
    """
    if source.classes is not None:
        return read_classes(source.classes)
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


def classes_difference(source: SourceConfig, frozen: Sequence[str] | None) -> str | None:
    """How `source.classes` differs from the classes of a store; None if it does not. Raises ConfigError."""
    if source.classes is None:
        return None
    ours, theirs = read_classes(source.classes), tuple(frozen or ())
    if ours == theirs:
        return None
    if len(ours) != len(theirs):
        return f"{len(ours):,} classes here, {len(theirs):,} there"
    index = next(index for index, (here, there) in enumerate(zip(ours, theirs, strict=True)) if here != there)
    return f"class {index} is {ours[index]!r} here, {theirs[index]!r} there"


def refuse_other_names(shard: SourceShard, source: SourceConfig, classes: Sequence[str] | None) -> None:
    """Raise SourceError for a source shard that tells classes which the store lacks, or has in another order."""
    if classes is None or (names := class_names(shard, source)) is None:
        return
    if source.label == "folder":
        if unknown := set(names).difference(classes):
            raise SourceError(f"{shard_name(shard)}: {unknown_class(min(unknown), classes)}")
    elif source.classes is None and names != tuple(classes):
        raise SourceError(
            f"{shard_name(shard)}: its classes are others than those of the store, or in another order; name those "
            "that count in source.classes, and another tokenize.store"
        )


def labels_of(source: SourceConfig, classes: Sequence[str] | None, shards: Sequence[SourceShard]) -> Labels:
    """What the samples of a job are labelled by.

    A table of one label a line needs the keys of all source shards: those that are not listed are read for it.
    Raises ConfigError, SourceError.
    """
    rule = source.label_rule
    if rule is None or rule.kind != "table":
        return Labels(source, classes)
    table = read_table(rule.argument)
    _refuse_unknown_labels(table, classes)
    if not table.by_key:
        table = table.with_keys([key for shard in shards for key in _keys_of(shard, source)])
    return Labels(source, classes, table)


def _keys_of(shard: SourceShard, source: SourceConfig) -> list[str]:
    """The keys of the samples that have an image."""
    is_image = Selection(source).is_image
    samples = open_shard(shard, source, contents=False, digests=False)
    return [sample.key for sample in samples if any(map(is_image, sample.members))]


def _refuse_unknown_labels(table: Table, classes: Collection[str] | None) -> None:
    known = frozenset(classes or ())
    for label in table.labels:
        try:
            is_known = label in known or index_in(label, table.file, label) is not None
        except BadLabel as error:
            raise ConfigError(f"source.label: {error}") from None
        if not is_known:
            what = f"is not among the {len(known):,} classes" if known else "is no integer"
            raise ConfigError(f"source.label: {table.file}: {label!r} {what}; name all classes in source.classes")


def source_identity(source: SourceConfig) -> JSON:
    """All that decides what a row holds beside its tokens; of a table its contents. Raises ConfigError."""
    rule = source.label_rule
    if rule is None or rule.kind != "table":
        return source.identity()
    return {**source.identity(), "label": f"table:{table_digest(rule.argument)}"}


def describe_classes(classes: Sequence[str]) -> str:
    """Which name has which index, for people; of many the first and last ones."""
    numbered = [f"{index} = {name}" for index, name in enumerate(classes)]
    if len(numbered) > 2 * _SHOWN:
        numbered = [*numbered[:_SHOWN], "...", *numbered[-_SHOWN:]]
    return f"{len(classes):,} classes: {', '.join(numbered)}"
