"""How the arrays of a store are opened: mapped where that can be, else through zarr-python."""

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from pipeline.files import Files, LocalFiles
from pipeline.store.chunked import ChunkedArray, Damage, ZarrArray, chunk_file
from pipeline.store.mapped import Layout, MappedArray
from pipeline.store.mapping import map_file


@dataclass(frozen=True)
class Opening:
    """Opens the arrays of committed parts."""

    files: Files
    check_always: bool = False
    """Compare checksums whenever a chunk is read, not only the first time."""

    def array(self, part: str, path: str) -> ChunkedArray:
        """The array of a part at `path`, which is relative to the store.

        Raises Damage, and OSError where files cannot be had.
        """
        if not isinstance(self.files, LocalFiles):
            return ZarrArray(self.files, path)
        layout = Layout.of(self.files.read(f"{path}/zarr.json"))
        if layout is None:
            return ZarrArray(self.files, path)
        if not layout.shape[0]:
            return MappedArray(layout, np.empty(0, np.uint8))
        try:
            with self._open(part, f"{path}/{chunk_file(len(layout.shape))}") as file:
                return MappedArray(layout, map_file(file), self.check_always)
        except FileNotFoundError:
            raise Damage("its chunk file is missing") from None

    def _open(self, part: str, path: str) -> BinaryIO:
        return self.files.open(path)
