"""Commands for before a job begins: `vqtok sample`, `inspect`, `init`, `check` and `estimate`."""

import sys
from pathlib import Path

import click

from pipeline.cli.options import Finite, as_json_option, say_result, with_config
from pipeline.cli.storage_option import with_storage
from pipeline.config import Config
from pipeline.printing import say, say_json
from pipeline.storage import Storage

_SHIPPED = ("sample", "sample-var", "cifar10", "imagenet256", "var256", "llamagen256")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def sample(folder: Path) -> None:
    """Make a sample data set of real photographs.

    It comes into FOLDER, without a download.
    """
    from pipeline.jobs.sampling import job

    say(job.run(folder))


@click.command()
@click.argument("source")
@click.option("--seconds", type=Finite(0.1), default=20.0, show_default=True, help="About how long to look.")
@with_storage("SOURCE")
@as_json_option
def inspect(source: str, seconds: float, storage: Storage, as_json: bool) -> None:
    """Say what a collection holds, and what would be rejected.

    SOURCE is a folder, a file, a pattern or a URL: whatever source.shards may name. Of a large collection some
    samples of some source shards are looked at.
    """
    from pipeline.jobs.inspecting import job
    from pipeline.jobs.inspecting.text import as_text

    found = job.run(source, show_progress=sys.stderr.isatty(), seconds=seconds, storage=storage)
    say_result(found, as_json, as_text)
    sys.exit(1 if found.problems else 0)


@click.command()
@click.argument("source", required=False)
@click.option("--like", type=click.Choice(_SHIPPED), help="Print one that comes with vqtok.")
@with_storage("SOURCE")
def init(source: str | None, like: str | None, storage: Storage) -> None:
    """Print a configuration that fits a collection, to begin with.

    SOURCE is a folder, a file, a pattern or a URL. Without it the configuration of the sample data set is printed,
    which explains every key.
    """
    from pipeline.jobs.inspecting import job
    from pipeline.jobs.inspecting.proposal import proposal, shipped

    if source is not None and like is not None:
        raise click.UsageError("give SOURCE or --like, not both.")
    if source is None:
        say(shipped(like or "sample"), is_data=True, end="")
        return
    say(proposal(job.run(source, show_progress=sys.stderr.isatty(), storage=storage)), end="")


@click.command()
@with_config
@click.option(
    "--seconds",
    type=Finite(0.1),
    default=20.0,
    show_default=True,
    help="How long to wait for each answer.",
)
@as_json_option
def check(config: Config, seconds: float, as_json: bool) -> None:
    """Try all that a job needs, before it begins.

    The places of store and source, by each kind of request; the tokenizer; one image, all the way; and whether the job
    may go on in its store. What is written for that is deleted again. Exit status 1 where something is missing.
    """
    from pipeline.jobs.checking import job
    from pipeline.world import end_process

    result = job.run(config, seconds, show=lambda line: None if as_json else say(line))
    if as_json:
        say_json(result.to_json())
    if result.is_abandoned:
        end_process(1)  # libraries would wait for what nobody waits for any more
    sys.exit(1 if result.failed else 0)


@click.command()
@with_config
@click.option("--processes", "-n", type=click.IntRange(1), default=1, show_default=True, help="How many there will be.")
@click.option("--price", type=Finite(0), metavar="P", help="Of an hour of one process: its GPU, or machine.")
@click.option("--seconds", type=Finite(0, 60), default=20.0, show_default=True, help="About how long to measure.")
@as_json_option
def estimate(config: Config, processes: int, price: float | None, seconds: float, as_json: bool) -> None:
    """Estimate hours, bytes and cost before they are spent.

    Some images of some source shards go through all stages, here and now. Nothing is written into the store.
    """
    from pipeline.jobs.estimating import job
    from pipeline.jobs.estimating.text import as_text

    found = job.run(config, processes, price, seconds)
    say_result(found, as_json, as_text)
