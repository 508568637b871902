"""A range of addresses: what is named by an offset is what was mapped there, or the process ends."""

import contextlib
import faulthandler
import gc
import mmap
import signal
import socket
import sys
from pathlib import Path
from threading import RLock
from types import FrameType

import numpy as np
import pytest
from support import in_a_fork

from pipeline.store.memory import libc
from pipeline.store.memory.reserved import Memory, Reserved

SIZE = 1 << 30
ROW = np.dtype("V10")
FAULTS = (-signal.SIGSEGV, -signal.SIGBUS)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "data"
    file.write_bytes(np.arange(1000, dtype="<u2").tobytes())
    return file


def mapped(reserved: Reserved, file: Path) -> np.ndarray:
    with file.open("rb") as opened:
        memory = reserved.map_file(opened.fileno(), file.stat().st_size)
    assert memory is not None
    return np.asarray(memory)


# Where processes have their files: x86-64 and ARM64 with 39, 47 and 48 bits of addresses.
@pytest.mark.parametrize("near", [None, 0x10_0000_0000, 0x7F_8C3F_1000, 0x7FF0_8C3F_1000, 0xFFF0_8C3F_1000])
def test_offsets_are_the_same_wherever_the_range_lies(file: Path, near: int | None) -> None:
    reserved = Reserved(SIZE, RLock(), near)
    if near is not None and abs(reserved.base - near) > 1 << 22:
        pytest.skip("this machine does not have these addresses free")
    data, memory = mapped(reserved, file), reserved.map_memory(100)
    writable = np.asarray(memory)
    writable[:] = 7
    offset, other = reserved.offset_of(data[20:]), reserved.offset_of(writable)
    assert offset is not None and other is not None and 0 <= offset < SIZE and 0 <= other < SIZE
    rows = reserved.gather(np.array([offset, other, offset + 2]), ROW)
    assert rows.view("<u2").reshape(3, 5).tolist() == [[10, 11, 12, 13, 14], [0x707] * 5, [11, 12, 13, 14, 15]]


def test_an_array_of_another_place_has_no_offset(file: Path) -> None:
    reserved, other = Reserved(SIZE, RLock()), Reserved(SIZE, RLock())
    assert reserved.offset_of(np.arange(10)) is None
    assert reserved.offset_of(mapped(other, file)) is None


@pytest.mark.parametrize("row_bytes", [1, 2, 999, 65_536, 65_537, 3 << 20])
def test_rows_of_any_size(tmp_path: Path, row_bytes: int) -> None:
    file = tmp_path / "data"
    values = np.random.default_rng(row_bytes).integers(0, 256, (3, row_bytes), np.uint8)
    file.write_bytes(values.tobytes())
    reserved = Reserved(1 << 44, RLock())
    data = mapped(reserved, file)
    start = reserved.offset_of(data)
    assert start is not None
    row = np.dtype((np.void, row_bytes))
    wanted = [2, 0, 1, 2]
    gathered = reserved.gather(np.array(wanted) * row_bytes + start, row)
    assert gathered.shape == (4,)
    assert np.array_equal(gathered.view(np.uint8).reshape(4, row_bytes), values[wanted])
    assert reserved.gather(np.empty(0, np.int64), row).view(np.uint8).size == 0
    for wild in (reserved.size - row_bytes + 1, reserved.size, 1 << 62):
        with pytest.raises(IndexError):
            reserved.gather(np.array([wild]), row)


def test_negative_offsets_are_refused_or_count_from_the_end() -> None:
    reserved = Reserved(1 << 18, RLock())
    memory = np.asarray(reserved.map_memory(reserved.size))
    memory[:] = np.arange(memory.size) % 251
    for row_bytes in (10, 65_536):
        gathered = reserved.gather(np.array([-1, -3]), np.dtype((np.void, row_bytes))).view(np.uint8)
        expected = [memory[-row_bytes:], memory[-row_bytes - 2 : -2]]
        assert np.array_equal(gathered.reshape(2, row_bytes), expected)
    with pytest.raises(IndexError, match="offset -1 "):
        reserved.gather(np.array([5, -1]), np.dtype("V65537"))


def wild(file: Path, where: str, size: int) -> None:
    reserved = Reserved(1 << 40, RLock())
    data: np.ndarray | None = mapped(reserved, file)
    assert data is not None
    start = reserved.offset_of(data)
    assert start is not None
    if where == "gone":
        data = None
    offset = {"gone": start, "behind": start + (1 << 21), "end": reserved.size - size, "negative": -1}[where]
    faulthandler.disable()
    reserved.gather(np.array([offset]), np.dtype((np.void, size)))


@pytest.mark.parametrize(("where", "size"), [("gone", 10), ("behind", 70_000), ("end", 10), ("negative", 10)])
def test_what_was_never_mapped_or_is_no_more_ends_the_process(file: Path, where: str, size: int) -> None:
    code, returned = in_a_fork(wild, file, where, size)
    assert code in FAULTS and not returned


def high() -> None:
    base = 0xFFFF_8C3F_1000
    libc.map_nothing = lambda *arguments, **options: base  # type: ignore[assignment]  # nothing is there
    reserved = Reserved(1 << 40, RLock())
    offset = reserved.offset_of(np.asarray(Memory(base + (1 << 22), 100)))
    assert offset is not None and 0 < offset <= 1 << 22
    faulthandler.disable()
    reserved.gather(np.array([offset]), ROW)


def test_addresses_beyond_those_of_this_machine_are_asked_for() -> None:
    code, returned = in_a_fork(high)
    assert code in FAULTS and not returned


def test_what_cannot_be_mapped_leaves_its_addresses_reserved() -> None:
    reserved = Reserved(1 << 20, RLock())
    size = 3 * mmap.PAGESIZE
    for _ in range(2 * reserved.size // size):
        # Linux refuses a socket only after it has ended what was mapped there.
        with socket.socket(socket.AF_UNIX) as unmappable, pytest.raises(OSError):
            reserved.map_file(unmappable.fileno(), size)
    found = [libc.map_nothing(mmap.PAGESIZE, reserved.base + at, fixed=False) for at in range(0, reserved.size, size)]
    for address in found:
        libc.unmap(address, mmap.PAGESIZE)
    assert not any(reserved.base <= address < reserved.base + reserved.size for address in found)
    assert reserved.map_memory(reserved.size) is not None


def test_room_comes_back_with_the_last_view(file: Path) -> None:
    reserved = Reserved(1 << 16, RLock())
    room = reserved.size // 4096  # of pages as small as any
    for _ in range(3 * room):
        view = mapped(reserved, file)[10:].view("<u2")
        assert view[0] == 5
        del view
    held = []
    while (memory := reserved.map_memory(5000)) is not None:
        held.append(np.asarray(memory)[4990:])
    assert 1 <= len(held) <= room
    assert reserved.map_memory(1) is None or len(held) < room
    held.clear()
    gc.collect()
    memory = reserved.map_memory(reserved.size)
    assert memory is not None
    assert not np.asarray(memory).any()


def test_the_range_ends_with_the_last_that_uses_it(file: Path) -> None:
    reserved = Reserved(SIZE, RLock())
    base, data = reserved.base, mapped(reserved, file)
    del reserved
    gc.collect()
    assert data[2] == 1
    del data
    gc.collect()
    found = libc.map_nothing(mmap.PAGESIZE, base, fixed=False)
    libc.unmap(found, mmap.PAGESIZE)
    assert found == base


def test_showing_it_reads_nothing() -> None:
    reserved = Reserved(SIZE, RLock())
    shown = [repr(value) for value in vars(reserved).values()]
    assert all(len(text) < 200 for text in shown)
    assert len(repr(Memory(reserved.base, 100))) < 200


def show(frame: FrameType, event: str, returned: object) -> object:
    """As debuggers do: each local of a frame, and what it returns."""
    for value in (*frame.f_locals.values(), returned):
        with contextlib.suppress(Exception):  # of an object that is not complete yet
            repr(value)
    return show


def shown(file: Path, row_bytes: int) -> list[bool]:
    reserved = Reserved(1 << 40, RLock())
    row = np.dtype((np.void, row_bytes))
    sys.setprofile(show)  # type: ignore[arg-type]
    sys.settrace(show)  # type: ignore[arg-type]
    data, written = mapped(reserved, file), np.asarray(reserved.map_memory(4 * row_bytes))
    offset, other = reserved.offset_of(data), reserved.offset_of(written)
    assert offset is not None and other is not None
    gathered = reserved.gather(np.array([other, other + row_bytes]), row)
    with contextlib.suppress(IndexError):
        reserved.gather(np.array([reserved.size]), row)
    sys.setprofile(None)
    sys.settrace(None)
    return [len(gathered) == 2, not any(gathered.view(np.uint8))]


@pytest.mark.parametrize("row_bytes", [10, 70_000])
def test_a_debugger_may_show_whatever_is_named_or_returned(file: Path, row_bytes: int) -> None:
    assert in_a_fork(shown, file, row_bytes) == (0, [[True, True]])
