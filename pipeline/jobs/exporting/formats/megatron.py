"""megatron: `tokens.bin` and `tokens.idx`, Megatron's IndexedDataset, one document for each example.

The index: `MMIDIDX\\0\\0`, u64 version, u8 code of the dtype, u64 sequences, u64 documents + 1, then of each sequence
its length as i32 and its first byte as i64, and the number of each document's first sequence as i64 with that of
all behind them. https://github.com/NVIDIA/Megatron-LM, megatron/core/datasets/indexed_dataset.py
"""

import struct
from collections.abc import Callable, Iterable
from typing import BinaryIO

import numpy as np

from pipeline.errors import ConfigError
from pipeline.jobs.exporting.contents import Contents
from pipeline.jobs.exporting.disk import RowFile, whole_file
from pipeline.jobs.exporting.examples import Examples
from pipeline.jobs.exporting.formats.format import Format
from pipeline.jobs.exporting.place import Place
from pipeline.jobs.exporting.request import Request
from pipeline.jobs.exporting.sequences import refuse_large, sequences_of
from pipeline.records import JSON
from pipeline.store.types import Array

_HEAD = struct.Struct("<9sQBQQ")
_MAGIC, _VERSION = b"MMIDIDX\0\0", 1
_CODES = {"int32": 4, "uint16": 8}
_UINT16_BELOW = 65_500
"""Where Megatron itself goes over to int32."""
_PIECE_BYTES = 1 << 26
_AT_ONCE = 1 << 20


class Megatron(Format):
    """A document of one sequence for each example."""

    options = frozenset({"offset", "bos", "eos", "eol", "label_offset"})

    def __init__(self, contents: Contents, request: Request) -> None:
        self._count = contents.count
        self._sequences = sequences_of(contents, request)
        refuse_large(self._sequences, np.iinfo(np.int32).max, request.format)
        if self._sequences.length > np.iinfo(np.int32).max:
            raise ConfigError(
                f"{self._sequences.length:,} tokens in a sequence are more than Megatron's index can hold"
            )
        self._dtype = "uint16" if self._sequences.vocab_size < _UINT16_BELOW else "int32"
        self.piece_rows = max(1, _PIECE_BYTES // self._row_bytes)

    def describe(self) -> JSON:
        return self._sequences.describe(self._dtype)

    def prepare(self, place: Place) -> None:
        self._file(place).reserve()

    def write(self, place: Place, piece: int, count: int, examples: Iterable[Examples]) -> JSON:
        with self._file(place).rows() as rows:
            for some in examples:
                rows.write(some.first, self._sequences.of(some.tokens, some.label, self._dtype))
        return {}

    def finish(self, place: Place, written: list[JSON]) -> None:
        with whole_file(place.files / "tokens.idx", place.unfinished) as file:
            file.write(_HEAD.pack(_MAGIC, _VERSION, _CODES[self._dtype], self._count, self._count + 1))
            _write(file, "<i4", self._count, lambda numbers: np.full(len(numbers), self._sequences.length))
            _write(file, "<i8", self._count, lambda numbers: numbers * self._row_bytes)
            _write(file, "<i8", self._count + 1, lambda numbers: numbers)

    @property
    def _row_bytes(self) -> int:
        return self._sequences.length * np.dtype(self._dtype).itemsize

    def _file(self, place: Place) -> RowFile:
        return RowFile(place.files / "tokens.bin", b"", self._dtype, (self._sequences.length,), self._count)


def _write(file: BinaryIO, dtype: str, count: int, values: Callable[[Array], Array]) -> None:
    """`values` of the numbers 0 to count."""
    for start in range(0, count, _AT_ONCE):
        file.write(values(np.arange(start, min(start + _AT_ONCE, count))).astype(dtype).tobytes())
