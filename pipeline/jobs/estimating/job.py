"""Estimate what a job will take, before the hours are spent."""

from pipeline.config import Config
from pipeline.jobs.estimating.estimate import Estimate
from pipeline.jobs.estimating.measuring import measure
from pipeline.jobs.plan import make_plan

SECONDS = 20.0


def run(config: Config, processes: int = 1, price: float | None = None, seconds: float = SECONDS) -> Estimate:
    """Tokenize some images for about `seconds`, leaving the store alone, and reckon what the whole collection takes.

    Args:
        processes: how many there will be, each with what this one has.
        price: of an hour of one of them.

    Raises VqtokError as tokenizing does.
    """
    plan = make_plan(config)
    measured = measure(config, plan, seconds)
    size = sum(shard.bytes or 0 for shard in plan.shards)
    return Estimate(len(plan.shards), size, measured, processes, price)
