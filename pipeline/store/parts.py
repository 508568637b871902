"""Reading the arrays of one committed part, as numpy arrays."""

from functools import cached_property
from typing import Any

import numpy as np
import zarr

from pipeline.errors import CorruptStore
from pipeline.files import Files
from pipeline.store import names
from pipeline.store.arrays import Array, Texts
from pipeline.store.birth import Birth, damaged
from pipeline.store.digest import content_digest
from pipeline.store.group import zarr_store


class Part:
    """One committed attempt. Nothing is read before it is asked for."""

    def __init__(self, files: Files, birth: Birth, part: str, attempt: str, rows: int) -> None:
        self.name = part
        self.rows = rows
        self._birth = birth
        self._files = files
        self._path = f"{names.PARTS}/{names.attempt(part, attempt)}"

    def read(self, path: str, rows: slice = slice(None)) -> Array:
        """Elements of one array. Raises CorruptStore for anything missing, short or damaged."""
        try:
            array = self._array(path)
            # Zarr reads a missing or an empty chunk file as zeros, which are a valid code.
            if array.shape[0] and not self._has_chunk(path, array):
                raise self._damaged(path, "its chunk file is missing or empty")
            values: Array = np.asarray(array[rows])
        except CorruptStore:
            raise
        except FileNotFoundError:
            raise self._damaged(path, "missing") from None
        except Exception as error:
            raise self._damaged(path, f"cannot be read ({type(error).__name__}: {error})") from error
        return values

    def tokens(self, rows: slice = slice(None)) -> Array:
        """unsigned [n, L_total]."""
        return self.read("tokens", rows)

    @cached_property
    def labels(self) -> Array:
        """int64 [n], -1 for none."""
        return self.read("label")

    @cached_property
    def keys(self) -> list[str]:
        """The n WebDataset keys."""
        packed = self.texts("key")
        return [packed[row].decode() for row in range(self.rows)]

    def texts(self, path: str) -> Texts:
        """Packed byte strings at `key` or `fields/<name>`."""
        return Texts(self.read(f"{path}/data"), self.read(f"{path}/offsets"))

    def field(self, name: str) -> list[bytes | None]:
        """A kept member of every row, None where the sample had none."""
        texts, present = self.texts(f"fields/{name}"), self.read(f"fields/{name}/present")
        return [texts[row] if present[row] else None for row in range(self.rows)]

    def digest(self) -> str:
        """Content digest of the decoded arrays."""
        paths = ["tokens", "label", "key/data", "key/offsets"]
        for name in self._birth.fields:
            paths += [f"fields/{name}/{array}" for array in ("data", "offsets", "present")]
        return content_digest({path: self.read(path) for path in paths})

    def _array(self, path: str) -> "zarr.Array[Any]":
        return zarr.open_array(zarr_store(self._files), path=f"{self._path}/{path}", mode="r")

    def _has_chunk(self, path: str, array: "zarr.Array[Any]") -> bool:
        """Whether the one chunk file of an array is there and has contents."""
        try:
            return self._files.stat("/".join([self._path, path, "c", *("0" for _ in array.shape)])).bytes > 0
        except FileNotFoundError:
            return False

    def _damaged(self, path: str, what: str) -> CorruptStore:
        return damaged(
            self._files,
            f"{self._path}/{path}",
            f"{what}; delete {names.commit(self.name)} and {names.MANIFEST}, then run vqtok tokenize again",
        )
