"""parquet: files that Hugging Face `datasets` opens as they are, with the names of the classes in their schema."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, ExportError
from pipeline.jobs.exporting.contents import Contents
from pipeline.jobs.exporting.disk import whole_file
from pipeline.jobs.exporting.examples import Examples
from pipeline.jobs.exporting.formats.fields import names_beside
from pipeline.jobs.exporting.formats.format import Format, rows_per_file
from pipeline.jobs.exporting.place import Place
from pipeline.jobs.exporting.request import Request
from pipeline.records import JSON
from pipeline.store.types import Array

_ROWS_PER_FILE = 100_000
_INT16_UP_TO = 1 << 15


class Parquet(Format):
    """`part-00000.parquet` …: `key`, `label`, `tokens` (a fixed-size list, with all views a list of such), fields."""

    options = frozenset({"rows_per_file", "binary"})
    views_in = "all"
    has_files = True

    def __init__(self, contents: Contents, request: Request) -> None:
        try:
            import pyarrow
        except ImportError:
            raise ConfigError("--format parquet needs the package pyarrow: pip install 'vqtok[parquet]'") from None
        unknown = set(request.binary) - set(contents.fields)
        if unknown:
            known = ", ".join(contents.fields) or "none"
            raise ConfigError(f"--binary {min(unknown)}: no such field in the store; there is {known}")
        self.piece_rows = rows_per_file(contents, request, _ROWS_PER_FILE)
        # Signed, for not all that reads Parquet knows what to do with unsigned numbers.
        self._dtype = "int16" if contents.vocab_size <= _INT16_UP_TO else "int32"
        self._shape = contents.shape
        self._binary = frozenset(request.binary)
        self._names = names_beside(["key", "label", "tokens"], contents.fields)
        # With a label beyond the names `datasets` would refuse to load any row.
        classes = contents.classes or ()
        self._schema = self._schema_with(pyarrow, classes if contents.labels[1] < len(classes) else ())

    def describe(self) -> JSON:
        return {"dtype": self._dtype, "shape": list(self._shape)}

    def write(self, place: Place, piece: int, count: int, examples: Iterable[Examples]) -> JSON:
        from pyarrow.parquet import ParquetWriter

        name = f"part-{piece:05d}.parquet"
        with (
            whole_file(place.files / name, place.unfinished) as file,
            ParquetWriter(file, self._schema, compression="zstd") as writer,
        ):
            for some in examples:
                writer.write_table(self._table(some))
        return {"files": {name: count}}

    def _schema_with(self, pyarrow: Any, classes: Sequence[str]) -> Any:
        tokens = pyarrow.type_for_alias(self._dtype)
        for length in reversed(self._shape):
            tokens = pyarrow.list_(tokens, length)
        types = {field: pyarrow.binary() if field in self._binary else pyarrow.string() for field in self._names}
        columns = {"key": pyarrow.string(), "label": pyarrow.int64(), "tokens": tokens}
        columns |= {self._names[field]: type_ for field, type_ in types.items()}
        features = json.dumps({"info": {"features": self._features(classes)}})
        return pyarrow.schema(list(columns.items()), metadata={"huggingface": features})

    def _features(self, classes: Sequence[str]) -> JSON:
        """As `datasets` writes them: https://huggingface.co/docs/datasets/about_dataset_features."""
        tokens: JSON = _value(self._dtype)
        for length in reversed(self._shape):
            tokens = {"feature": tokens, "length": length, "_type": "Sequence"}
        label = {"names": _unequal(classes), "_type": "ClassLabel"} if classes else _value("int64")
        fields = {name: _value("binary" if field in self._binary else "string") for field, name in self._names.items()}
        return {"key": _value("string"), "label": label, "tokens": tokens, **fields}

    def _table(self, some: Examples) -> Any:
        import pyarrow

        columns = [pyarrow.array(some.keys, "string"), pyarrow.array(some.label), self._lists(some.tokens)]
        for field, name in self._names.items():
            values: Sequence[bytes | str | None] = some.field(field)
            columns.append(
                pyarrow.array(values if field in self._binary else _texts(field, some), self._schema.field(name).type)
            )
        return pyarrow.Table.from_arrays(columns, schema=self._schema)

    def _lists(self, tokens: Array) -> Any:
        import pyarrow

        found = pyarrow.array(np.ascontiguousarray(tokens, self._dtype).reshape(-1))
        for length in reversed(self._shape):
            found = pyarrow.FixedSizeListArray.from_arrays(found, length)
        return found


def _value(dtype: str) -> JSON:
    return {"dtype": dtype, "_type": "Value"}


def _unequal(names: Sequence[str]) -> list[str]:
    """Names of classes, those of several with the number of each behind them: `datasets` refuses them otherwise."""
    counts = Counter(names)
    return [f"{name} ({number})" if counts[name] > 1 else name for number, name in enumerate(names)]


def _texts(field: str, some: Examples) -> list[str | None]:
    texts: list[str | None] = []
    for number, data in enumerate(some.field(field)):
        try:
            texts.append(None if data is None else data.decode())
        except UnicodeDecodeError:
            raise ExportError(
                f"field {field} of {some.keys[number]!r} is not UTF-8; delete what has been written, and export it as "
                f"bytes with --binary {field}"
            ) from None
    return texts
