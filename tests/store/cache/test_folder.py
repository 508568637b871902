"""A folder that stays below a size: who is evicted, who waits, what is swept and what is left alone."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.files.locks import lock, unlock
from pipeline.store.cache.folder import BoundedFolder

BLOCK = 4096
"""What every file takes a multiple of."""


def contents(name: str, size: int) -> bytes:
    return (name.encode() * size)[:size]


def get(folder: BoundedFolder, name: str, size: int = BLOCK) -> bytes:
    with folder.open(name, size, [contents(name, size)]) as file:
        return file.read()


def never() -> Iterator[bytes]:
    raise AssertionError("it is there already")
    yield b""


def listing(folder: BoundedFolder) -> str:
    """Names of the whole files; whatever else is there as it is called."""
    return " ".join(sorted(path.name.removesuffix(".file") for path in folder.folder.iterdir()))


@pytest.fixture
def folder(tmp_path: Path) -> BoundedFolder:
    return BoundedFolder(tmp_path / "not" / "there" / "yet", 3 * BLOCK)


def test_a_file_is_written_once(folder: BoundedFolder) -> None:
    assert get(folder, "a") == contents("a", BLOCK)
    with folder.open("a", BLOCK, never()) as file:
        assert file.read() == contents("a", BLOCK)
    folder.bring("a", BLOCK, never())
    assert get(folder, "empty", 0) == b""
    assert listing(folder) == ".taken a empty"


def test_what_was_opened_longest_ago_goes_first(folder: BoundedFolder) -> None:
    for name in "abc":
        get(folder, name)
        time.sleep(0.01)  # the clock of a file system ticks slowly
    get(folder, "a")
    get(folder, "d")
    assert listing(folder) == ".taken a c d"
    get(folder, "e", 3 * BLOCK // 2)
    assert listing(folder) == ".taken d e"
    get(folder, "f", 3 * BLOCK)
    assert listing(folder) == ".taken f"


def test_files_count_with_the_blocks_of_the_disk_that_they_take(folder: BoundedFolder) -> None:
    for name in "abcde":
        get(folder, name, 10)
        time.sleep(0.01)
    assert listing(folder) == ".taken c d e"
    assert not folder.fits(3 * BLOCK + 1)
    (folder.folder / "f.file").write_bytes(bytes(3 * BLOCK))  # as a version left it that counted bytes
    get(BoundedFolder(folder.folder, 3 * BLOCK), "g", 10)
    taken = sum(path.stat().st_blocks * 512 for path in folder.folder.glob("*.file"))
    assert taken <= 3 * BLOCK


def test_a_file_that_is_open_outlives_its_eviction(folder: BoundedFolder) -> None:
    with folder.open("a", BLOCK, [contents("a", BLOCK)]) as file:
        get(folder, "b", 3 * BLOCK)
        assert listing(folder) == ".taken b"
        assert file.read() == contents("a", BLOCK)


def test_what_fails_leaves_nothing_and_takes_nothing(folder: BoundedFolder) -> None:
    def failing() -> Iterator[bytes]:
        yield b"some"
        raise ValueError("no more")

    get(folder, "a")
    get(folder, "b")
    for _ in range(10):
        with pytest.raises(ValueError, match="no more"):
            folder.open("c", BLOCK, failing())
    get(folder, "c")
    assert listing(folder) == ".taken a b c"


def test_files_on_their_way_count_and_make_others_wait(folder: BoundedFolder) -> None:
    """`open` waits until one of them is whole, and so can be evicted; `bring` does nothing."""
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        begun.set()
        go_on.wait(30)
        yield contents("a", 2 * BLOCK)

    get(folder, "old")
    writer = threading.Thread(target=lambda: folder.open("a", 2 * BLOCK, slow()).close())
    writer.start()
    begun.wait(30)
    folder.bring("b", 3 * BLOCK // 2, never())
    folder.bring("a", 2 * BLOCK, never())
    reader = threading.Thread(target=lambda: get(folder, "b", 3 * BLOCK // 2))
    reader.start()
    reader.join(0.2)
    assert reader.is_alive()
    assert {name for name in listing(folder).split() if name != "b.coming"} == {".taken", "a.coming", "old"}
    go_on.set()
    for thread in (writer, reader):
        thread.join(30)
    assert listing(folder) == ".taken b"


def test_what_a_killed_process_left_is_swept(folder: BoundedFolder) -> None:
    get(folder, "a")
    (folder.folder / "dead.coming").write_bytes(bytes(2 * BLOCK))
    alive = lock(folder.folder / "alive.coming")
    os.ftruncate(alive, 50)
    get(BoundedFolder(folder.folder, 3 * BLOCK), "b")
    assert listing(folder) == ".taken a alive.coming b"
    get(folder, "c")
    assert listing(folder) == ".taken alive.coming b c"
    unlock(alive)
    assert get(folder, "alive", 70) == contents("alive", 70)  # the temporary of the dead is taken over
    assert listing(folder) == ".taken alive b c"


def test_files_of_others_are_neither_counted_nor_deleted(folder: BoundedFolder) -> None:
    folder.folder.mkdir(parents=True)
    (folder.folder / "precious").write_bytes(bytes(10 * BLOCK))
    (folder.folder / "sub.d").mkdir()
    for name in "abcde":
        get(folder, name)
    assert listing(folder) == ".taken c d e precious sub.d"


@pytest.mark.parametrize("said", [b"", b"nonsense", b"%020d" % 10**9])
def test_a_wrong_count_is_made_good(said: bytes, folder: BoundedFolder) -> None:
    for name in "ab":
        get(folder, name)
    (folder.folder / ".taken").write_bytes(said)
    get(folder, "c")
    assert listing(folder) == ".taken a b c"
    get(folder, "d")
    assert listing(folder) == ".taken b c d"


def test_a_short_copy_is_replaced(folder: BoundedFolder) -> None:
    get(folder, "a")
    (folder.folder / "a.file").write_bytes(b"short")
    assert get(folder, "a") == contents("a", BLOCK)


def test_another_users_file_is_read_all_the_same(folder: BoundedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    get(folder, "a")
    monkeypatch.setattr(os, "utime", refuse)
    with folder.open("a", BLOCK, never()) as file:
        assert file.read() == contents("a", BLOCK)


def test_many_files_are_evicted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searching the folder for every file would cost more than the file."""
    folder = BoundedFolder(tmp_path, 320 * BLOCK)
    scans = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scans.append(path) or scandir(path))
    for number in range(400):
        get(folder, f"{number:03}")
    assert 5 < len(scans) <= 12
    assert len(list(tmp_path.glob("*.file"))) > 300
