"""The command line: parse, call the job, print its result, translate errors.

Every command loads its job when it is called: importing torch takes seconds, and `--help` should not.
"""

import errno
import os
import sys
from pathlib import Path
from typing import Any

import click

from pipeline import __version__
from pipeline.config import Config
from pipeline.cublas import set_repeatable_workspaces
from pipeline.errors import VqtokError
from pipeline.export_command import export
from pipeline.import_commands import ImportCommands
from pipeline.looking_commands import check, estimate, init, inspect
from pipeline.malloc import keep_freed_memory, use_huge_pages
from pipeline.openmp import let_waiting_threads_sleep
from pipeline.options import Finite, allow_slow_option, allowances, as_json_option, config_arguments, with_config
from pipeline.printing import one_line, say, say_json, say_tracebacks
from pipeline.ray_command import ray
from pipeline.storage import Storage
from pipeline.storage_option import with_storage


class _Commands(click.Group):
    """Commands whose errors end in one message and an exit status, not in a traceback.

    That holds for what a user can act on: VqtokError, and what the operating system refuses (disk full, no
    permission).
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VqtokError as error:
            _complain(error)
            ctx.exit(error.exit_status)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader of our output left; click ends quietly
            _complain(error)
            ctx.exit(VqtokError.exit_status)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of use, not of the alphabet


def _complain(error: Exception) -> None:
    """Print an error, unless one of the processes that were started with this one has printed the same."""
    from pipeline.jobs.work.siblings import current_siblings

    siblings = current_siblings()
    if siblings is None or siblings.is_first(str(error)):
        say(f"vqtok: {error}", error=True)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="vqtok")
def main() -> None:
    """Turn image collections into VQ tokens for autoregressive training."""
    if sys.platform == "win32":
        raise VqtokError("vqtok runs on Linux and macOS; on Windows, use it in WSL")
    say_tracebacks()
    keep_freed_memory()
    use_huge_pages()
    let_waiting_threads_sleep()
    set_repeatable_workspaces()


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


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def sample(folder: Path) -> None:
    """Make a sample data set of real photographs.

    It comes into FOLDER, without a download.
    """
    from pipeline.jobs.sampling import job

    say(job.run(folder))


for command in (inspect, init):
    main.add_command(command)


@main.group("import", cls=ImportCommands, subcommand_metavar="KIND SOURCE OUT [OPTIONS]")
def import_() -> None:
    """Make a tokenizer folder of a published tokenizer.

    It comes whole or not at all. Nothing but tensors is read of a checkpoint: one that could run code is refused.
    """


main.add_command(check)


@main.command()
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


main.add_command(estimate)


@main.command()
@with_config
@click.option("--dry-run", is_flag=True, help="Only say what is pending.")
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
        from pipeline.jobs.plan import make_plan

        say(make_plan(config))
    else:
        from pipeline.jobs.tokenizing.command import tokenize_as_asked

        sys.exit(tokenize_as_asked(config, config_arguments(), processes, options))


@main.command()
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
    from pipeline.jobs.tokenizing.checked import checked_plan
    from pipeline.jobs.tokenizing.command import tokenize_as_asked
    from pipeline.jobs.training import job as train_job

    plan = checked_plan(
        config, options["allow_other_sources"], options["check_files"]
    )  # hours of training should not end in a refusal
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


main.add_command(ray)


@main.command()
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
    if as_json:
        say_json(result.to_json())
    else:
        say(fitted(status_table(result), sys.stdout))
    sys.exit(1 if result.damaged else 0)


def _share(ctx: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1:  # false for nan, too
        raise click.BadParameter(f"{value} is no share of the rows; give one above 0 and at most 1, such as 0.01")
    return value


@main.command()
@with_config
@click.option("--quick", is_flag=True, help="Only records, codebook, sizes and entity tags.")
@click.option(
    "--rate",
    type=float,
    callback=_share,
    metavar="R",
    help="Also encode this share of the rows again, such as 0.01: exact on the same kind of hardware.",
)
@allow_slow_option
@as_json_option
def verify(config: Config, quick: bool, rate: float | None, allow_slow: bool, as_json: bool) -> None:
    """Check a store against its source; exit status 1 on any loss.

    Without --quick every key, every checksum and every token is checked.
    """
    from pipeline.jobs.verifying.commits import check_commits

    if quick and rate is not None:
        raise click.UsageError("--quick reads no rows, so it cannot encode any again; leave out --quick or --rate.")
    show_progress = sys.stderr.isatty()
    result = check_commits(config)
    if rate is not None and not allow_slow and not result.problems:
        from pipeline.jobs.verifying.reencoding import refuse_slow_encoding

        refuse_slow_encoding(config)
    if not quick:
        from pipeline.jobs.verifying.contents import check_contents

        check_contents(config, result, show_progress)
    if rate is not None:
        from pipeline.jobs.verifying.reencoding import encode_again

        encode_again(config, result, rate, show_progress)
    if as_json:
        say_json(result.to_json())
    else:
        say(result)
    sys.exit(1 if result.problems else 0)


@main.command()
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


@main.command()
@with_config
@as_json_option
def clean(config: Config, as_json: bool) -> None:
    """Delete what interrupted jobs left behind.

    A part is what one source shard becomes. An attempt to write one is deleted only when another attempt at it is
    committed, so this is safe while jobs run.
    """
    from pipeline.jobs import clean as job

    result = job.run(config)
    if as_json:
        say_json(result.to_json())
    else:
        say(result)
    sys.exit(1 if result.damaged else 0)


@main.command()
@with_config
def report(config: Config) -> None:
    """Write report.html for a finished store.

    It has figures and pictures; the figures are printed, too.
    """
    from pipeline.jobs.reporting import job

    result = job.run(config)
    say(result)
    sys.exit(1 if result.damaged else 0)


main.add_command(export)


if __name__ == "__main__":
    main()
