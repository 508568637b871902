"""Commands about a store that a job has begun: `vqtok status`, `verify`, `show`, `clean` and `report`."""

import sys

import click

from pipeline.cli.options import Finite, allow_slow_option, as_json_option, say_result, with_config
from pipeline.cli.storage_option import with_storage
from pipeline.config import Config
from pipeline.printing import one_line, say, say_json
from pipeline.storage import Storage


@click.command()
@with_config
@click.option(
    "--watch",
    "-w",
    "every_s",
    type=Finite(0.1),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Look again every 2 or so many seconds until the job is complete or Ctrl-C; with --json, a line each time.",
)
@as_json_option
def status(config: Config, every_s: float | None, as_json: bool) -> None:
    """Say how far a job is, from any terminal or host."""
    from pipeline.jobs.status import job, watching
    from pipeline.jobs.status.table import status_table
    from pipeline.jobs.terminal import fitted

    if every_s is not None:
        watching.watch(config, every_s, as_json)
        return
    result = job.run(config)
    say_result(result, as_json, lambda status: fitted(status_table(status), sys.stdout))
    sys.exit(1 if result.damaged else 0)


def _share(ctx: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1:  # false for nan, too
        raise click.BadParameter(f"{value} is no share of the rows; give one above 0 and at most 1, such as 0.01")
    return value


@click.command()
@with_config
@click.option("--quick", is_flag=True, help="Only records, codebook, sizes and entity tags.")
@click.option(
    "--rate",
    type=float,
    callback=_share,
    metavar="R",
    help="Also encode this share of the rows again, such as 0.01: exact on the same kind of hardware.",
)
@click.option(
    "--without-source",
    is_flag=True,
    help="Only the store, such as a copy of it: neither source nor tokenizer need be here.",
)
@allow_slow_option
@as_json_option
def verify(
    config: Config, quick: bool, rate: float | None, without_source: bool, allow_slow: bool, as_json: bool
) -> None:
    """Check a store against its source; exit status 1 on any loss.

    Without --quick every key, every checksum and every token is checked. Parts of source shards that the configuration
    does not name are checked without them.
    """
    from pipeline.jobs.verifying.commits import check_commits

    if quick and rate is not None:
        raise click.UsageError("--quick reads no rows, so it cannot encode any again; leave out --quick or --rate.")
    if without_source and rate is not None:
        raise click.UsageError("Rows are encoded again from the source; leave out --without-source or --rate.")
    show_progress = sys.stderr.isatty()
    result = check_commits(config, not without_source, entity_tags=quick)
    if rate is not None and not allow_slow and not result.problems:
        from pipeline.jobs.verifying.reencoding import refuse_slow_encoding

        refuse_slow_encoding(config)
    if not quick:
        from pipeline.jobs.verifying.contents import check_contents

        check_contents(config, result, show_progress, not without_source)
    if rate is not None:
        from pipeline.jobs.verifying.reencoding import encode_again

        encode_again(config, result, rate, show_progress)
    say_result(result, as_json)
    sys.exit(1 if result.problems else 0)


@click.command()
@click.argument("store")
@click.argument("key")
@with_storage("STORE")
@as_json_option
def show(store: str, key: str, storage: Storage, as_json: bool) -> None:
    """Print every sample with this key.

    Of each its tokens and where it came from, or why it was rejected. STORE is the folder or URL of a token
    store. Write -- before a KEY that begins with a dash.
    """
    from pipeline.jobs.showing import job
    from pipeline.jobs.showing.text import as_text

    found = job.run(store, key, show_progress=sys.stderr.isatty(), storage=storage)
    if as_json:
        say_json(found.to_json(), is_data=True, indent=None)
    else:
        say(as_text(found), is_data=True)
    for message in found.damaged:
        say(f"vqtok: not all could be read: {one_line(message)}", error=True)
    sys.exit(1 if found.damaged else 0)


@click.command()
@with_config
@as_json_option
def clean(config: Config, as_json: bool) -> None:
    """Delete what interrupted jobs left behind.

    A part is what one source shard becomes. An attempt to write one is deleted only when another attempt at it is
    committed, so this is safe while jobs run.
    """
    from pipeline.jobs import clean as job

    result = job.run(config)
    say_result(result, as_json)
    sys.exit(1 if result.damaged else 0)


@click.command()
@with_config
def report(config: Config) -> None:
    """Write report.html for a finished store.

    It has figures and pictures; the figures are printed, too.
    """
    from pipeline.jobs.reporting import job

    result = job.run(config)
    say(result)
    sys.exit(1 if result.damaged else 0)
