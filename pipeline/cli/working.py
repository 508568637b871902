"""Commands that do the work: `vqtok train`, `tokenize` and `run`."""

import os
import sys
from typing import Any

import click

from pipeline.cli.options import allow_slow_option, allowances, config_arguments, with_config
from pipeline.config import Config
from pipeline.printing import say


class _Processes(click.IntRange):
    """A number of processes; None for `auto`."""

    name = "number of processes, nor auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value == "auto" else super().convert(value, param, ctx)


_processes = click.option(
    "--processes",
    "-n",
    type=_Processes(1),
    default=1,
    show_default=True,
    metavar="N|auto",
    help="Processes on this machine; auto: one or more for each GPU, as CPU cores allow, and one without a GPU.",
)
_allow_change = click.option(
    "--allow-change",
    is_flag=True,
    help="Train on in the folder of another configuration or other images; train.json notes what changed.",
)


@click.command()
@with_config
@_allow_change
@allow_slow_option
def train(config: Config, allow_change: bool, allow_slow: bool) -> None:
    """Train a tokenizer, or go on where training was interrupted.

    SIGTERM, SIGUSR1 and Ctrl-C save a checkpoint after the step at hand.
    """
    from pipeline.jobs.training import job
    from pipeline.world import end_process, launched_rank

    rank, size = launched_rank()
    try:
        result = job.run(config, allow_change=allow_change, allow_slow=allow_slow)
    except SystemExit as stop:  # by a signal
        if size != 1 and isinstance(stop.code, int):
            end_process(stop.code)
        raise
    if rank == 0:  # all ranks have the same result
        say(result)
    if size != 1:
        end_process()


@click.command()
@with_config
@click.option("--dry-run", is_flag=True, help="Only say what is pending, or why the job would be refused.")
@click.option("--no-wait", is_flag=True, help="Leave when nothing is pending but what others work on.")
@click.option("--no-progress", is_flag=True, help="No progress bar.")
@allowances
@_processes
def tokenize(config: Config, dry_run: bool, processes: int | None, **options: bool) -> None:
    """Write the tokens of a collection into a store.

    Run it again to resume. The same command runs under torchrun and accelerate launch, and any number of
    times side by side, on one machine or on many that share the store.
    """
    if dry_run:
        from pipeline.jobs.plan import make_plan, refuse_other_identity
        from pipeline.jobs.tokenizing.checked import refuse_what_differs
        from pipeline.models.folder.contents import has_tokenizer
        from pipeline.models.tokenizers.registry import layout_name

        plan = make_plan(config)
        say(plan)
        refuse_what_differs(plan, config, options["allow_other_sources"], options["check_files"])
        if plan.birth is not None:
            refuse_other_identity(plan.store, config)
        elif has_tokenizer(config.tokenizer.path):  # it may be trained later
            layout_name(config.tokenizer.path, config.tokenize.layout)
    else:
        from pipeline.jobs.tokenizing.command import tokenize_as_asked

        sys.exit(tokenize_as_asked(config, config_arguments(), processes, options))


@click.command()
@with_config
@_allow_change
@allowances
@_processes
@click.option(
    "--engine",
    type=click.Choice(["processes", "ray"]),
    default="processes",
    show_default=True,
    help="ray: tokenize as vqtok ray does, in N tasks on the cluster of RAY_ADDRESS or on one that is started here.",
)
def run(config: Config, allow_change: bool, processes: int | None, engine: str, **options: bool) -> None:
    """Train, tokenize and report, all in one.

    It trains unless there is a finished tokenizer.
    """
    from pipeline.jobs.tokenizing.checked import checked_plan, lost_tokenizer
    from pipeline.jobs.tokenizing.command import tokenize_as_asked
    from pipeline.jobs.training import job as train_job

    plan = checked_plan(
        config, options["allow_other_sources"], options["check_files"]
    )  # hours of training should not end in a refusal
    if plan.birth is not None and not train_job.has_one(config):
        raise lost_tokenizer(plan, config)
    trained = train_job.ensure(config, allow_change=allow_change, allow_slow=options["allow_slow"])
    say(trained or f"{config.tokenizer.path}: a tokenizer is there")
    options |= {"no_wait": False, "no_progress": False}
    known = None if trained and trained.trained else plan  # others may have gone on while it trained
    if engine == "ray":
        from pipeline.jobs.ray import job as ray_job
        from pipeline.jobs.ray.cluster import Request

        request = Request(os.environ.get("RAY_ADDRESS") or "local", processes)
        status = ray_job.run(config, config_arguments(), request, options, known)
    else:
        status = tokenize_as_asked(config, config_arguments(), processes, options, known)
    if status:
        sys.exit(status)
    from pipeline.jobs.reporting import job as report_job

    say(report_job.run(config))
