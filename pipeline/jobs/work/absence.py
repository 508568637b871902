"""A source shard of which no sample has what the configuration asks for: said once, while the job is young."""

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence

from pipeline.config import SourceConfig
from pipeline.printing import printable, say
from pipeline.records import NO_LABEL, SourceShard
from pipeline.source.labels.table import Table
from pipeline.source.sample import Sample
from pipeline.source.shards.opening import shard_name

_SHOWN = 20
"""Names of members in a message."""


class Absence:
    """What is to be said of it, by all lanes of a process together.

    Args:
        is_said: whether by this process: of several one speaks.
        table: where labels are looked up, if they stand in a file.
    """

    def __init__(self, source: SourceConfig, is_said: bool = False, table: Table | None = None) -> None:
        self._source = source
        self._table = table
        self._is_said = is_said
        self._lock = threading.Lock()

    def look(
        self,
        shard: SourceShard,
        keys: Sequence[str],
        labels: Collection[int],
        fields: Iterable[str],
        members: Collection[str],
    ) -> None:
        """Look at the rows of a source shard.

        Args:
            fields: names of those that are kept.
            members: extensions, or columns, that its samples have, rejects among them.
        """
        if not labels:
            return
        absent = [f"source.keep: {name}" for name in fields if name not in members]
        if self._source.label is not None and all(label == NO_LABEL for label in labels):
            absent.insert(
                0, f"source.label: {self._source.label}{self._table.none_for(keys[0]) if self._table else ''}"
            )
        with self._lock:
            if not absent or not self._is_said:
                return
            self._is_said = False
        say(self._message(shard, absent, members), error=True)

    def _message(self, shard: SourceShard, absent: list[str], members: Collection[str]) -> str:
        named = ", ".join(map(printable, sorted(members)[:_SHOWN])) + (", ..." if len(members) > _SHOWN else "")
        return (
            f"vqtok: {shard_name(shard)}: no sample has what the configuration asks for ({'; '.join(absent)}); there "
            f"is: {named}. Name what is there, or nothing (source.label: null, source.keep: []), in a store of its own"
        )


def noting_members(samples: Iterable[Sample], members: set[str]) -> Iterator[Sample]:
    """`samples`; what they have is added to `members`."""
    for sample in samples:
        members.update(sample.members)
        yield sample
