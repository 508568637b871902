"""Which files a configuration names, and what their parts are called."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import write_tar

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.records import SourceShard
from pipeline.source.find import find_source_shards, part_name
from pipeline.storage import Storage


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str, size: int = 0) -> None:
    for name in names:
        write_tar(Path(name), {"a.txt": bytes(size)})


def find(*shards: str, **options: Any) -> list[SourceShard]:
    return find_source_shards(SourceConfig(shards=shards, **options))


def paths(*shards: str, **options: Any) -> list[str]:
    return sorted(shard.path for shard in find(*shards, **options))


def refused(*shards: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        find(*shards, **options)
    return str(caught.value)


# What stores were written with: a change here orphans every part there is.
PARTS = [
    ("train-0000.tar", "train-0000-b8d080623c6a"),
    ("train/0000.tar", "0000-27a4335a4629"),
    ("val/0000.tar", "0000-4e2efa869124"),  # the folder counts
    ("a.b c/ü.x.tar", "__x-15c89259b46b"),
    ("photos.TAR", "photos_TAR-e76068d85fb3"),  # only the usual ending goes
    ("noending", "noending-49a2f0a2ccd3"),
    ("x" * 150 + ".tar", "x" * 100 + "-eb7967ae6490"),
    (".tar", "-e943eede5474"),
]


@pytest.mark.parametrize(("path", "part"), PARTS)
def test_a_part_is_named_after_the_path_of_its_source_shard(path: str, part: str) -> None:
    assert part_name(path) == part


def test_a_source_shard_knows_its_file() -> None:
    make("data/train-0000.tar", size=3000)
    (shard,) = find("data/train-0000.tar")
    assert shard == SourceShard(
        path="train-0000.tar",
        base="data",
        part="train-0000-b8d080623c6a",
        bytes=Path("data/train-0000.tar").stat().st_size,
        version=str(Path("data/train-0000.tar").stat().st_mtime_ns),
        storage=Storage(),
    )


def test_source_shards_come_sorted_by_part() -> None:
    make(*(f"data/x-{number:02}.tar" for number in range(20)))
    parts = [shard.part for shard in find("data/*.tar")]
    assert parts == sorted(parts)
    assert len(set(parts)) == 20


def test_order_number_and_form_of_patterns_make_no_difference() -> None:
    make(*(f"data/x-{number}.tar" for number in range(4)))
    whole = find("data/x-{0..3}.tar")
    pieces = ["data/x-0.tar", "data/x-{1,2}.tar", "data/x-[3].tar"]
    for order in itertools.permutations(pieces):
        assert find(*order) == whole
    assert find("data/*.tar", "data/x-0.tar", "data/x-?.tar", "./data/x-1.tar", "data/../data/x-2.tar") == whole


def test_names_stay_when_the_folder_moves_and_the_set_grows(here: Path) -> None:
    make("data/x-0.tar", "data/x-1.tar")
    before = {shard.path: shard.part for shard in find("data/*.tar")}
    make("data/x-2.tar")
    shutil.move("data", "elsewhere")
    after = {shard.path: shard.part for shard in find(f"{here}/elsewhere/*.tar")}
    assert after.keys() - before.keys() == {"x-2.tar"}
    assert before.items() <= after.items()


def test_a_missing_file_of_a_range_is_named() -> None:
    make("data/a-0000.tar", "data/a-0003.tar")
    message = refused("data/a-{0000..0003}.tar")
    assert "2 of 4 source shards are missing, first data/a-0001.tar" in message
    assert "'data/a-{0000..0003}.tar'" in message


def test_an_excluded_file_may_be_missing() -> None:
    make("data/a-0.tar", "data/a-2.tar")
    assert paths("data/a-{0..2}.tar", exclude=["a-1.tar"]) == ["a-0.tar", "a-2.tar"]


def test_a_link_to_nowhere_is_missing_and_not_skipped() -> None:
    make("data/a-0.tar")
    Path("data/a-1.tar").symlink_to("gone.tar")
    assert "first data/a-1.tar" in refused("data/*.tar")


def test_naming_nothing_is_an_error() -> None:
    assert "source.shards: names no file" in refused()
    assert "source.shards: ''" in refused("")
    make("data/a.tar")
    assert "no image in it: it holds 1 files: 1 .tar" in refused("data")  # a folder is no tar


REFUSED = [
    ("pipe:cat secret/a.tar", "the command of a pipe: source runs only with source.allow_pipe=true"),
    ("s3://bucket/a.tar?token=secret", "s3://bucket/a.tar?…: a URL here has no user, query or fragment"),
    ("https://host/{0..3}.tar?token=secret", "https://host/{0..3}.tar?…: a URL here has no user, query or fragment"),
    ("https://127.0.0.1:9/*.tar", "https://127.0.0.1:9/*.tar: a web server cannot be listed; name the files"),
    ("hdfs://host/a.tar", "hdfs:// cannot be opened; known are s3, "),
    ("data/a-{0000..0003.tar", "a brace is opened or closed alone"),
    ("data/a-0}.tar", "a brace is opened or closed alone"),
    ("data/a-{0..99999999}.tar", "stands for more than 10,000,000 names"),
    ("data/{0..999}{0..999}{a,b{0..999},c}.tar", "stands for more than 10,000,000 names"),
    ("data/" + "{a,b}" * 30, "stands for more than 10,000,000 names"),
    ("x" * 300 + ".tar", "File name too long"),
]


@pytest.mark.parametrize(("pattern", "reason"), REFUSED)
def test_what_cannot_be_opened_is_refused_with_the_reason(pattern: str, reason: str) -> None:
    message = refused(pattern)
    assert reason in message
    assert "secret" not in message


def test_exclude_leaves_out_by_path_and_by_name() -> None:
    make(*(f"data/{folder}/{number}.tar" for folder in ("one", "two") for number in range(3)))
    assert paths("data/*/*.tar", exclude="one/1.tar") == [
        "one/0.tar",
        "one/2.tar",
        "two/0.tar",
        "two/1.tar",
        "two/2.tar",
    ]
    assert paths("data/*/*.tar", exclude=["one/*", "*/{0,1}.tar"]) == ["two/2.tar"]
    assert paths("data/*/*.tar", exclude="data/two/*") == ["one/0.tar", "one/1.tar", "one/2.tar"]
    assert "a brace is opened" in refused("data/*/*.tar", exclude="{0.tar")


def test_excluding_everything_is_an_error() -> None:
    make("data/a.tar")
    assert "source.exclude matches all" in refused("data/*.tar", exclude="*")


def test_one_stem_in_two_folders_needs_a_base_above_both() -> None:
    make("one/0000.tar", "two/0000.tar")
    message = refused("one/*.tar", "two/*.tar")
    assert "one/0000.tar and two/0000.tar are both 0000.tar" in message
    assert "set source.base to a folder above both" in message
    shards = find("one/*.tar", "two/*.tar", base=".")
    assert sorted(shard.path for shard in shards) == ["one/0000.tar", "two/0000.tar"]
    assert shards == find("*/0000.tar") == find("{two,one}/0000.tar")


def test_one_file_under_two_names_is_not_taken_twice() -> None:
    make("data/0000.tar")
    assert "data/0000.tar is named by two patterns, as 0000.tar and as data/0000.tar" in refused(
        "data/*.tar", "*/0000.tar"
    )
    assert len(find("data/*.tar", "*/0000.tar", base=".")) == 1


OUTSIDE = [("one/a.tar", "two"), ("one/a.tar", "one/deeper"), ("one/../two/b.tar", "one"), ("../{0}/one/a.tar", "two")]


@pytest.mark.parametrize(("pattern", "base"), OUTSIDE)
def test_a_file_outside_the_base_is_an_error(here: Path, pattern: str, base: str) -> None:
    make("one/a.tar", "two/b.tar")
    assert f"does not lie in {base}; name a folder above it" in refused(pattern.format(here.name), base=base)


def test_the_base_may_be_any_folder_above(here: Path) -> None:
    make("data/one/a.tar")
    for base in ("data", "./data", f"{here}/data", "data/one/.."):
        assert paths("data/one/a.tar", base=base) == ["one/a.tar"]
    (shard,) = find("data/one/a.tar", base="data")
    assert shard.part == part_name("one/a.tar") != part_name("a.tar")


def test_a_name_that_is_not_utf8_is_refused(here: Path) -> None:
    Path("data").mkdir()
    try:
        Path("data/a\udcff.tar").write_bytes(b"")
    except OSError:
        pytest.skip("this file system wants UTF-8")
    assert "its name is not UTF-8" in refused("data/*.tar")
