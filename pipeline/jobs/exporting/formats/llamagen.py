"""llamagen: a `.npy` for each image and another for its label, as LlamaGen's extraction of codes writes them.

https://github.com/FoundationVision/LlamaGen, dataset/imagenet.py reads `{i}.npy` for i from 0 without gaps, and picks
one view of each where the path of the folder has `flip` in it.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pipeline.errors import ConfigError
from pipeline.jobs.exporting.contents import Contents
from pipeline.jobs.exporting.disk import npy_header
from pipeline.jobs.exporting.examples import Examples
from pipeline.jobs.exporting.formats.format import Format
from pipeline.jobs.exporting.place import Place
from pipeline.jobs.exporting.request import Request
from pipeline.records import JSON

_PIECE_ROWS = 10_000


class LlamaGen(Format):
    """`<name>_codes/{i}.npy` int64 [1, V, L] and `<name>_labels/{i}.npy` int64 [1]."""

    options = frozenset({"name"})
    views_in = "all"

    def __init__(self, contents: Contents, request: Request) -> None:
        self._name = request.name or f"imagenet{contents.geometry.image_size[0]}"
        if "/" in self._name or "\0" in self._name:
            raise ConfigError(f"--name {self._name!r}: is the beginning of a folder's name, and has no slash")
        self.piece_rows = _PIECE_ROWS
        views = contents.shape[0] if len(contents.shape) > 1 else 1
        self._shape = (1, views, contents.geometry.num_tokens)

    def describe(self) -> JSON:
        return {"dtype": "int64", "shape": list(self._shape)}

    def prepare(self, place: Place) -> None:
        for folder in self._folders(place):
            folder.mkdir(exist_ok=True)

    def write(self, place: Place, piece: int, count: int, examples: Iterable[Examples]) -> JSON:
        codes, labels = self._folders(place)
        of_codes, of_labels = npy_header("int64", self._shape), npy_header("int64", (1,))
        for some in examples:
            _write_each(codes, some.first, of_codes, some.tokens.reshape(len(some), -1).astype("<i8"))
            _write_each(labels, some.first, of_labels, some.label.reshape(len(some), 1).astype("<i8"))
        os.sync()  # one fsync for each of millions of files would take days
        return {}

    def _folders(self, place: Place) -> tuple[Path, Path]:
        return place.files / f"{self._name}_codes", place.files / f"{self._name}_labels"


def _write_each(
    folder: Path, first: int, header: bytes, rows: "np.ndarray[tuple[int, int], np.dtype[np.int64]]"
) -> None:
    for number, row in enumerate(rows, first):
        with open(f"{folder}/{number}.npy", "wb", buffering=0) as file:  # noqa: PTH123 - millions of them
            _write_all(file.fileno(), header + row.tobytes(), f"{folder}/{number}.npy")


def _write_all(descriptor: int, data: bytes, path: str) -> None:
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError as error:
        error.filename = path
        raise
