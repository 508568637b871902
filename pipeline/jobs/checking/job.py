"""Try all that a job of a configuration needs, and say of each thing whether it is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.files import Files
from pipeline.jobs.checking.lines import Checks, Line
from pipeline.jobs.checking.model import TIMES, Model, check_model, check_training, is_to_be_trained
from pipeline.jobs.checking.source import check_source
from pipeline.jobs.checking.space import check_space
from pipeline.jobs.checking.store import check_store
from pipeline.jobs.plan import Plan, is_finished
from pipeline.jobs.tokenizing.checked import lost_tokenizer, refuse_what_differs
from pipeline.process.signals import terminable
from pipeline.records import JSON, SourceShard
from pipeline.source.classes.names import describe_classes
from pipeline.store.schema.birth import refuse_other_birth

if TYPE_CHECKING:
    from pipeline.jobs.checking.way import Way
    from pipeline.source.labels.labels import Labels

SECONDS = 20.0
# Of these, so that a server that is down can be told by what it answers, or does not.
_SHARE = 0.8


def run(config: Config, seconds: float = SECONDS, show: Callable[[Line], object] = lambda line: None) -> Checks:
    """Try store, source, tokenizer and one image, and look whether the job may go on in its store.

    Nothing is left in the store.

    Args:
        seconds: how long a line may take; those for which much is read or loaded may take a few times as long.
        show: called with each line as soon as it is known.
    """
    checks, config = Checks(seconds, show), _impatient(config, _SHARE * seconds)
    with terminable():
        store = check_store(checks, config)
        shards, plan = check_source(checks, config, store)
        to_train = is_to_be_trained(config)
        if to_train:
            check_training(checks, config)
        labels = _find_labels(checks, config, shards, plan)
        classes = tuple(labels.classes) if labels and labels.classes else None
        model = None if to_train else check_model(checks, config, classes)
        way = _check_way(checks, config, shards, labels, model, store) if shards else None
        if plan is not None and plan.pending and model is not None and way is not None and way.begun is not None:
            kept = way.begun.field_bytes(config.source.keep)
            check_space(checks, plan.store, plan.pending, model.birth, way.begun.sample_bytes, kept)
        if plan is not None:
            _check_job(checks, config, plan, to_train, model, way.row.execution if way and way.row else None)
    return checks


def _impatient(config: Config, seconds: float) -> Config:
    """The same, where nothing is tried again for longer."""

    sections = {}
    for name in ("source", "tokenize", "tokenizer"):
        section = getattr(config, name)
        storage = section.storage.model_copy(update={"patience_s": min(section.storage.patience_s, seconds)})
        sections[name] = section.model_copy(update={"storage": storage})
    return config.model_copy(update=sections)


def _check_way(
    checks: Checks,
    config: Config,
    shards: list[SourceShard],
    labels: Labels | None,
    model: Model | None,
    store: Files | None,
) -> Way:
    from pipeline.jobs.checking.way import check_way  # imports torch

    return check_way(checks, config, shards, labels, model, store)


def _find_labels(checks: Checks, config: Config, shards: list[SourceShard], plan: Plan | None) -> Labels | None:
    """What samples are labelled by; None where that cannot be told."""
    if not shards:
        return None

    def find() -> Labels:
        from pipeline.source.classes.finding import find_classes, labels_of

        classes = plan.birth.classes if plan and plan.birth else find_classes(config.source, shards)
        return labels_of(config.source, classes, shards)

    def describe(labels: Labels) -> str:
        rule = f"source.label: {config.source.label or 'null'}"
        return f"{rule}, {describe_classes(labels.classes)}" if labels.classes else rule

    return checks.attempt("source", "labels", find, describe, at_most=TIMES)


def _check_job(
    checks: Checks, config: Config, plan: Plan, to_train: bool, model: Model | None, execution: JSON | None
) -> None:
    """Whether it would begin its store, go on in it or be refused, by what `vqtok tokenize` compares."""

    def compare() -> str:
        refuse_what_differs(plan, config, allow_other_sources=False)
        if plan.birth is None:
            return f"{plan}; it would begin the store"
        if to_train:
            raise lost_tokenizer(plan, config)
        if model is not None:
            refuse_other_birth(plan.store, model.birth, plan.birth)
        if execution is not None:
            from pipeline.jobs.work.execution import refuse_other_execution

            refuse_other_execution(plan, execution)
        if model is not None and is_finished(plan, config):
            return f"{plan}; there is nothing to do"
        return f"{plan}; it would go on in the store"

    checks.attempt("job", "resume", compare, str, at_most=3)
