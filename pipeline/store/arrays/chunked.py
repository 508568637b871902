"""Arrays of a part, read by ranges of rows: the interface, and the plain way through zarr-python."""

from typing import Any, Protocol

import numpy as np
import zarr

from pipeline.files import Files
from pipeline.store.arrays.zarr_files import zarr_store
from pipeline.store.types import Array


class Damage(Exception):
    """An array is not as it was written; the message says where."""


class ChunkedArray(Protocol):
    """One array of a part. Reading it raises Damage, and OSError where files cannot be had."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def mapped(self) -> bool:
        """Whether what is read from one chunk is a view of a file, which costs no memory to keep."""

    def read(self, start: int, stop: int) -> Array:
        """Rows start to stop, both within the array; not to be written to."""


class ZarrArray:
    """Any array that zarr-python reads, wherever it lies."""

    def __init__(self, files: Files, path: str) -> None:
        self._array: zarr.Array[Any] = zarr.open_array(zarr_store(files), path=path, mode="r")
        self.shape, self.dtype = self._array.shape, self._array.dtype
        # Zarr reads a missing or an empty chunk file as zeros, which are a valid code.
        if self.shape[0] and not _has_contents(files, f"{path}/{chunk_file(len(self.shape))}"):
            raise Damage("its chunk file is missing or empty")

    @property
    def mapped(self) -> bool:
        return False

    def read(self, start: int, stop: int) -> Array:
        return np.asarray(self._array[start:stop])


def chunk_file(dimensions: int) -> str:
    """The one chunk file of an array, relative to it."""
    return "/".join(["c", *("0" for _ in range(dimensions))])


def _has_contents(files: Files, path: str) -> bool:
    try:
        return files.stat(path).bytes > 0
    except FileNotFoundError:
        return False
