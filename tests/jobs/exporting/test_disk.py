"""Files that are whole or not there, and rows in any order."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from support import file_system

from pipeline.errors import ExportError
from pipeline.jobs.exporting.disk import RowFile, full_disk_explained, npy_header, whole_file


def test_rows_come_in_any_order_and_stay(tmp_path: Path) -> None:
    rows = np.arange(60, dtype=np.uint16).reshape(10, 2, 3)
    file = RowFile(tmp_path / "rows.npy", npy_header("uint16", (10, 2, 3)), "uint16", (2, 3), 10)
    file.reserve()
    assert np.load(file.path).shape == (10, 2, 3)
    for start in (6, 0, 3, 9):
        with file.rows() as writer:
            writer.write(start, rows[start : start + 3])
        file.reserve()  # as an export does that goes on
    assert np.array_equal(np.load(file.path), rows)


@pytest.mark.parametrize("refusing", [False, True])
def test_a_file_system_that_cannot_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusing: bool) -> None:
    """glibc writes into each block there, other C libraries refuse."""
    rows = np.arange(30_000, dtype=np.uint16).reshape(10, 3000)
    with file_system(tmp_path / "mounted", megabytes=1, kind="ramfs") as folder:
        if refusing:

            def refuse(descriptor: int, start: int, size: int) -> None:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

            monkeypatch.setattr(os, "posix_fallocate", refuse)
        file = RowFile(folder / "rows", b"header", "uint16", (3000,), 10)
        for start in (5, 0):
            file.reserve()
            with file.rows() as writer:
                writer.write(start, rows[start : start + 5])
        assert file.path.read_bytes() == b"header" + rows.tobytes()


def test_a_file_whose_writer_fails_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyError), whole_file(tmp_path / "file", tmp_path) as file:
        file.write(b"half")
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_explained_and_the_file_named(tmp_path: Path) -> None:
    with (
        pytest.raises(
            ExportError, match=r"/file: No space left on device; what has been written stays in kept: make room"
        ),
        full_disk_explained(Path("kept")),
        whole_file(tmp_path / "file", tmp_path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), full_disk_explained(tmp_path):
        raise PermissionError(errno.EACCES, "no")
