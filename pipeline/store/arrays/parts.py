"""Reading the arrays of one committed part, as numpy arrays."""

from functools import cached_property

import numpy as np

from pipeline.errors import StoreError, VqtokError
from pipeline.files import Files
from pipeline.files.damage import damaged
from pipeline.store.arrays.chunked import ChunkedArray, Damage
from pipeline.store.arrays.opening import Opening
from pipeline.store.arrays.storage import Texts
from pipeline.store.arrays.stored_array import StoredArray, array_paths, stored_array
from pipeline.store.schema import names
from pipeline.store.schema.birth import Birth
from pipeline.store.schema.commits import remedy
from pipeline.store.schema.digest import content_digest
from pipeline.store.schema.manifest import PartRecord
from pipeline.store.types import Array


class Part:
    """One committed attempt. Nothing is read before it is asked for.

    Args:
        record: what its commit says of it.
        opening: how arrays are read; by default local files are mapped, each chunk checked once.
    """

    def __init__(self, files: Files, birth: Birth, record: PartRecord, opening: Opening | None = None) -> None:
        self.name = record.part
        self.attempt = record.attempt
        self.rows = record.written
        self._files = files
        self._birth = birth
        self._record = record
        self._opening = opening or Opening(files)

    def array(self, path: str, whole: bool = False) -> ChunkedArray:
        """One array, to be read in ranges with `read_range`. Raises CorruptStore, StoreError where it cannot be had.

        Args:
            whole: all of it is going to be read: where it is little and far away, it comes at once.
        """
        try:
            return self._opening.array(self.name, self.attempt, path, self._stored(path), whole)
        except Exception as error:
            raise self._explained(path, error) from error

    def read_range(self, path: str, array: ChunkedArray, start: int, stop: int) -> Array:
        """Rows start to stop of the array that `array(path)` gave; not to be written to. Raises as `array` does."""
        try:
            return array.read(start, stop)
        except Damage as error:
            return self._read_again(path, start, stop, error)
        except Exception as error:
            raise self._explained(path, error) from error

    def _read_again(self, path: str, start: int, stop: int, damage: Damage) -> Array:
        """What was damaged when it was read, and may not be so where it lies."""
        try:
            again = self._opening.again(self.name, self.attempt, path, self._stored(path))
            if again is None:
                raise damage
            return again.read(start, stop)
        except Exception as error:
            raise self._explained(path, error) from error

    def _stored(self, path: str) -> StoredArray:
        return stored_array(self._birth, self._record, path)

    def read(self, path: str, rows: slice = slice(None)) -> Array:
        """Elements of one array. Raises CorruptStore for anything missing, short or damaged."""
        array = self.array(path, whole=rows == slice(None))
        start, stop, _ = rows.indices(array.shape[0])
        return self.read_range(path, array, start, max(start, stop))

    def tokens(self, rows: slice = slice(None)) -> Array:
        """unsigned [n, L_total], or [n, V, L_total] in a store with views."""
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

    def texts(self, path: str, start: int = 0, stop: int | None = None) -> Texts:
        """Packed byte strings of some rows, at `key` or `fields/<name>`."""
        offsets = self.read(f"{path}/offsets", slice(start, (self.rows if stop is None else stop) + 1))
        data = self.array(f"{path}/data")
        first, last = int(offsets[0]), int(offsets[-1])
        if last > data.shape[0] or (offsets[1:] < offsets[:-1]).any():
            error = Damage(f"offsets up to {last:,} in no order, or beyond the {data.shape[0]:,} bytes that it has")
            raise self._explained(f"{path}/data", error)
        return Texts(self.read_range(f"{path}/data", data, first, last), offsets - offsets[0])

    def field(self, name: str) -> list[bytes | None]:
        """A kept member of every row, None where the sample had none."""
        texts, present = self.texts(f"fields/{name}"), self.read(f"fields/{name}/present")
        return [texts[row] if present[row] else None for row in range(self.rows)]

    def digest(self) -> str:
        """Content digest of the decoded arrays."""
        return content_digest({path: np.ascontiguousarray(self.read(path)) for path in array_paths(self._birth)})

    @property
    def _group(self) -> str:
        return f"{names.PARTS}/{names.attempt(self.name, self.attempt)}"

    def _explained(self, path: str, error: Exception) -> VqtokError:
        """What a user can do about an array that cannot be read."""
        match error:
            case VqtokError():
                return error
            case FileNotFoundError():
                what = "missing"
            case OSError():  # the disk's or the server's, which the next try may not meet
                return StoreError(f"{self._files.root}/{self._group}/{path}: {error}")
            case Damage():
                what = f"cannot be read: {error}"
            case _:
                what = f"cannot be read ({type(error).__name__}: {error})"
        return damaged(
            self._files,
            f"{self._group}/{path}",
            f"{what}; {remedy(self._files, self.name, self.attempt)}",
        )
