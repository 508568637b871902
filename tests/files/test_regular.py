"""Only regular files are read, and nothing is written or deleted through a link."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.files import LocalFiles
from pipeline.files.locks import lock
from pipeline.files.regular import descriptor_of, open_regular, read_regular, refuse_links

READS: dict[str, Callable[[Path], object]] = {
    "descriptor": descriptor_of,
    "open": open_regular,
    "read": read_regular,
    "all of a file": lambda path: LocalFiles(path.parent).read(path.name),
    "a range": lambda path: LocalFiles(path.parent).read(path.name, 3, 5),
    "a stream": lambda path: LocalFiles(path.parent).open(path.name),
    "a stretch": lambda path: LocalFiles(path.parent).open(path.name, 3, 5),
    "fetch": lambda path: LocalFiles(path.parent).fetch(path.name),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_neither_fifos_nor_devices_nor_folders_are_read(read: Callable[[Path], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "link").symlink_to("fifo")
    for name in ("fifo", "zero", "link"):
        with pytest.raises(OSError, match="only regular files are read"):
            read(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        read(tmp_path / "folder")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")


def test_links_to_files_are_read_as_snapshots_of_hubs_are_made_of_them(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to("blob")
    assert read_regular(tmp_path / "link") == b"0123456789"
    assert LocalFiles(tmp_path).read("link", 2, 3) == b"234"


@pytest.fixture
def linked(tmp_path: Path) -> LocalFiles:
    """A folder in which `elsewhere` leads out of it, to one with a file and a folder."""
    (tmp_path / "precious/folder").mkdir(parents=True)
    (tmp_path / "precious/folder/file").write_text("mine")
    (tmp_path / "precious/file").write_text("mine")
    (tmp_path / "store").mkdir()
    (tmp_path / "store/elsewhere").symlink_to("../precious")
    return LocalFiles(tmp_path / "store")


CHANGES: dict[str, Callable[[LocalFiles, str], object]] = {
    "put": lambda files, folder: files.put(f"{folder}/file", b"theirs"),
    "put a new one": lambda files, folder: files.put(f"{folder}/a/b/new", b"theirs"),
    "put if absent": lambda files, folder: files.put_if_absent(f"{folder}/new", b"theirs"),
    "put a folder": lambda files, folder: files.put_folder(f"{folder}/new", {"a": b""}, "staging/new"),
    "put from staging": lambda files, folder: files.put_folder("parts/new", {"a": b""}, f"{folder}/new"),
    "delete": lambda files, folder: files.delete(f"{folder}/file"),
    "delete a folder": lambda files, folder: files.delete_folder(f"{folder}/folder"),
    "delete deeper": lambda files, folder: files.delete(f"{folder}/folder/file"),
}


@pytest.mark.parametrize("folder", ["elsewhere", "../precious", "inner/../../precious"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_nothing_is_changed_elsewhere(
    change: Callable[[LocalFiles, str], object], folder: str, linked: LocalFiles, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "precious").rglob("*")}
    with pytest.raises(OSError, match=r"it is a link, and nothing is written|it leads out of its folder"):
        change(linked, folder)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "precious").rglob("*")} == before
    assert (tmp_path / "precious/file").read_text() == "mine"


def test_a_link_itself_is_replaced_or_deleted(linked: LocalFiles, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / "store" / name).symlink_to("../precious/file")
    linked.put("one", b"ours")
    linked.delete("other")
    assert (tmp_path / "store/one").read_text() == "ours"
    assert not (tmp_path / "store/other").is_symlink()
    assert (tmp_path / "precious/file").read_text() == "mine"


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to("disk")
    LocalFiles(tmp_path / "store").put("a/b", b"ours")
    assert (tmp_path / "disk/a/b").read_text() == "ours"
    refuse_links(tmp_path / "store", "nothing/there/yet")


def test_a_lock_makes_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to("elsewhere")
    with pytest.raises(OSError, match="Too many levels"):
        lock(tmp_path / ".lock")
    assert not (tmp_path / "elsewhere").exists()
