"""What `vqtok init` prints."""

import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from fixtures_collections import KINDS, inspected, samples
from fixtures_store import write_shard
from PIL import Image
from support import ROOT, encoded

from pipeline.cli import main
from pipeline.config import load_config

pytest_plugins = ["fixtures_collections"]


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["init", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def dry_run(text: str, path: Path) -> str:
    (path / "job.yaml").write_text(text)
    store = f"tokenize.store={path}/store"
    done = CliRunner().invoke(main, ["tokenize", "--dry-run", "--config", f"{path}/job.yaml", "--set", store])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_accepted_and_fits(kind: str, tmp_path: Path) -> None:
    name, found = inspected(kind, tmp_path / "data")
    text = printed(name)
    assert "1 of 1 source shards are pending" in dry_run(text, tmp_path)
    source = load_config(tmp_path / "job.yaml").source
    assert (source.nested, source.regroup) == (found.source.nested, found.source.regroup)
    assert source.label == ("label" if kind == "parquet" else "cls")
    assert set(source.keep) == ({"text"} if kind == "parquet" else {"json", "txt"})


def test_a_folder_of_class_folders(class_folders: Path, tmp_path: Path) -> None:
    text = printed(str(class_folders))
    assert yaml.safe_load(text)["source"] == {"shards": str(class_folders), "label": "folder", "keep": ["txt"]}
    assert "cats, dogs" in text
    assert "1 of 1 source shards are pending" in dry_run(text, tmp_path)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(32, 32)] * 3, 32),
        ([(96, 96)] * 3, 96),
        ([(98, 98)] * 3, 96),  # a multiple of 4
        ([(512, 512)] * 3, 256),
        ([(300, 200), (70, 500), (150, 150)], 128),
        ([(9, 9), (10, 12)], 32),
    ],
)
def test_the_size_fits_the_images(sizes: list[tuple[int, int]], expected: int, tmp_path: Path) -> None:
    images = [encoded(Image.new("RGB", size), "PNG") for size in sizes]
    write_shard(tmp_path / "a.tar", [(f"s{number}", {"png": data}) for number, data in enumerate(images)])
    assert yaml.safe_load(printed(f"{tmp_path}/a.tar"))["image"] == {"size": expected}


@pytest.mark.parametrize("name", ["a: \"b' # c", "Größe 😀", "a\u200db\x7f\x85\ufeff", os.fsdecode(b"\xff")])
def test_odd_names_are_quoted(name: str, tmp_path: Path) -> None:
    odd = tmp_path / name
    odd.mkdir()
    write_shard(odd / "x.tar", [("s", {"png": encoded(Image.new("RGB", (8, 8)), "PNG")})])
    assert "1 of 1 source shards are pending" in dry_run(printed(f"{odd}/x.tar"), tmp_path)


def test_names_stay_as_people_read_them(tmp_path: Path) -> None:
    (tmp_path / "Größe").mkdir()
    write_shard(tmp_path / "Größe/x.tar", [("s", {"png": encoded(Image.new("RGB", (8, 8)), "PNG")})])
    assert f'shards: "{tmp_path}/Größe/x.tar"' in printed(f"{tmp_path}/Größe/x.tar")


def test_without_a_source_a_shipped_one_is_printed() -> None:
    assert printed() == (ROOT / "configs/sample.yaml").read_text()


@pytest.mark.parametrize("shipped", sorted((ROOT / "configs").iterdir()), ids=lambda path: path.stem)
def test_any_that_is_shipped_can_be_printed(shipped: Path) -> None:
    assert printed("--like", shipped.stem) == shipped.read_text()


def test_where_no_image_is_found_it_says_why(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [("s", {"mp": b"x", "txt": b"y"})])
    done = CliRunner().invoke(main, ["init", f"{tmp_path}/a.tar"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no image member among .mp, .txt" in done.stderr


def test_splits_are_no_classes(class_folders: Path, tmp_path: Path) -> None:
    for name in ("train", "Val"):
        shutil.copytree(class_folders, tmp_path / "both" / name)
    assert "2 folders: Val, train, which are splits" in CliRunner().invoke(main, ["inspect", f"{tmp_path}/both"]).stdout
    text = printed(f"{tmp_path}/both")
    assert yaml.safe_load(text)["source"]["label"] is None
    assert "Val, train: splits, it seems; name one of them above" in text


def test_folders_in_a_tar_need_their_names_in_a_file(tmp_path: Path) -> None:
    (_, members), *_ = samples(1)
    pixels = {name: data for name, data in members.items() if name != "cls"}
    write_shard(tmp_path / "a.tar", [(f"{name}/1", pixels) for name in ("cat", "dog")])
    text = printed(f"{tmp_path}/a.tar")
    assert "# cat, dog: 2 folders, classes perhaps" in text
    assert "1 of 1 source shards are pending" in dry_run(text, tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    followed = text.replace("  # label:", "  label:").replace("  # classes: ", f"  classes: {tmp_path}/")
    assert "1 of 1 source shards are pending" in dry_run(followed.replace("  label: null\n", ""), tmp_path)


def test_a_file_that_cannot_be_read_is_told_and_hides_no_other(class_folders: Path, tmp_path: Path) -> None:
    source = shutil.copytree(class_folders, tmp_path / "pictures")
    (source / "dogs/gone.jpg").symlink_to("nowhere.jpg")
    assert re.search(r"^# Cannot be read: .*gone\.jpg.*No such file", printed(str(source)), re.MULTILINE)
    done = CliRunner().invoke(main, ["inspect", str(source)])
    assert done.exit_code == 1
    assert "2 of 5 looked at" in done.stdout
