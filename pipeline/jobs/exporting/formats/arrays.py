"""npy: all tokens in one numpy array, all labels in another, keys as lines of text."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import ExportError
from pipeline.jobs.exporting.contents import Contents
from pipeline.jobs.exporting.disk import RowFile, npy_header, whole_file
from pipeline.jobs.exporting.examples import Examples
from pipeline.jobs.exporting.formats.format import Format
from pipeline.jobs.exporting.place import Place
from pipeline.jobs.exporting.request import Request
from pipeline.records import JSON

_PIECE_BYTES = 1 << 26


class Arrays(Format):
    """`tokens.npy` [n, L] or [n, V, L], `labels.npy` int64 [n], `keys.txt`."""

    views_in = "all"

    def __init__(self, contents: Contents, request: Request) -> None:
        self._contents = contents
        self.piece_rows = max(1, _PIECE_BYTES // contents.bytes)

    def describe(self) -> JSON:
        return {"dtype": self._contents.dtype, "shape": [self._contents.count, *self._contents.shape]}

    def prepare(self, place: Place) -> None:
        for file in self._files(place):
            file.reserve()

    def write(self, place: Place, piece: int, count: int, examples: Iterable[Examples]) -> JSON:
        tokens, labels = self._files(place)
        with (
            tokens.rows() as of_tokens,
            labels.rows() as of_labels,
            whole_file(_keys(place, piece), place.unfinished) as keys,
        ):
            for some in examples:
                of_tokens.write(some.first, some.tokens)
                of_labels.write(some.first, some.label)
                keys.write(_lines(some.keys))
        return {}

    def finish(self, place: Place, written: list[JSON]) -> None:
        with whole_file(place.files / "keys.txt", place.unfinished) as keys:
            for piece in range(len(written)):
                with _keys(place, piece).open("rb") as some:
                    shutil.copyfileobj(some, keys)

    def _files(self, place: Place) -> tuple[RowFile, RowFile]:
        count, shape, dtype = self._contents.count, self._contents.shape, self._contents.dtype
        return (
            RowFile(place.files / "tokens.npy", npy_header(dtype, (count, *shape)), dtype, shape, count),
            RowFile(place.files / "labels.npy", npy_header("int64", (count,)), "int64", (), count),
        )


def _keys(place: Place, piece: int) -> Path:
    return place.scratch / f"keys-{piece:06d}.txt"


def _lines(keys: list[str]) -> bytes:
    text = "\n".join([*keys, ""])
    if text.count("\n") != len(keys) or "\r" in text:
        key = next(key for key in keys if "\n" in key or "\r" in key)
        raise ExportError(f"key {key!r} has a line break, and keys.txt is a line for each; export to another format")
    return text.encode()
