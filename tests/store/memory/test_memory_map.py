"""Files mapped into memory: what the operating system has dropped, and how it is read again."""

import ctypes
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fixtures_store import begin_store, make_birth, make_shard, wait_for
from unsynced import fsync

from pipeline.store.arrays.parts import Part
from pipeline.store.arrays.row_array import RowArray
from pipeline.store.memory import memory_map as mapping
from pipeline.store.memory.memory_map import in_memory, map_file, read_ahead
from pipeline.store.schema.manifest import PartRecord
from pipeline.store.writing.writer import commit_part

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="cannot drop pages here")

PAGES = 64


def drop(file: Path, *mapped: np.ndarray) -> None:
    """Have the operating system forget the pages of a file; of those that are mapped, the process first."""

    def forgotten() -> bool:
        for data in mapped:
            start, size = mapping._pages(data)
            assert ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.MADV_DONTNEED) == 0
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return not any(map(in_memory, mapped))

    with file.open("rb") as opened:
        fsync(opened.fileno())
        deadline = time.monotonic() + 4
        while not forgotten():  # it is only advice, and pages that another core has just used stay for a while
            if time.monotonic() > deadline:
                pytest.skip("the operating system keeps the pages")
            time.sleep(0.01)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """Pages of bytes 0, of bytes 1 and so on."""
    file = tmp_path / "data"
    file.write_bytes(b"".join(bytes([page]) * mmap.PAGESIZE for page in range(PAGES)))
    drop(file)
    with file.open("rb") as opened:
        if in_memory(map_file(opened)):
            pytest.skip("this file system lies in memory")
    return file


def test_what_was_dropped_is_read_ahead(file: Path) -> None:
    with file.open("rb") as opened:
        data = map_file(opened)
    first, last = data[10 : mmap.PAGESIZE + 20], data[-10:]
    read_ahead(last)
    wait_for(lambda: in_memory(last))
    read_ahead(first)
    wait_for(lambda: in_memory(first))
    assert in_memory(data)
    drop(file, data)
    assert not in_memory(first)
    assert data[mmap.PAGESIZE * 3] == 3
    assert in_memory(data[mmap.PAGESIZE * 3 : mmap.PAGESIZE * 3 + 1])


@pytest.mark.usefixtures("file")
def test_mapped_chunks_that_were_dropped_are_read_ahead(tmp_path: Path) -> None:
    birth = make_birth(codec="raw")
    files = begin_store(tmp_path / "store", birth)
    commits = [commit_part(files, birth, make_shard(birth, f"p{number}", 10)) for number in range(3)]
    parts = [Part(files, birth, PartRecord.of(commit, since=0)) for commit in commits]
    rows = RowArray(parts, "tokens", "uint8", (8,))
    rows.read_ahead(np.arange(30))  # nothing is mapped yet
    expected = rows.gather(rows.locate(np.arange(30)))
    mapped = list(rows._chunks._open.rows.values())
    assert len(mapped) == 3
    for data, chunk_file in zip(mapped, sorted(tmp_path.glob("store/tokens.zarr/parts/*/tokens/c/0/0")), strict=True):
        drop(chunk_file, data)
    assert not any(map(in_memory, mapped))
    rows.read_ahead(np.asarray([0, 10]))
    wait_for(lambda: in_memory(mapped[0]) and in_memory(mapped[1]))
    assert not in_memory(mapped[2])
    assert np.array_equal(rows.gather(rows.locate(np.arange(30))), expected)
