"""`vqtok tokenize` as its user meets it: here or in several processes, with what is said around the progress bar.

Imports torch when there is something to tokenize, and only in processes that do, or that count GPUs for them.
"""

from collections.abc import Mapping, Sequence

from pipeline.config import Config
from pipeline.jobs.plan import Plan, is_finished, refuse_unwritable
from pipeline.jobs.tokenizing.checked import checked_plan
from pipeline.jobs.tokenizing.other_sources import describe_other_parts
from pipeline.jobs.work.launch import tokenize_in_processes
from pipeline.jobs.work.leftovers import put_in_order
from pipeline.jobs.work.processes import automatic
from pipeline.jobs.work.result import NO_ROWS, TokenizeResult
from pipeline.jobs.work.siblings import current_siblings
from pipeline.jobs.work.starting import announced, say_what_is_loaded
from pipeline.printing import say
from pipeline.process.signals import end_with_parent, terminable
from pipeline.world import launched_rank


def tokenize_as_asked(
    config: Config,
    config_arguments: Sequence[str],
    processes: int | None,
    options: Mapping[str, bool],
    plan: Plan | None = None,
) -> int:
    """Tokenize, and print what came of it; the exit status.

    Args:
        processes: None for as many as are best here.
        config_arguments: what makes the command line load `config`, for other processes.
        options: `no_wait`, `no_progress`, `check_files`, and every `allow_...` of `tokenize.run`.
        plan: `checked_plan` of this configuration, where it is known.

    Raises VqtokError as `tokenize.run` does.
    """
    end_with_parent()
    if siblings := current_siblings():
        result = _tokenize_here(config, options, None)
        if not siblings.leave_result(result) and not result.succeeded:
            say(result, error=True)  # nobody else can say so
        return 0 if result.succeeded else 1
    plan, finished = find_work(config, options, plan)
    if finished is not None:
        return finished
    if processes is None:
        processes = _as_many_as_are_best(plan, config, options)
    if not options["no_progress"]:
        say_what_is_loaded(processes)
    status, found = _tokenize(plan, config, config_arguments, processes, options)
    if found:
        _report(found)
    _say(describe_other_parts(plan))
    return status


def find_work(config: Config, options: Mapping[str, bool], plan: Plan | None = None) -> tuple[Plan, int | None]:
    """What there is to tokenize, and the exit status where nothing is left to do: that is said then.

    Arguments are those of `tokenize_as_asked`. Raises VqtokError for every reason not to tokenize that can be told
    without the tokenizer.
    """
    plan = plan or checked_plan(config, options["allow_other_sources"], options["check_files"])
    for remark in plan.remarks:
        _say(remark)
    if not is_finished(plan, config):
        refuse_unwritable(plan.store)
        _say(describe_other_parts(plan))
        return plan, None
    put_in_order(plan)
    _say(f"{plan}; nothing to do", error=False)
    _say(describe_other_parts(plan))
    if plan.has_no_rows:
        _say(NO_ROWS)
    return plan, int(plan.has_no_rows)


def flags_of(options: Mapping[str, bool]) -> list[str]:
    """What gives the options of `tokenize_as_asked` to another process."""
    return [f"--{name.replace('_', '-')}" for name, given in options.items() if given]


def _as_many_as_are_best(plan: Plan, config: Config, options: Mapping[str, bool]) -> int:
    if not options["no_progress"]:
        say_what_is_loaded()
    with terminable(), announced(plan.store, 1, config.tokenize.claim_timeout):
        return automatic(len(plan.pending))


def _tokenize(
    plan: Plan, config: Config, config_arguments: Sequence[str], processes: int, options: Mapping[str, bool]
) -> tuple[int, TokenizeResult | None]:
    """The exit status, and what the processes came to, as far as one of them came to its end."""
    timeout_s = config.tokenize.claim_timeout
    if processes > 1:
        return tokenize_in_processes(plan, [*config_arguments, *flags_of(options)], processes, timeout_s)
    with terminable(), announced(plan.store, 1, timeout_s):
        import pipeline.jobs.tokenizing.job  # noqa: F401
    result = _tokenize_here(config, options, plan)
    return 0 if result.succeeded else 1, result


def _tokenize_here(config: Config, options: Mapping[str, bool], plan: Plan | None) -> TokenizeResult:
    from pipeline.jobs.tokenizing import job

    return job.run(
        config,
        plan=plan,
        wait=not options["no_wait"],
        allow_execution_change=options["allow_execution_change"],
        allow_other_sources=options["allow_other_sources"],
        allow_slow=options["allow_slow"],
        check_files=options["check_files"],
        show_progress=not options["no_progress"],
    )


def _report(result: TokenizeResult) -> None:
    """Say what came of it: of processes launched together one sums up, and each tells what failed in it."""
    if launched_rank()[0] == 0:
        say(result, error=not result.succeeded)
    elif result.pending_failures:
        say("\n".join(result.pending_failures), error=True)


def _say(line: str | None, error: bool = True) -> None:
    """Say something of the whole job, once; on stderr unless told otherwise."""
    if line and launched_rank()[0] == 0:
        say(line, error=error)
