"""What there is to tokenize, and every reason not to that can be told without the tokenizer."""

from pipeline.config import Config
from pipeline.jobs.plan import Plan, make_plan, refuse_unwritable
from pipeline.jobs.tokenizing.other_sources import refuse_other_sources
from pipeline.jobs.tokenizing.replaced import refuse_replaced_sources
from pipeline.jobs.work.siblings import current_siblings


def checked_plan(config: Config, allow_other_sources: bool, check_files: bool = False) -> Plan:
    """The plan of a job that may go on in its store, as far as that can be told before there is a tokenizer.

    Each process that stands alone compares the whole, also under torchrun, so that none goes on where another
    refuses. For those that `--processes` starts the one that starts them has done it.

    Args:
        check_files: compare size and time of each file of a folder, too.

    Raises ConfigError for a source or a store that cannot be used, SourceError for source shards that were replaced
    after their commit, StoreError where all that is committed is of other source shards.
    """
    plan = make_plan(config)
    if current_siblings() is None:
        refuse_replaced_sources(plan, config.source, check_files)
        if not allow_other_sources:
            refuse_other_sources(plan)
    if plan.pending:
        refuse_unwritable(plan.store)
    return plan
