"""A sample: what a source shard holds one after the other, whatever kind of file it is."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sample:
    """One image with its fellow files."""

    index: int
    """Position among the samples of the source shard."""
    key: str
    """The `__key__`."""
    members: dict[str, bytes | None] = field(repr=False)
    """Contents by extension in lower case; None for members that were not wanted."""
    start: int = field(default=0, repr=False, compare=False)
    """Byte of the source shard at which it begins."""
    problems: list[str] = field(default_factory=list, repr=False)
    """Why it cannot be tokenized, as far as its source shard alone tells."""
