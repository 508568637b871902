"""`vqtok export`: its options, most of which belong to some of the formats."""

import sys
from typing import Any, get_args

import click

from pipeline.cli.storage_option import with_storage
from pipeline.jobs.exporting.request import FormatName, Request
from pipeline.printing import say
from pipeline.storage import Storage


def _view(ctx: click.Context, parameter: click.Parameter, text: str | None) -> int | str | None:
    """A view's number, `all` or `rows`."""
    if text is None or text in ("all", "rows"):
        return text
    if not text.isdecimal():
        raise click.BadParameter(f"{text!r} is neither the number of a view, nor 'all' or 'rows'.")
    return int(text)


_token = click.IntRange(0)


@click.command()
@click.argument("store")
@click.argument("out")
@click.option("--format", required=True, type=click.Choice(get_args(FormatName)), help="See docs/export.md.")
@click.option(
    "--order",
    type=click.Choice(["raster", "blocks"]),
    help="Of an image's tokens: row by row of its grid (the default, where the blocks cover one), or by block.",
)
@click.option(
    "--view",
    callback=_view,
    metavar="N|all|rows",
    help="Of a store with views: one of each row, all in one row, or each as a row of its own.",
)
@click.option(
    "--name", show_default="imagenet and the image size", help="llamagen: what the folders' names begin with."
)
@click.option("--offset", type=_token, default=0, help="megatron, bin: added to each token.")
@click.option("--bos", type=_token, help="megatron, bin: id before the tokens of an image.")
@click.option("--eos", type=_token, help="megatron, bin: id behind them.")
@click.option("--eol", type=_token, help="megatron, bin: id behind each row of the grid.")
@click.option("--label-offset", type=_token, help="megatron, bin: put label + this id before the tokens.")
@click.option("--rows-per-file", type=click.IntRange(1), help="Of formats with several files: rows in each, at most.")
@click.option("--binary", multiple=True, metavar="FIELD", help="parquet: a kept field that is no text; repeatable.")
@click.option("--partial", is_flag=True, help="Export what is committed, though source shards are still pending.")
@click.option(
    "--processes", "-n", type=click.IntRange(1), default=1, show_default=True, help="Processes on this machine."
)
@with_storage("STORE")
def export(store: str, out: str, processes: int, storage: Storage, **options: Any) -> None:
    """Write tokens in a format that trainers read.

    OUT is a new folder, which appears when all is written; until then it is OUT.partial, and the same command goes on
    where it was interrupted. STORE is the folder or URL of a token store.
    """
    from pipeline.jobs.exporting import job

    request = Request(**options)
    say(job.run(store, out, request, processes, show_progress=sys.stderr.isatty(), storage=storage))
