"""What is in a folder is named whatever it is, or there is an error."""

import os
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.files import LocalFiles, files_at
from pipeline.source.folders.scan import Scan, scan_folder

pytest_plugins = ["fixtures_s3"]


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


def scanned(folder: Path) -> Scan:
    return scan_folder(LocalFiles(folder.parent), folder.name)


def paths(scan: Scan) -> set[str]:
    return {f"{folder}/{name}".lstrip("/") for folder, names in scan.names.items() for name in names}


def test_all_files_at_any_depth_are_named(tmp_path: Path) -> None:
    names = {
        "a.jpg",
        "b/c.jpg",
        "b/d/e.txt",
        "new\nline.jpg",
        "ü/日本.jpg",
        "README",
        os.fsdecode(b"caf\xe9/x\xff.jpg"),
    }
    make(tmp_path / "x", *names, ".git/a.jpg", "b/.thumbnails/c.jpg")
    (tmp_path / "x/empty").mkdir()
    scan = scanned(tmp_path / "x")
    assert paths(scan) == names
    assert {scan.bytes(name) for name in names} == {len(os.fsencode(name)) for name in names}
    assert scan.bytes("gone.jpg") == 0


def test_links_are_followed_and_those_that_lead_nowhere_are_not_forgotten(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/a.jpg", "elsewhere/deep/b.jpg")
    make(tmp_path / "x", "c.jpg")
    (tmp_path / "x/folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "x/again").symlink_to(tmp_path / "elsewhere/deep")
    (tmp_path / "x/d.jpg").symlink_to(tmp_path / "elsewhere/a.jpg")
    (tmp_path / "x/dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "x/itself.jpg").symlink_to(tmp_path / "x/itself.jpg")
    os.mkfifo(tmp_path / "x/pipe.jpg")
    expected = {"c.jpg", "d.jpg", "folder/a.jpg", "folder/deep/b.jpg", "again/b.jpg", "dangling.jpg", "itself.jpg"}
    assert paths(scanned(tmp_path / "x")) == expected


@pytest.mark.parametrize("target", ["x", "x/a", "x/a/b", "."])
def test_a_link_into_itself_is_an_error_and_not_a_hang(tmp_path: Path, target: str) -> None:
    make(tmp_path / "x", "a/b/c.jpg")
    (tmp_path / "x/a/b/loop").symlink_to(tmp_path / target)
    with pytest.raises(ConfigError, match=r"x/a/b/loop.*: a link leads back to a folder that it lies in"):
        scanned(tmp_path / "x")


def test_stores_and_tokenizers_in_it_are_passed_over(tmp_path: Path) -> None:
    make(tmp_path / "x", "a.jpg", "runs/b.png")
    make(tmp_path / "x/runs/tokenizer", "config.json", "model.safetensors", "reconstructions.png", "deep/c.png")
    make(tmp_path / "x/runs/store", "store.json", "manifest.json", "reconstructions.png")
    assert paths(scanned(tmp_path / "x")) == {"a.jpg", "runs/b.png"}


def test_what_there_is_instead_of_images_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert scanned(tmp_path / "x").extensions().startswith("it is empty")
    make(tmp_path / "x", "0.tar", "1.TAR", "README")
    assert scanned(tmp_path / "x").extensions() == "it holds 3 files: 2 .tar, 1 without an extension"


def test_objects_are_named_as_files_are(bucket_url: str) -> None:
    files = files_at(bucket_url)
    for name in ("x/a.jpg", "x/b/c.jpg", "x/.git/d.jpg", "y/e.jpg"):
        files.put(name, name.encode())
    scan = scan_folder(files, "x")
    assert paths(scan) == {"a.jpg", "b/c.jpg"}
    assert (scan.bytes("b/c.jpg"), scan.bytes("gone.jpg")) == (9, 0)
