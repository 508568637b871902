"""The names of a collection's classes, as files and stores have them. Imports neither pyarrow nor numpy."""

from collections.abc import Sequence

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.printing import printable
from pipeline.records import JSON
from pipeline.source.classes.tables import read_lines, table_digest
from pipeline.storage import Storage

_SHOWN = 5
"""Classes at each end of a list that is shown."""


def read_classes(file: str, storage: Storage | None = None) -> tuple[str, ...]:
    """The names in a file, one a line. Raises ConfigError."""
    names = [line.strip() for line in read_lines(file, "source.classes", storage)]
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


def classes_difference(source: SourceConfig, frozen: Sequence[str] | None) -> str | None:
    """How `source.classes` differs from the classes of a store; None if it does not. Raises ConfigError."""
    if source.classes is None:
        return None
    ours, theirs = read_classes(source.classes, source.storage), tuple(frozen or ())
    if ours == theirs:
        return None
    if len(ours) != len(theirs):
        return f"{len(ours):,} classes here, {len(theirs):,} there"
    index = next(index for index, (here, there) in enumerate(zip(ours, theirs, strict=True)) if here != there)
    return f"class {index} is {ours[index]!r} here, {theirs[index]!r} there"


def source_identity(source: SourceConfig) -> JSON:
    """All that decides what a row holds beside its tokens; of a table its contents. Raises ConfigError."""
    rule = source.label_rule
    if rule is None or rule.kind != "table":
        return source.identity()
    return {**source.identity(), "label": f"table:{table_digest(rule.argument, source.storage)}"}


def describe_classes(classes: Sequence[str]) -> str:
    """Which name has which index, for people; of many the first and last ones."""
    numbered = [f"{index} = {printable(name)}" for index, name in enumerate(classes)]
    if len(numbered) > 2 * _SHOWN:
        numbered = [*numbered[:_SHOWN], "...", *numbered[-_SHOWN:]]
    return f"{len(classes):,} classes: {', '.join(numbered)}"
