"""`--storage key=value`, for commands that take a place and no configuration."""

from collections.abc import Callable
from typing import Any

import click

from pipeline.storage import Storage, storage_from_words


def _storage(ctx: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> Storage:
    return storage_from_words(words)


def with_storage(of: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option; `of` is the argument whose URL it is for."""
    return click.option(
        "--storage",
        multiple=True,
        callback=_storage,
        metavar="KEY=VALUE",
        help=f"How the URL {of} is reached: endpoint, profile, region, anonymous, patience_s; repeatable.",
    )
