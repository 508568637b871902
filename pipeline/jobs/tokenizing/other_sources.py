"""Committed parts of source shards that a configuration does not name: a set that has moved on, or another set."""

from pipeline.errors import StoreError
from pipeline.jobs.plan import Plan


def other_parts(plan: Plan) -> int:
    """How many there are."""
    return len(plan.committed - plan.planned)


def describe_other_parts(plan: Plan) -> str | None:
    """A line for people; None where there are none."""
    count = other_parts(plan)
    if not count:
        return None
    one, many = "1 committed part is of a source shard", f"{count:,} committed parts are of source shards"
    parts = one if count == 1 else many
    return f"{plan.store.root}: {parts} that this configuration does not name"


def refuse_other_sources(plan: Plan) -> None:
    """Raise StoreError when the store holds parts, and not one of them is of this configuration.

    A set from which old source shards are removed while new ones come in passes as long as one is left.
    """
    if plan.committed and not plan.committed & plan.planned:
        raise StoreError(
            f"{plan.store.root}: holds {other_parts(plan):,} committed parts, none of them of the source shards of "
            f"this configuration, which would be added to them; name another tokenize.store, correct source.shards or "
            "source.base, or mix them with --allow-other-sources"
        )
