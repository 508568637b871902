"""Any `Files` as a store of zarr-python, for reading.

zarr-python has a store over obstore too; this one asks through `Files`, and so with its patience: an answer that
breaks off is asked for again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from pipeline.files import Files, LocalFiles


def zarr_store(files: Files) -> Store:
    """What zarr-python reads the files of a store through; it refuses to write."""
    return LocalStore(files.root, read_only=True) if isinstance(files, LocalFiles) else FilesStore(files)


class FilesStore(Store):
    """Reads keys as paths of `files`."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, files: Files) -> None:
        super().__init__(read_only=True)
        self._files = files

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FilesStore) and other._files.root == self._files.root

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of a key, or some of them; None where there is no such key."""
        try:
            return prototype.buffer.from_bytes(await asyncio.to_thread(self._read, key, byte_range))
        except FileNotFoundError:
            return None

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """`get` for several keys at once."""
        return list(await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        try:
            await asyncio.to_thread(self._files.stat, key)
        except FileNotFoundError:
            return False
        return True

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Keys that begin with a prefix that ends at a slash."""
        folder = prefix.rstrip("/")
        for path in await asyncio.to_thread(self._files.stats, folder):
            yield f"{folder}/{path}" if folder else path

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly below a prefix."""
        folder = prefix.rstrip("/")
        for names in (self._files.folders, self._files.list):
            for name in await asyncio.to_thread(names, folder):
                yield name

    def list(self) -> AsyncIterator[str]:
        """All keys."""
        return self.list_prefix("")

    async def set(self, key: str, value: Buffer) -> None:
        """Refused: what is stored is written through `Files`."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refused."""
        self._check_writable()

    def _read(self, key: str, wanted: ByteRequest | None) -> bytes:
        match wanted:
            case None:
                return self._files.read(key)
            case RangeByteRequest(start, end):
                return self._files.read(key, start, end - start)
            case OffsetByteRequest(offset):
                return self._files.read(key, offset)
            case SuffixByteRequest(suffix):
                return self._files.read(key, max(self._files.stat(key).bytes - suffix, 0))
