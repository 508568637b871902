"""webdataset: tars in which each example is a sample of three files."""

from collections.abc import Iterable

import numpy as np

from pipeline.jobs.exporting.contents import Contents
from pipeline.jobs.exporting.disk import whole_file
from pipeline.jobs.exporting.examples import Examples
from pipeline.jobs.exporting.formats.fields import as_json, names_beside
from pipeline.jobs.exporting.formats.format import Format, rows_per_file
from pipeline.jobs.exporting.place import Place
from pipeline.jobs.exporting.request import Request
from pipeline.records import JSON

_ROWS_PER_FILE = 10_000


class Tars(Format):
    """`00000.tar` …: `{row:09d}.tokens.npy`, `.cls`, and `.json` with key and fields."""

    options = frozenset({"rows_per_file"})
    views_in = "all"
    has_files = True

    def __init__(self, contents: Contents, request: Request) -> None:
        self.piece_rows = rows_per_file(contents, request, _ROWS_PER_FILE)
        self._dtype = contents.dtype
        self._shape = contents.shape
        self._names = names_beside(["key"], contents.fields)

    def describe(self) -> JSON:
        return {"dtype": self._dtype, "shape": list(self._shape)}

    def write(self, place: Place, piece: int, count: int, examples: Iterable[Examples]) -> JSON:
        from webdataset import TarWriter

        name = f"{piece:05d}.tar"
        with whole_file(place.files / name, place.unfinished) as file:
            tar = TarWriter(file, mtime=0)
            for some in examples:
                self._write(tar, some)
            tar.close()
        return {"files": {name: count}}

    def _write(self, tar: "TarWriter", some: Examples) -> None:  # type: ignore[name-defined]  # noqa: F821
        fields = {self._names[name]: some.field(name) for name in self._names}
        for number, key in enumerate(some.keys):
            about = {"key": key, **{name: as_json(values[number]) for name, values in fields.items()}}
            tar.write(
                {
                    "__key__": f"{some.first + number:09d}",
                    "tokens.npy": np.ascontiguousarray(some.tokens[number]),
                    "cls": int(some.label[number]),
                    "json": about,
                }
            )
