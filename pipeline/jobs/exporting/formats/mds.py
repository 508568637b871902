"""mds: shards of Mosaic streaming, written by its own library.

https://docs.mosaicml.com/projects/streaming
"""

import json
import os
import shutil
from collections.abc import Iterable

import numpy as np

from pipeline.errors import ConfigError
from pipeline.files import sync_tree
from pipeline.jobs.exporting.contents import Contents
from pipeline.jobs.exporting.disk import named, whole_file
from pipeline.jobs.exporting.examples import Examples
from pipeline.jobs.exporting.formats.fields import as_json, names_beside
from pipeline.jobs.exporting.formats.format import Format, rows_per_file
from pipeline.jobs.exporting.place import Place
from pipeline.jobs.exporting.request import Request
from pipeline.records import JSON

_ROWS_PER_FOLDER = 100_000
_INDEX = "index.json"


class Mds(Format):
    """`00000/shard.00000.mds` …, and one `index.json` of all: `tokens`, `label`, `key`, and fields as JSON."""

    options = frozenset({"rows_per_file"})
    views_in = "all"
    has_files = True

    def __init__(self, contents: Contents, request: Request) -> None:
        try:
            import streaming  # noqa: F401
        except ImportError:
            raise ConfigError("--format mds needs its library: pip install mosaicml-streaming") from None
        self.piece_rows = rows_per_file(contents, request, _ROWS_PER_FOLDER)
        self._names = names_beside(["key", "label", "tokens"], contents.fields)
        self._dtype, self._shape = contents.dtype, contents.shape
        self._columns = {
            "tokens": f"ndarray:{self._dtype}:{','.join(map(str, self._shape))}",
            "label": "int64",
            "key": "str",
            **dict.fromkeys(self._names.values(), "json"),
        }

    def describe(self) -> JSON:
        return {"dtype": self._dtype, "shape": list(self._shape)}

    def write(self, place: Place, piece: int, count: int, examples: Iterable[Examples]) -> JSON:
        from streaming import MDSWriter

        name = f"{piece:05d}"
        folder, target = place.unfinished / f"mds-{name}", place.files / name
        with named(folder), MDSWriter(out=os.fspath(folder), columns=self._columns, exist_ok=True) as writer:
            for some in examples:
                for sample in self._samples(some):
                    writer.write(sample)
        shards = json.loads((folder / _INDEX).read_text())
        (folder / _INDEX).unlink()
        sync_tree(folder)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
        for shard in shards["shards"]:
            shard["raw_data"]["basename"] = f"{name}/{shard['raw_data']['basename']}"
        files = {shard["raw_data"]["basename"]: shard["samples"] for shard in shards["shards"]}
        return {"files": files, "index": shards}

    def finish(self, place: Place, written: list[JSON]) -> None:
        index = {
            "version": written[0]["index"]["version"],
            "shards": [shard for piece in written for shard in piece["index"]["shards"]],
        }
        with whole_file(place.files / _INDEX, place.unfinished) as file:
            file.write(json.dumps(index, sort_keys=True).encode())

    def _samples(self, some: Examples) -> Iterable[JSON]:
        fields = {self._names[name]: some.field(name) for name in self._names}
        for number, key in enumerate(some.keys):
            yield {
                "tokens": np.ascontiguousarray(some.tokens[number]),
                "label": int(some.label[number]),
                "key": key,
                **{name: as_json(values[number]) for name, values in fields.items()},
            }
