"""bin: the files of llm.c, uint16 tokens behind a header of 256 int32: 20240520, version 1, number of tokens.

https://github.com/karpathy/llm.c, llmc/dataloader.h
"""

from collections.abc import Iterable

import numpy as np

from pipeline.errors import ConfigError
from pipeline.jobs.exporting.contents import Contents
from pipeline.jobs.exporting.disk import whole_file
from pipeline.jobs.exporting.examples import Examples
from pipeline.jobs.exporting.formats.format import Format
from pipeline.jobs.exporting.place import Place
from pipeline.jobs.exporting.request import Request
from pipeline.jobs.exporting.sequences import refuse_large, sequences_of
from pipeline.records import JSON

_MAGIC, _VERSION, _HEADER_INTS = 20240520, 1, 256
_TOKENS_PER_FILE = 100_000_000
"""As its own scripts make them."""


class LlmC(Format):
    """`part-00000.bin` …: sequences one behind the other, none in two files."""

    options = frozenset({"offset", "bos", "eos", "eol", "label_offset", "rows_per_file"})
    has_files = True

    def __init__(self, contents: Contents, request: Request) -> None:
        self._sequences = sequences_of(contents, request)
        refuse_large(self._sequences, np.iinfo(np.uint16).max, request.format)
        self.piece_rows = request.rows_per_file or max(1, _TOKENS_PER_FILE // self._sequences.length)
        if self.piece_rows * self._sequences.length > np.iinfo(np.int32).max:
            raise ConfigError(
                f"--rows-per-file: {self.piece_rows:,} rows of {self._sequences.length:,} tokens are more tokens than "
                f"the header of a file can tell, {np.iinfo(np.int32).max:,}; give a smaller number"
            )

    def describe(self) -> JSON:
        return self._sequences.describe("uint16")

    def write(self, place: Place, piece: int, count: int, examples: Iterable[Examples]) -> JSON:
        name = f"part-{piece:05d}.bin"
        header = np.zeros(_HEADER_INTS, "<i4")
        header[:3] = _MAGIC, _VERSION, count * self._sequences.length
        with whole_file(place.files / name, place.unfinished) as file:
            file.write(header.tobytes())
            for some in examples:
                file.write(self._sequences.of(some.tokens, some.label, "<u2").data)
        return {"files": {name: count}}
