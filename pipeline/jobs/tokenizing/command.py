"""`vqtok tokenize` as its user meets it: here or in several processes, with what is said around the progress bar.

Imports torch when there is something to tokenize, and only in processes that do.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from pipeline.config import Config
from pipeline.jobs.plan import Plan, is_finished, make_plan, refuse_unwritable
from pipeline.jobs.tokenizing.other_sources import describe_other_parts, refuse_other_sources
from pipeline.jobs.tokenizing.replaced import refuse_replaced_sources
from pipeline.jobs.work.launch import tokenize_in_processes
from pipeline.jobs.work.result import TokenizeResult
from pipeline.jobs.work.siblings import current_siblings
from pipeline.jobs.work.starting import announced, say_what_is_loaded


def tokenize_as_asked(
    config: Config, config_arguments: Sequence[str], processes: int, options: Mapping[str, bool]
) -> int:
    """Tokenize, and print what came of it; the exit status.

    Args:
        config_arguments: what makes the command line load `config`, for other processes.
        options: `no_wait`, `no_progress`, and every `allow_...` of `tokenize.run`.

    Raises VqtokError as `tokenize.run` does.
    """
    if siblings := current_siblings():
        result = _tokenize_here(config, options, None)
        siblings.leave_result(result)
        return 0 if result.complete else 1
    plan = make_plan(config)
    refuse_replaced_sources(plan)
    if not options["allow_other_sources"]:
        refuse_other_sources(plan)
    others = describe_other_parts(plan)
    if is_finished(plan, config):
        print(f"{plan}; nothing to do")
        _say(others)
        return 0
    refuse_unwritable(plan.store)
    _say(others)
    if not options["no_progress"]:
        say_what_is_loaded(processes)
    status, found = _tokenize(plan, config, config_arguments, processes, options)
    if found:
        print(found, file=sys.stdout if found.complete else sys.stderr)
    _say(others)
    return status


def _tokenize(
    plan: Plan, config: Config, config_arguments: Sequence[str], processes: int, options: Mapping[str, bool]
) -> tuple[int, TokenizeResult | None]:
    """The exit status, and what the processes came to, as far as one of them came to its end."""
    timeout_s = config.tokenize.claim_timeout
    if processes > 1:
        flags = [f"--{name.replace('_', '-')}" for name, given in options.items() if given]
        return tokenize_in_processes(plan.store, [*config_arguments, *flags], processes, timeout_s)
    with announced(plan.store, 1, timeout_s):
        import pipeline.jobs.tokenizing.job  # noqa: F401
    result = _tokenize_here(config, options, plan)
    return 0 if result.complete else 1, result


def _tokenize_here(config: Config, options: Mapping[str, bool], plan: Plan | None) -> TokenizeResult:
    from pipeline.jobs.tokenizing import job

    return job.run(
        config,
        plan=plan,
        wait=not options["no_wait"],
        allow_execution_change=options["allow_execution_change"],
        allow_other_sources=options["allow_other_sources"],
        allow_slow=options["allow_slow"],
        show_progress=not options["no_progress"],
    )


def _say(line: str | None) -> None:
    """Say something of the whole job, once."""
    if line and os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr)
