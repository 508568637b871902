"""The place of the source: which source shards there are, and whether they can be read from anywhere."""

from pipeline.config import Config
from pipeline.files import Files, is_url
from pipeline.jobs.checking.answers import REACH, blamed
from pipeline.jobs.checking.lines import Checks
from pipeline.jobs.plan import Plan, make_plan
from pipeline.records import SourceShard
from pipeline.source.find import find_source_shards
from pipeline.source.shards.opening import can_jump, read_bytes, shard_name

ABOUT = "source"
_RANGE_BYTES = 64 << 10
_PLACES = 8


def check_source(checks: Checks, config: Config, store: Files | None) -> tuple[list[SourceShard], Plan | None]:
    """The source shards, none where they cannot be found; and the plan of the job, where its store can be asked."""
    steps = REACH if any(map(is_url, config.source.shards)) else ("list",)

    def find() -> tuple[list[SourceShard], Plan | None]:
        if store is None:
            return find_source_shards(config.source), None
        plan = make_plan(config)
        return plan.shards, plan

    found = checks.attempt(
        ABOUT,
        steps,
        find,
        lambda found: _describe(found[0]),
        blame=blamed,
        at_most=3,  # a large folder takes its time
    )
    if found is None:
        return [], None
    shards, plan = found
    for remark in plan.remarks if plan else ():
        checks.add(ABOUT, "list", "note", remark)
    for shard in _one_of_each_place(shards):
        _read_a_range(checks, shard)
    return shards, plan


def _describe(shards: list[SourceShard]) -> str:
    count = f"{len(shards):,} source shard{'s' if len(shards) != 1 else ''}"
    if any(shard.bytes is None for shard in shards):
        return f"{count}, of commands whose output has no size"
    return f"{count}, {sum(shard.bytes or 0 for shard in shards) / 1e6:,.1f} MB"


def _one_of_each_place(shards: list[SourceShard]) -> list[SourceShard]:
    """Files in which a reader may jump, one in each of the first few folders and buckets."""
    files = [shard for shard in shards if shard.listing is None and shard.bytes and can_jump(shard)]
    return list({shard.base: shard for shard in reversed(files)}.values())[:_PLACES]


def _read_a_range(checks: Checks, shard: SourceShard) -> None:
    size = shard.bytes or 0
    start = size // 2
    expected = min(_RANGE_BYTES, size - start)

    def read() -> str:
        data = read_bytes(shard, start, _RANGE_BYTES)
        if len(data) != expected:
            raise OSError(f"{shard_name(shard)}: {len(data):,} of {expected:,} bytes from byte {start:,} on")
        return f"{expected:,} bytes in the middle of {shard.path}"

    name = "GET by range" if is_url(shard.base) else "read"
    checks.attempt(ABOUT, name, read, str)
