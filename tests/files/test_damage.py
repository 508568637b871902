"""What is said of files that are no files."""

import errno
from pathlib import Path

import pytest

from pipeline.errors import CorruptStore
from pipeline.files import LocalFiles
from pipeline.files.damage import damaged, naming_no_file, together


def test_a_folder_and_links_in_a_circle_are_no_file(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").write_text("")
    for path, said in (
        ("folder", "Is a directory"),
        ("circle", "Too many levels of symbolic links"),
        ("file/inside", "Not a directory"),
    ):
        with (
            pytest.raises(CorruptStore, match=f"^{tmp_path}/{path}: no file \\({said}\\)$"),
            naming_no_file(files, path),
        ):
            files.read(path)


def test_what_the_next_try_may_not_meet_is_no_damage(tmp_path: Path) -> None:
    for number in (errno.EIO, errno.EACCES, errno.ENOENT):
        with pytest.raises(OSError) as caught, naming_no_file(LocalFiles(tmp_path), "a"):
            raise OSError(number, "so it is")
        assert caught.value.errno == number


def test_of_many_damaged_files_the_first_few_are_named(tmp_path: Path) -> None:
    errors = [damaged(LocalFiles("/store"), str(number), "bad") for number in range(8)]
    assert together(errors[:1]) is errors[0]
    assert str(together(errors[:2])) == "/store/0: bad; /store/1: bad"
    assert str(together(errors)).endswith("/store/4: bad; and 3 more files")
