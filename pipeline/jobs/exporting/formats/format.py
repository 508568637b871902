"""What a format is: it writes examples in pieces, each by itself, in any order and by any process."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from pipeline.jobs.exporting.contents import Contents, ViewsIn
from pipeline.jobs.exporting.examples import Examples
from pipeline.jobs.exporting.place import Place
from pipeline.jobs.exporting.request import Request
from pipeline.records import JSON

MAX_FILES = 100_000
"""Names with five digits."""


class Format(ABC):
    """Files of one format. The same examples give the same bytes."""

    options: ClassVar[frozenset[str]] = frozenset()
    """What it has a place for: names of the options in a request that not all formats have."""
    views_in: ClassVar[ViewsIn] = None
    """Where it has views."""
    has_files: ClassVar[bool] = False
    """Whether each piece is a file of its own."""
    piece_rows: int
    """Examples in a piece, at most."""

    @abstractmethod
    def __init__(self, contents: Contents, request: Request) -> None:
        """Raises ConfigError for what the files cannot hold, or for a package that is missing."""

    @abstractmethod
    def describe(self) -> JSON:
        """What its files say of the tokens, for `export.json`."""

    def prepare(self, place: Place) -> None:  # noqa: B027 - most have nothing to do
        """Before any piece: done again when an export goes on. Raises OSError where there is no room."""

    @abstractmethod
    def write(self, place: Place, piece: int, count: int, examples: Iterable[Examples]) -> JSON:
        """Write the `count` examples of a piece; they are on the disk when it returns.

        Returned is what is to be known of it at the end. What an interrupted try left is overwritten.
        """

    def finish(self, place: Place, written: list[JSON]) -> None:  # noqa: B027
        """After all pieces: what they are known for, in order. Done again where it was interrupted."""


def rows_per_file(contents: Contents, request: Request, most: int, most_bytes: int = 1 << 28) -> int:
    """Examples in a file: as asked, else up to `most`, or as many as make `most_bytes` of tokens."""
    return request.rows_per_file or max(1, min(most, most_bytes // contents.bytes))
