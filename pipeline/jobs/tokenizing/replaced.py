"""Refuses to go on when committed source shards are no longer the files that were tokenized."""

from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor

from pipeline.config import SourceConfig
from pipeline.errors import SourceError
from pipeline.jobs.plan import Plan
from pipeline.records import SourceRecord, SourceShard
from pipeline.source.reading import difference
from pipeline.source.shards.opening import shard_name
from pipeline.store.schema import names
from pipeline.store.schema.commits import read_commits

_READS = 16
_NAMED = 3


def refuse_replaced_sources(plan: Plan, source: SourceConfig, check_files: bool = False) -> None:
    """Raise SourceError naming source shards whose size or beginning is not that of their commit.

    A file of the same size and version (modification time or entity tag) is taken for the same, and of one
    whose version alone differs the first 64 KiB are read: copied collections pass. Whole digests are
    compared by `vqtok verify`. Of a folder's files names are compared; with `check_files`, size and version of each.
    """
    records = recorded(plan, plan.committed & plan.planned)
    present = [shard for shard in plan.shards if shard.part in records]

    def reason_of(shard: SourceShard) -> str | None:
        return difference(shard, source, records[shard.part], check_files)

    with ThreadPoolExecutor(_READS) as reads:
        reasons = list(reads.map(reason_of, present))
    replaced = [(shard, reason) for shard, reason in zip(present, reasons, strict=True) if reason]
    if replaced:
        first = "; ".join(f"{shard_name(shard)}: {reason}" for shard, reason in replaced[:_NAMED])
        raise SourceError(
            f"{len(replaced)} source shards were replaced after they were committed: {first}. Restore them or give "
            f"the new files new names; to tokenize one anew, delete its record in {plan.store.root}/{names.COMMITS} "
            f"and {names.MANIFEST}"
        )


def recorded(plan: Plan, parts: Set[str]) -> dict[str, SourceRecord]:
    """What the source shards of committed parts were when they were tokenized, by part."""
    known = {part.part: part.sources[0] for part in plan.manifest.parts} if plan.manifest else {}
    others = read_commits(plan.store, sorted(parts - known.keys()))
    return {part: known[part] for part in parts & known.keys()} | {c.part: c.sources[0] for c in others}
