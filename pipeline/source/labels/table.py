"""Labels that stand in a file beside the images."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Table:
    """What the file says."""

    file: str
    by_key: Mapping[str, str]
    """Empty where labels have no keys."""
    in_order: Sequence[str]
    """Labels in the order of the keys; empty where they have keys."""

    @property
    def labels(self) -> Collection[str]:
        """All labels."""
        return self.by_key.values() or self.in_order

    def with_keys(self, keys: Collection[str]) -> "Table":
        """The same table with the keys of a collection. Raises ConfigError where they are not as many as the labels."""
        if len(keys) != len(self.in_order):
            raise ConfigError(
                f"source.label: {self.file}: {len(self.in_order):,} labels, and the collection has {len(keys):,} "
                "images: a label a line is for all of them, in the order of their keys; write `key,label` lines instead"
            )
        if len(set(keys)) < len(keys):
            raise ConfigError(
                f"source.label: {self.file}: some keys are in several source shards, so that they have no order; a "
                "table is for collections whose keys are unique"
            )
        return Table(self.file, dict(zip(sorted(keys), self.in_order, strict=True)), ())

    def none_for(self, key: str) -> str:
        """What to say where no sample is found here: the key of one, and one that is here, to show the difference."""
        line = next(iter(self.by_key), None)
        return f", which has lines such as that of {line!r}, and none for {key!r}"

    def label_of(self, key: str) -> str | None:
        """That of a sample: by its key, or by the last name in it."""
        key = key.removeprefix("./")
        found = self.by_key.get(key)
        return self.by_key.get(key.rpartition("/")[2]) if found is None else found
