"""Committed parts of source shards that a configuration does not name: a set that has moved on, or another set."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline.errors import SourceError, StoreError
from pipeline.jobs.plan import Plan
from pipeline.jobs.tokenizing.replaced import recorded
from pipeline.records import SourceRecord, SourceShard
from pipeline.source.shards.identity import head_digest
from pipeline.source.shards.opening import shard_name

_READS = 16
_NAMED = 3


def other_parts(plan: Plan) -> int:
    """How many there are."""
    return len(plan.committed - plan.planned)


def describe_other_parts(plan: Plan) -> str | None:
    """A line for people; None where there are none."""
    count = other_parts(plan)
    if not count:
        return None
    one, many = "1 committed part is of a source shard", f"{count:,} committed parts are of source shards"
    parts, rows = (one, "its rows") if count == 1 else (many, "their rows")
    return f"{plan.store.root}: {parts} that this configuration does not name; readers read {rows} all the same"


def refuse_other_sources(plan: Plan) -> None:
    """Raise StoreError when the store holds parts, and not one of them is of this configuration.

    A set from which old source shards are removed while new ones come in passes as long as one is left, unless a new
    one is an old one of another name: its samples would be in the store twice.
    """
    if plan.committed and not plan.committed & plan.planned:
        raise StoreError(
            f"{plan.store.root}: holds {other_parts(plan):,} committed parts, none of them of the source shards of "
            f"this configuration, which would be added to them; name another tokenize.store, correct source.shards or "
            "source.base, or mix them with --allow-other-sources"
        )
    if plan.pending and (renamed := _renamed(plan)):
        first = "; ".join(f"{shard_name(shard)} is what {record.path} was" for shard, record in renamed[:_NAMED])
        raise StoreError(
            f"{plan.store.root}: {len(renamed):,} of the source shards are committed under other names, as far as size "
            f"and first 64 KiB tell, and their samples would be in the store twice: {first}. Give them back their "
            "names, leave them out with source.exclude, or take them in all the same with --allow-other-sources"
        )


def _renamed(plan: Plan) -> list[tuple[SourceShard, SourceRecord]]:
    """Pending source shards, each with the source of a part that the configuration does not name and that it equals."""
    there: dict[int, dict[str, SourceRecord]] = {}
    for record in recorded(plan, plan.committed - plan.planned).values():
        if record.head:
            there.setdefault(record.bytes, {})[record.head] = record

    def found(shard: SourceShard) -> SourceRecord | None:
        try:
            return there[shard.bytes or 0].get(head_digest(shard))
        except (OSError, SourceError):  # whoever tokenizes it says so
            return None

    candidates = [shard for shard in plan.pending if shard.listing is None and shard.bytes in there]
    with ThreadPoolExecutor(_READS) as reads:
        records: Sequence[SourceRecord | None] = list(reads.map(found, candidates))
    return [(shard, record) for shard, record in zip(candidates, records, strict=True) if record is not None]
