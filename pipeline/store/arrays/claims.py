"""What records claim, compared with the files that are there before memory is asked for by it."""

from collections.abc import Sequence

import numpy as np

from pipeline.errors import CorruptStore
from pipeline.files import Files, LocalFiles
from pipeline.files.damage import damaged, naming_no_file
from pipeline.store.arrays.chunk_file import chunk_file
from pipeline.store.arrays.chunked import Damage
from pipeline.store.arrays.decoding import most_decoded
from pipeline.store.arrays.storage import chunk_rows
from pipeline.store.arrays.stored_array import stored_array
from pipeline.store.schema import names
from pipeline.store.schema.birth import Birth
from pipeline.store.schema.commits import remedy
from pipeline.store.schema.manifest import PartRecord

# A part of fewer rows costs a reader less memory than a thousand times the bytes of its record.
_FEW_ROWS = 1 << 16
_FEW_BYTES = 1 << 25

# Chunks that a writer may have made larger than ours are.
_LARGER = 64


def refuse_impossible(files: Files, birth: Birth, parts: Sequence[PartRecord]) -> None:
    """Raise CorruptStore for a large part that claims more rows than its tokens can hold.

    Of those alone something is looked at: the chunks that its record speaks of, and in a folder the size of a file.
    """
    row_bytes = np.dtype(birth.token_dtype).itemsize * int(np.prod(birth.row_shape))
    for part in parts:
        if part.written > _FEW_ROWS or part.written * row_bytes > _FEW_BYTES:
            _refuse(files, birth, part, row_bytes)


def _refuse(files: Files, birth: Birth, part: PartRecord, row_bytes: int) -> None:
    path = f"{names.PARTS}/{names.attempt(part.part, part.attempt)}/tokens"
    try:
        stored = stored_array(birth, part, "tokens")
    except Damage as error:
        raise damaged(files, path, str(error)) from None
    chunks = -(-part.written // chunk_rows(part.written, row_bytes))
    if stored.crc32c is not None and chunks > _LARGER * len(stored.crc32c):
        raise _impossible(files, path, part, f"{len(stored.crc32c):,} chunks")
    if isinstance(files, LocalFiles):
        file = f"{path}/{chunk_file(stored.dimensions)}"
        try:
            with naming_no_file(files, file):
                size = files.stat(file).bytes
        except FileNotFoundError:
            return  # whoever reads it is told
        if part.written * row_bytes > most_decoded(stored.compressor, size):
            raise _impossible(files, path, part, f"a file of {size:,} bytes")


def _impossible(files: Files, path: str, part: PartRecord, what: str) -> CorruptStore:
    return damaged(
        files,
        path,
        f"{names.MANIFEST} says {part.written:,} rows, which {what} cannot hold; "
        f"{remedy(files, part.part, part.attempt)}",
    )
