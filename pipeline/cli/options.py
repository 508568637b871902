"""Options that several commands have."""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from pipeline.config import examples, load_config
from pipeline.printing import say, say_json


class Finite(click.FloatRange):
    """A number in a range; `nan` and `inf`, which are in none, are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


def with_config(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--config` and `--set`, and hand it the checked configuration."""

    @click.option(
        "--config", "path", required=True, metavar="FILE", help=f"YAML configuration; some to copy are in {examples()}."
    )
    @click.option(
        "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one value; repeatable."
    )
    @wraps(command)
    def wrapped(path: str, overrides: tuple[str, ...], **options: Any) -> None:
        command(load_config(path, overrides), **options)

    return wrapped


def config_arguments() -> list[str]:
    """The options of `with_config` as they were given to the present command, for another process."""
    given = click.get_current_context().params
    return ["--config", given["path"], *(word for override in given["overrides"] for word in ("--set", override))]


allow_slow_option = click.option(
    "--allow-slow", is_flag=True, help="Go on with a precision that this processor is slow in."
)


def allowances(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that let tokenizing go on where it would refuse."""
    for option in (
        allow_slow_option,
        click.option(
            "--check-files", is_flag=True, help="Compare size and time of each file of a folder that is tokenized."
        ),
        click.option(
            "--allow-other-sources", is_flag=True, help="Go on in a store that only holds parts of other source shards."
        ),
        click.option(
            "--allow-execution-change", is_flag=True, help="Go on with another precision, device or library version."
        ),
    ):
        command = option(command)
    return command


as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def say_result(result: Any, as_json: bool, as_text: Callable[[Any], str] = str) -> None:
    """Print what a job came to, as `as_json_option` asks."""
    if as_json:
        say_json(result.to_json())
    else:
        say(as_text(result))
