"""The command line: parse, call the job, print its result, translate errors.

Every command loads its job when it is called: importing torch takes seconds, and `--help` should not.
"""

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from pipeline import __version__
from pipeline.config import Config, load_config
from pipeline.errors import VqtokError

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    """Commands whose user errors end in one message and an exit status, not in a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VqtokError as error:
            click.echo(f"vqtok: {error}", err=True)
            ctx.exit(error.exit_status)


@click.group(cls=_Commands, context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="vqtok")
def main() -> None:
    """Turn image collections into VQ tokens for autoregressive training."""


def _with_config(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--config` and `--set`, and hand it the checked configuration."""

    @click.option(
        "--config", "path", required=True, metavar="FILE", help="YAML configuration, such as configs/sample.yaml."
    )
    @click.option(
        "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one value; repeatable."
    )
    @wraps(command)
    def wrapped(path: str, overrides: tuple[str, ...], **options: Any) -> None:
        command(load_config(path, overrides), **options)

    return wrapped


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@main.command()
@click.argument("folder", type=click.Path())
def sample(folder: str) -> None:
    """Make a sample data set of real photographs in FOLDER, without a download."""
    from pipeline.jobs import sample as job

    click.echo(str(job.run(Path(folder))))


@main.command()
@_with_config
def train(config: Config) -> None:
    """Train a tokenizer, or go on where training was interrupted."""
    from pipeline.jobs import train as job

    click.echo(str(job.run(config)))


@main.command()
@_with_config
@click.option("--dry-run", is_flag=True, help="Only say what is pending.")
@click.option("--no-wait", is_flag=True, help="Leave when nothing is pending but what others work on.")
@click.option("--allow-execution-change", is_flag=True, help="Go on with another precision, device or library version.")
@click.option(
    "--processes", "-n", type=click.IntRange(1), default=1, show_default=True, help="Processes on this machine."
)
@click.option("--no-progress", is_flag=True, help="No progress bar.")
def tokenize(
    config: Config,
    dry_run: bool,
    no_wait: bool,
    allow_execution_change: bool,
    processes: int,
    no_progress: bool,
) -> None:
    """Write the tokens of a collection into a store; run it again to resume.

    The same command runs under torchrun and accelerate launch, any number of times side by side, on one
    machine or many that share the store.
    """
    from pipeline.jobs.plan import is_finished, make_plan

    plan = make_plan(config)
    if dry_run:
        size = sum(shard.bytes for shard in plan.pending)
        click.echo(f"{len(plan.pending)} of {len(plan.shards)} source shards pending, {size:,} bytes")
        return
    if is_finished(plan, config):
        click.echo(f"{config.tokenize.store}: all {len(plan.shards)} source shards are committed; nothing to do")
        return
    if processes > 1:
        from pipeline.jobs.launch import launch

        sys.exit(launch(_without_processes(sys.argv[1:]), processes))
    from pipeline.jobs import tokenize as job

    result = job.run(
        config,
        wait=not no_wait,
        allow_execution_change=allow_execution_change,
        show_progress=not no_progress,
    )
    for path, reason in result.failures.items():
        click.echo(f"vqtok: {path} stays pending: {reason}", err=True)
    if result.images or not result.complete:
        rate = f" at {result.images / result.seconds:.0f} images/s" if result.images else ""
        click.echo(f"this process: {result.images:,} images{rate}")
    click.echo(f"{config.tokenize.store}: {result.committed} of {result.planned} source shards committed")
    sys.exit(0 if result.complete else 1)


@main.command()
@_with_config
@_json_option
def status(config: Config, as_json: bool) -> None:
    """Say how far a tokenization job is, from any terminal or host."""
    from pipeline.jobs import status as job

    result = job.run(config)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=1))
        return
    click.echo(f"{result.store}: {result.done} of {result.planned} source shards committed")
    click.echo(f"{result.written:,} samples written, {result.rejected:,} rejected")
    if result.images_per_second:
        click.echo(f"{result.images_per_second:,.0f} images/s since the first commit")
    if result.eta_seconds is not None:
        click.echo(f"about {result.eta_seconds / 60:,.0f} min to go")
    for claim in result.running:
        click.echo(f"running  {claim['part']} on {claim['host']}, process {claim['pid']}: {claim['images']:,} images")
    for failure in result.failed:
        click.echo(f"failed   {failure['source']} at {failure['time']}: {failure['reason']}")
    for part in result.unplanned:
        click.echo(f"extra    {part} is committed, but of no source shard of this configuration")
    if result.complete:
        click.echo("complete")


@main.command()
@_with_config
@click.option("--quick", is_flag=True, help="Only commits and sizes.")
@_json_option
def verify(config: Config, quick: bool, as_json: bool) -> None:
    """Check a store against its source; exit status 1 on any loss."""
    from pipeline.jobs.verify import check_commits

    result = check_commits(config)
    if not quick:
        from pipeline.jobs.contents import check_contents

        check_contents(config, result, show_progress=not as_json and sys.stderr.isatty())
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=1))
    else:
        click.echo(
            f"{len(result.commits)} parts, {result.samples:,} samples, {result.rejected:,} rejected; "
            f"{result.rows_encoded_again} rows encoded again, {result.rows_that_differ} differ"
        )
        for warning in result.warnings:
            click.echo(f"warning: {warning}")
        for problem in result.problems:
            click.echo(f"problem: {problem}")
        if result.content_digest:
            click.echo(f"content digest {result.content_digest}")
        click.echo("ok" if not result.problems else f"{len(result.problems)} problems")
    sys.exit(1 if result.problems else 0)


@main.command()
@_with_config
def report(config: Config) -> None:
    """Write report.html with figures and pictures of a finished store, and print the figures."""
    from pipeline.jobs import report as job

    click.echo(str(job.run(config)))


def _without_processes(arguments: list[str]) -> list[str]:
    """The command line of one process: the same without `--processes N` in its spellings."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in ("--processes", "-n"):
            skip = True
        elif not argument.startswith(("--processes=", "-n")):
            kept.append(argument)
    return kept
