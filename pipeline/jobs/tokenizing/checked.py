"""What there is to tokenize, and every reason not to that can be told without the tokenizer."""

from collections.abc import Sequence

from pipeline.config import Config, SourceConfig
from pipeline.errors import IdentityMismatch, StoreError
from pipeline.files import Files
from pipeline.jobs.plan import Plan, make_plan, refuse_unwritable
from pipeline.jobs.tokenizing.other_sources import refuse_other_sources
from pipeline.jobs.tokenizing.replaced import refuse_replaced_sources
from pipeline.jobs.work.siblings import current_siblings
from pipeline.source.classes.names import classes_difference
from pipeline.store.schema.birth import refuse_lost_birth
from pipeline.store.schema.manifest import lost_parts, lost_records, refuse_lost_arrays


def checked_plan(config: Config, allow_other_sources: bool, check_files: bool = False) -> Plan:
    """The plan of a job that may go on in its store, as far as that can be told before there is a tokenizer.

    Each process that stands alone compares the whole, also under torchrun, so that none goes on where another
    refuses. For those that `--processes` starts the one that starts them has done it.

    Args:
        check_files: compare size and time of each file of a folder, too.

    Raises ConfigError for a source or a store that cannot be used, SourceError for source shards that were replaced
    after their commit, StoreError where all that is committed is of other source shards, CorruptStore where records or
    arrays of the store are gone.
    """
    plan = make_plan(config)
    refuse_what_differs(plan, config, allow_other_sources, check_files)
    return plan


def refuse_what_differs(plan: Plan, config: Config, allow_other_sources: bool, check_files: bool = False) -> None:
    """Compare a plan with what is committed. Arguments, and what it raises, as of `checked_plan`."""
    if plan.birth is None:
        refuse_lost_birth(plan.store)
    else:
        refuse_other_classes(plan.store, config.source, plan.birth.classes)
    if current_siblings() is None:
        if lost := lost_parts(plan.store, plan.manifest, plan.committed):
            raise lost_records(plan.store, lost)
        if plan.manifest:
            refuse_lost_arrays(plan.store, plan.manifest.parts)
        refuse_replaced_sources(plan, config.source, check_files)
        if not allow_other_sources:
            refuse_other_sources(plan)
    if plan.pending:
        refuse_unwritable(plan.store)


def lost_tokenizer(plan: Plan, config: Config) -> StoreError:
    """The error for a store that is there, and whose tokenizer is not: before hours of training end in a refusal."""
    return StoreError(
        f"{plan.store.root}: holds tokens of a tokenizer that is not in {config.tokenizer.path}, and one that is "
        "trained now makes others: restore the tokenizer, or name another tokenize.store"
    )


def refuse_other_classes(store: Files, source: SourceConfig, frozen: Sequence[str] | None) -> None:
    """Raise IdentityMismatch where `source.classes` is not what the store was born with."""
    if difference := classes_difference(source, frozen):
        raise IdentityMismatch(
            f"{store.root}: source.classes: {source.classes}: not the classes of the store (there): {difference}. They "
            "are fixed when it is made, for the indices of its labels would change: name another tokenize.store, or go "
            "back to that file"
        )
