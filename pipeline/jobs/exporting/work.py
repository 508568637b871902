"""What an export writes: pieces of some rows, each by itself."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from pipeline.errors import ConfigError
from pipeline.jobs.exporting.contents import Contents, contents_of
from pipeline.jobs.exporting.examples import Examples, read_examples
from pipeline.jobs.exporting.formats.format import MAX_FILES
from pipeline.jobs.exporting.formats.known import FORMATS, refuse_others
from pipeline.jobs.exporting.place import Place
from pipeline.jobs.exporting.request import Request
from pipeline.records import JSON
from pipeline.store.reader import TokenStore


class Work:
    """An export of a store, the same in each process.

    Args:
        contents: what it holds; by default they are looked up.

    Raises ConfigError for what the store does not have, or the format no place for.
    """

    def __init__(self, store: TokenStore, request: Request, contents: Contents | None = None) -> None:
        refuse_others(request)
        kind = FORMATS[request.format]
        self.store = store
        self.request = request
        self.contents = contents or contents_of(store, request, kind.views_in)
        self.format = kind(self.contents, request)
        if self.format.has_files and len(self.pieces) > MAX_FILES:
            raise ConfigError(
                f"{self.contents.count:,} rows, {self._step * self.contents.per_row:,} in each file, take more than "
                f"{MAX_FILES:,} files; give a larger --rows-per-file"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return Work, (self.store, self.request, self.contents)

    @cached_property
    def pieces(self) -> range:
        """First rows, in the store, of the pieces."""
        return range(0, self.contents.rows, self._step)

    @property
    def birth(self) -> JSON:
        """All that decides the bytes."""
        return {
            "request": self.request.model_dump(mode="json"),
            "rows": self.contents.rows,
            "content_digest": self.store.content_digest,
            "rows_per_piece": self._step,
        }

    def count(self, piece: int) -> int:
        """Examples of a piece."""
        return (self._stop(piece) - self.pieces[piece]) * self.contents.per_row

    def write(self, place: Place, piece: int) -> JSON:
        """Write a piece; returned is what is to be known of it at the end.

        Raises CorruptStore, ExportError, OSError.
        """
        tally = _Tally(read_examples(self.store, self.contents, self.pieces[piece], self._stop(piece)))
        result = self.format.write(place, piece, self.count(piece), tally)
        assert tally.rows == self.count(piece), (piece, tally.rows)
        return {"rows": tally.rows, "unlabelled": tally.unlabelled, **result}

    def finish(self, place: Place, written: list[JSON]) -> JSON:
        """After all pieces: what they are known for, in order. Returns `export.json`."""
        contents = self.contents
        rows = sum(piece["rows"] for piece in written)
        assert (rows, len(written)) == (contents.count, len(self.pieces)), rows
        self.format.finish(place, written)
        geometry = contents.geometry
        return {
            "format": self.request.format,
            "rows": rows,
            "unlabelled": sum(piece["unlabelled"] for piece in written),
            "order": contents.order,
            "view": contents.view,
            **self.format.describe(),
            "files": {name: count for piece in written for name, count in piece.get("files", {}).items()},
            "options": self.request.model_dump(mode="json", exclude={"format", "order", "view"}, exclude_defaults=True),
            "store": {
                "content_digest": self.store.content_digest,
                "vocabulary": self.store.vocabulary,
                "rows": contents.rows,
                "views": contents.num_views,
                "vocab_size": contents.vocab_size,
                "image_size": list(geometry.image_size),
                "grid": list(geometry.grid),
                "layout": geometry.layout,
                "block_lengths": list(geometry.block_lengths),
            },
        }

    @property
    def _step(self) -> int:
        """Rows of the store in a piece."""
        asked, per_row = self.request.rows_per_file, self.contents.per_row
        if asked is not None and asked < per_row:
            raise ConfigError(
                f"--rows-per-file {asked}: the {per_row} views of a row stay in one file; give at least {per_row}"
            )
        return max(1, self.format.piece_rows // per_row)

    def _stop(self, piece: int) -> int:
        return min(self.pieces[piece] + self._step, self.contents.rows)


class _Tally:
    """Examples, counted as they pass."""

    def __init__(self, examples: Iterable[Examples]) -> None:
        self._examples = examples
        self.rows = self.unlabelled = 0

    def __iter__(self) -> Iterator[Examples]:
        for some in self._examples:
            yield some
            self.rows += len(some)
            self.unlabelled += some.unlabelled
