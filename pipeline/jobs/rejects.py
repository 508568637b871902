"""Rejects of committed parts, and how often each reason occurs. Imports neither torch nor Zarr."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import ValidationError

from pipeline.files import Files
from pipeline.files.damage import damaged, naming_no_file
from pipeline.records import Reject
from pipeline.store.schema import names

# Quoted values and numbers: what differs between two messages of one cause. An apostrophe opens no quotation, and
# JPEG2000 is a name.
_VARYING = re.compile(
    r"""(?<!\w)b?'(?:[^'\\]|\\.)*'(?!\w)|(?<!\w)b?"(?:[^"\\]|\\.)*"(?!\w)|(?<!JPEG)(?<!\d)\d(?:[\d,.]*\d)?"""
)


@dataclass(frozen=True)
class RejectReason:
    """Samples that were rejected for one reason."""

    stage: str
    reason: str
    """The message; `…` where the messages of these samples differ in a number or a quoted value."""
    samples: int
    source: str
    """Source shard of one of them."""
    key: str
    """And its key."""


ReasonCounts = Mapping[tuple[str, str], RejectReason]
"""By stage and pattern of the message."""


class Rejecting(Protocol):
    """What any record of a commit says of its rejects."""

    @property
    def part(self) -> str: ...

    @property
    def attempt(self) -> str: ...

    @property
    def rejected(self) -> int: ...


def read_rejects(store: Files, commit: Rejecting) -> list[Reject]:
    """Rejects of a committed part, in source order; where there are none, no file is asked for.

    Raises CorruptStore for a damaged or missing file.
    """
    if not commit.rejected:
        return []
    path = names.rejects(commit.part, commit.attempt)
    try:
        with naming_no_file(store, path):
            lines = store.read(path).splitlines()
    except FileNotFoundError:
        raise damaged(store, path, "missing, and its commit speaks of it") from None
    try:
        return [Reject.model_validate_json(line) for line in lines]
    except ValidationError as error:
        raise damaged(store, path, f"a line is no reject: {error.errors()[0]['msg']}") from None


def count_reasons(source: str, rejects: Iterable[Reject]) -> ReasonCounts:
    """The reasons of one source shard."""
    counts: dict[tuple[str, str], RejectReason] = {}
    for reject in rejects:
        _add(counts, RejectReason(reject.stage, reject.reason, 1, source, reject.key))
    return counts


def most_common(counts: Iterable[ReasonCounts]) -> list[RejectReason]:
    """The reasons of several source shards together, the most frequent first."""
    total: dict[tuple[str, str], RejectReason] = {}
    for reasons in counts:
        for reason in reasons.values():
            _add(total, reason)
    return sorted(total.values(), key=lambda reason: (-reason.samples, reason.stage, reason.reason))


def pattern_of(reason: str) -> str:
    """A message without what differs from sample to sample."""
    return _VARYING.sub("…", reason)


def _add(counts: dict[tuple[str, str], RejectReason], new: RejectReason) -> None:
    pattern = pattern_of(new.reason)
    known = counts.get((new.stage, pattern))
    counts[new.stage, pattern] = (
        new
        if known is None
        else replace(
            known,
            reason=known.reason if known.reason == new.reason else pattern,
            samples=known.samples + new.samples,
        )
    )
