"""States that loaders are given: whether they are any."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.errors import StoreError


def check_names(state: Any, needed: Iterable[str], of: str, kind: str) -> None:
    """Raise StoreError for what is not the state `of` a loader or a mixture, which has all that is needed."""
    if not isinstance(state, Mapping):
        raise StoreError(f"{state!r:.80} is not the state of a {kind}, which is a dict")
    missing = set(needed) - state.keys()
    if missing:
        raise StoreError(f"the {of}'s state has no {', '.join(sorted(missing))}: it is not that of a {kind}")


@contextmanager
def damage_named(of: str) -> Iterator[None]:
    """Raise StoreError where values of the state `of` a loader or a mixture are not what such a state has."""
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise StoreError(f"the {of}'s state is damaged: {type(error).__name__}: {error}") from error
