"""The command line: parse, call the job, print its result, translate errors.

Every command loads its job when it is called: importing torch takes seconds, and `--help` should not.
"""

import contextlib
import errno
import signal
import sys
from typing import Any

import click

from pipeline import __version__
from pipeline.cli.exporting import export
from pipeline.cli.importing import import_
from pipeline.cli.preparing import check, estimate, init, inspect, sample
from pipeline.cli.ray import ray
from pipeline.cli.stores import clean, report, show, status, verify
from pipeline.cli.working import run, tokenize, train
from pipeline.errors import VqtokError
from pipeline.printing import say, say_tracebacks
from pipeline.process.cublas import set_repeatable_workspaces
from pipeline.process.malloc import keep_freed_memory, use_huge_pages
from pipeline.process.openmp import let_waiting_threads_sleep
from pipeline.process.signals import EndedBySignal, exit_status


class _Commands(click.Group):
    """Commands whose errors end in one message and an exit status, not in a traceback.

    That holds for what a user can act on: VqtokError, what the operating system refuses (disk full, no permission,
    memory), and Ctrl-C.
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
        except (ImportError, MemoryError) as error:
            if isinstance(error, ImportError) and "failed to map segment" not in str(error):
                raise
            _complain(VqtokError(f"{str(error) or 'MemoryError'}: give the process more memory (ulimit -v)"))
            ctx.exit(VqtokError.exit_status)
        except EndedBySignal as end:
            _say_what_ended_it(end.signum)
            raise
        except KeyboardInterrupt:
            _say_what_ended_it(signal.SIGINT)
            ctx.exit(exit_status(signal.SIGINT))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of use, not of the alphabet


def _say_what_ended_it(signum: int) -> None:
    with contextlib.suppress(OSError):  # of a terminal that is gone, as SIGHUP tells
        _complain(VqtokError(f"ended by {signal.Signals(signum).name}"))


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


for command in (
    sample,
    inspect,
    init,
    import_,
    check,
    train,
    estimate,
    tokenize,
    run,
    ray,
    status,
    verify,
    show,
    clean,
    report,
    export,
):
    main.add_command(command)
