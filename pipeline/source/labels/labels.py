"""The label of a sample, as `source.label` says."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.config import SourceConfig
from pipeline.config.label import LabelRule
from pipeline.errors import BadLabel, SourceError
from pipeline.records import NO_LABEL
from pipeline.source.labels.table import Table
from pipeline.source.labels.values import index_in, value_in_json
from pipeline.source.sample import Sample


@dataclass(frozen=True)
class Labels:
    """What samples are labelled by.

    Where there are no `classes`, names that a store would have an index for are no label: nobody asks for it then, as
    in training.
    """

    source: SourceConfig
    classes: Sequence[str] | None = None
    """Names of the classes, in the order of their indices."""
    table: Table | None = None
    """Labels by key."""

    def of(self, sample: Sample) -> int:
        """The class index, NO_LABEL without a label.

        Raises BadLabel where it is neither an integer nor the name of a class, SourceError for a name that the classes
        of the store lack.
        """
        rule = self._rule
        if rule is None:
            return NO_LABEL
        if rule.is_by_name:
            name = _name_in(sample.key, rule)
            return NO_LABEL if name is None else self._index_of(name)
        found = self._text(sample, rule)
        if found is None:
            return NO_LABEL
        text, where, shown = found
        index = index_in(text, where, shown)
        if index is not None:
            return index
        if not text.strip() or (self.classes is None and self.source.classes is None):
            raise BadLabel(f"{where} holds {shown!r}, not an integer; the names of classes go into source.classes")
        return self._index_of(text.strip())

    @cached_property
    def _rule(self) -> LabelRule | None:
        return self.source.label_rule

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.classes or ())}

    def _text(self, sample: Sample, rule: LabelRule) -> tuple[str, str, object] | None:
        """What is found, where, and how it is shown."""
        if rule.kind == "table":
            text = self.table.label_of(sample.key) if self.table else None
            return None if text is None else (text, rule.argument, text)
        data = sample.members.get(rule.member or "")
        if data is None:
            return None
        if rule.kind == "json":
            text = value_in_json(data, rule.argument)
            return None if text is None else (text, f".json at {rule.argument}", text[:40])
        try:
            return data.decode(), f".{rule.member}", data[:40]
        except UnicodeDecodeError:
            raise BadLabel(f".{rule.member} holds {data[:40]!r}, not an integer") from None

    def _index_of(self, name: str) -> int:
        if self.classes is None:
            return NO_LABEL
        index = self._indices.get(name)
        if index is None:
            raise SourceError(unknown_class(name, self.classes))
        return index


def unknown_class(name: str, classes: Sequence[str]) -> str:
    """What is wrong with a class that a store lacks, and what helps."""
    return (
        f"the class {name!r} is not among the {len(classes):,} of the store, which are fixed when it is made; name all "
        "of them in source.classes, and another tokenize.store"
    )


def _name_in(key: str, rule: LabelRule) -> str | None:
    folder, _, name = key.removeprefix("./").partition("/")
    if rule.kind == "folder":
        return folder if name else None
    before, separator, _ = key.rpartition("/")[2].partition(rule.argument)
    return before if separator and before else None
