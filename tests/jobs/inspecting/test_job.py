"""What `vqtok inspect` finds, in collections of every kind."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fixtures_collections import KINDS, as_plain, inspected, samples
from fixtures_store import write_shard

from pipeline.cli import main
from pipeline.errors import ConfigError
from pipeline.jobs.inspecting.job import run
from pipeline.jobs.inspecting.text import as_text
from pipeline.jobs.plan import spread

pytest_plugins = ["fixtures_collections"]


def test_a_folder(class_folders: Path) -> None:
    found = run(str(class_folders))
    assert (found.samples, found.rows, found.complete) == (4, 3, True)
    assert found.folders() == ["cats", "dogs"]
    assert found.tally.formats == {"JPEG": 1, "AVIF": 1, "TGA": 1}
    assert found.tally.sizes == {(30, 21): 1, (30, 22): 1, (30, 23): 1}
    assert found.tally.caption == "a broken dog"
    assert found.tally.rejects.total() == 1
    text = as_text(found)
    for part in ("files of a folder", "2 folders: cats, dogs", "1 of 4 looked at", "shorter side 21 to 23 px"):
        assert part in text


@pytest.mark.parametrize("kind", KINDS)
def test_containers(kind: str, tmp_path: Path) -> None:
    _, found = inspected(kind, tmp_path)
    assert (found.kind, found.samples, found.rows, found.complete) == (KINDS[kind][1], 5, 5, True)
    assert {key: True for key in ("nested", "regroup") if getattr(found.source, key)} == KINDS[kind][2]
    assert found.tally.classes == {0: 2, 1: 2, 2: 1}
    assert found.tally.caption == "a red square"
    assert found.tally.formats == {"PNG": 5}
    assert not found.problems


def test_json_has_the_same(tmp_path: Path) -> None:
    name = as_plain(tmp_path)
    done = CliRunner().invoke(main, ["inspect", name, "--json"])
    assert done.exit_code == 0
    tree = json.loads(done.stdout)
    assert (tree["samples"], tree["samples_counted"], tree["rows"]) == (5, True, 5)
    assert tree["json_integers"] == {"id": 5}
    assert tree["labels"] == {"0": 2, "1": 2, "2": 1}


def test_of_a_large_collection_some_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.jobs.inspecting.job.SAMPLES", 10)
    for number in range(12):
        write_shard(tmp_path / f"{number:02d}.tar", samples(40))
    found = run(f"{tmp_path}/*.tar")
    assert (len(found.looks), found.tally.samples) == (8, 80)
    assert not found.complete
    assert not found.is_counted
    assert found.samples is not None
    assert 400 <= found.samples <= 560  # of 480
    assert "about 4" in as_text(found)
    assert "80 in 8 source shards were looked at" in as_text(found)


def test_time_is_bounded_but_something_is_seen(tmp_path: Path) -> None:
    name = as_plain(tmp_path)
    assert run(name, seconds=0).tally.samples == 1


def test_shards_are_taken_from_all_over(tmp_path: Path) -> None:
    numbers: list[Any] = list(range(100))
    assert spread(numbers, 4) == [0, 25, 50, 75]
    assert spread(numbers[:3], 4) == [0, 1, 2]
    assert spread(numbers[:5], 4) == [0, 1, 2, 3]


def test_a_file_that_cannot_be_read_is_named_and_hides_no_other(tmp_path: Path) -> None:
    name = as_plain(tmp_path)
    (tmp_path / "b.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:2000])
    done = CliRunner().invoke(main, ["inspect", name])
    assert done.exit_code == 1
    assert "b.tar" in done.stdout.split("cannot be read: ")[1]
    assert "PNG 100%" in done.stdout


@pytest.mark.parametrize("name", ["missing.tar", "empty", "text", "nothing/*.tar"])
def test_what_is_no_collection_ends_with_2(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("x")
    done = CliRunner().invoke(main, ["inspect", f"{tmp_path}/{name}"])
    assert done.exit_code == 2
    assert done.stderr.startswith("vqtok: source.shards: ")
    with pytest.raises(ConfigError):
        run(f"{tmp_path}/{name}")


def test_what_is_read_is_not_told_as_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / "tars" / name, samples(2))
    (tmp_path / "here").mkdir()
    for folder, name in ((tmp_path, "tars"), (tmp_path, "./tars/"), (tmp_path / "here", "../tars")):
        monkeypatch.chdir(folder)
        found = run(name)
        assert (len(found.shards), found.remarks) == (2, [])


def test_what_lies_beside_and_is_not_read_is_told(class_folders: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(class_folders, tmp_path / "mixed")
    write_shard(mixed / "cats/more.tar", samples(2))
    (remark,) = run(str(mixed)).remarks
    assert "tars or Parquet files are left alone in it, 1 of them, such as 'cats/more.tar'; where they hold" in remark
    for name in ("a.tar", "b.tar.gz", "c.parquet", "a.parquet"):  # the last one as img2dataset writes it
        write_shard(tmp_path / "tars" / name, samples(2))
    found = run(f"{tmp_path}/tars")
    assert (len(found.shards), found.samples) == (1, 2)
    (remark,) = found.remarks
    assert f"also there: {tmp_path}/tars: " in as_text(found)
    assert "2 of them, such as 'b.tar.gz'" in remark
    assert CliRunner().invoke(main, ["init", f"{tmp_path}/tars"]).stdout.count(f"# Also there: {remark}\n") == 1


@pytest.mark.parametrize("before", ["", "./"])
def test_first_folders_in_a_tar(before: str, tmp_path: Path) -> None:
    (_, members), *_ = samples(1)
    write_shard(tmp_path / "a.tar", [(f"{before}{name}/1", members) for name in ("cat", "dog")])
    assert run(f"{tmp_path}/a.tar").folders() == ["cat", "dog"]
    write_shard(tmp_path / "b.tar", [(f"{before}train/{name}/1", members) for name in ("cat", "dog")])
    assert run(f"{tmp_path}/b.tar").are_splits()
