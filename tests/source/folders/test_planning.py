"""Which files make which source shard: every image in one of them, for good, whoever looks and whenever."""

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import examples

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError, CorruptStore
from pipeline.files import LocalFiles
from pipeline.records import SourceShard
from pipeline.source.find import find_source_shards
from pipeline.source.folders import planning
from pipeline.source.folders.listings import ListedPart, Listings, Mode
from pipeline.source.folders.scan import Scan


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "SHARD_SAMPLES", 3)
    monkeypatch.setattr(planning, "_PARTS_AT_ONCE", 2)


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1" * len(name))


def find(folder: object, store: Path | None = None, mode: Mode = Mode.LOOK, **options: Any) -> list[SourceShard]:
    listings = Listings(LocalFiles(store) if store else None, mode)
    shards = find_source_shards(SourceConfig(shards=(str(folder),), **options), listings)
    return sorted(shards, key=lambda shard: shard.path)


def files_of(shard: SourceShard) -> list[str]:
    assert shard.listing is not None
    return [f"{folder}/{name}".lstrip("/") for folder, names in shard.listing.files.items() for name in names]


def test_samples_are_cut_into_source_shards_in_the_order_of_their_keys(tmp_path: Path) -> None:
    make(tmp_path / "x", *(f"{key}.jpg" for key in "gfedcba"), "b.txt", "g.cls")
    shards = find(tmp_path / "x")
    assert [(shard.path, files_of(shard)) for shard in shards] == [
        ("x/#a", ["a.jpg", "b.jpg", "b.txt", "c.jpg"]),
        ("x/#d", ["d.jpg", "e.jpg", "f.jpg"]),
        ("x/#g", ["g.cls", "g.jpg"]),
    ]
    assert [(shard.base, shard.bytes) for shard in shards] == [
        (str(tmp_path), 20),
        (str(tmp_path), 15),
        (str(tmp_path), 10),
    ]
    assert shards[0].part.startswith("_a-")
    assert not (tmp_path / "listings").exists()


def test_what_is_listed_stays_and_what_comes_later_makes_source_shards_of_its_own(tmp_path: Path) -> None:
    folder, store = tmp_path / "x", tmp_path / "store"
    make(folder, "b.jpg", "d.jpg", "f.jpg", "h.jpg", "alone.txt")
    provisional = find(folder, store)
    listed = find(folder, store, Mode.KEEP)
    assert [shard.part for shard in provisional] == [shard.part for shard in listed]
    assert [shard.listing.is_kept for shard in (*provisional, *listed) if shard.listing] == [False] * 2 + [True] * 2
    before = {path: path.read_bytes() for path in store.rglob("*.json")}
    assert len(before) == 1
    make(folder, "a.jpg", "c.jpg", "e.jpg", "g.jpg", "b.txt", "alone.jpg", "i.txt")
    (folder / "d.jpg").unlink()
    for mode in (Mode.LOOK, Mode.KEEP, Mode.LOOK, Mode.KEEP):
        listings = Listings(LocalFiles(store), mode)
        found = find_source_shards(SourceConfig(shards=(str(folder),)), listings)
        assert {shard.path: files_of(shard) for shard in found} == {
            "x/#b": ["b.jpg", "d.jpg", "f.jpg"],
            "x/#h": ["h.jpg"],
            "x/#a": ["a.jpg", "alone.jpg", "alone.txt", "c.jpg"],  # a caption that waited for its image
            "x/#e": ["e.jpg", "g.jpg"],
        }
        assert [shard.listing.missing for shard in found if shard.path == "x/#b" and shard.listing] == [("d.jpg",)]
        assert listings.remarks == [
            f"{folder}: 1 files came after their samples were listed, and are left out, such as 'b.txt'"
        ]
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(store.rglob("*.json"))) == 2
    (only,) = find_source_shards(
        SourceConfig(shards=(str(folder),), exclude=("x/#[abe]",)), Listings(LocalFiles(store))
    )
    assert only.path == "x/#h"


def test_a_process_that_may_only_take_what_is_listed_does_so(tmp_path: Path) -> None:
    make(tmp_path / "x", "a.jpg")
    find(tmp_path / "x", tmp_path / "store", Mode.KEEP)
    make(tmp_path / "x", "b.jpg")
    assert [files_of(shard) for shard in find(tmp_path / "x", tmp_path / "store", Mode.LISTED)] == [["a.jpg"]]


def test_a_listed_collection_may_move(tmp_path: Path) -> None:
    make(tmp_path / "one/x", "a.jpg", "b/c.jpg")
    listed = find(tmp_path / "one/x", tmp_path / "store", Mode.KEEP)
    (tmp_path / "one").rename(tmp_path / "two")
    moved = find(tmp_path / "two/x", tmp_path / "store", Mode.KEEP)
    assert [shard.part for shard in moved] == [shard.part for shard in listed]


def test_names_that_are_not_utf8_are_listed_and_found_again(tmp_path: Path) -> None:
    make(tmp_path / "x", os.fsdecode(b"caf\xe9.jpg"), "new\nline.jpg", "ü.jpg")
    for mode in (Mode.KEEP, Mode.LOOK):
        (shard,) = find(tmp_path / "x", tmp_path / "store", mode)
        assert shard.path == "x/#caf\\xe9"
        assert shard.listing is not None
        assert not shard.listing.missing
        assert [os.fsencode(name) for name in files_of(shard)] == [b"caf\xe9.jpg", b"new\nline.jpg", "ü.jpg".encode()]


NAMES = [f"{folder}{key}.{extension}" for folder in ("", "m/") for key in "abcdefgh" for extension in ("jpg", "txt")]
SEEN = st.lists(st.sets(st.sampled_from(NAMES), min_size=1), min_size=2, max_size=5)


@settings(max_examples=examples(40), deadline=None)
@given(SEEN)
def test_processes_that_see_different_files_agree(
    tmp_path_factory: pytest.TempPathFactory, seen: list[set[str]]
) -> None:
    """Each sees what it sees, at the same time; then one sees all."""
    folder, store = tmp_path_factory.mktemp("set"), tmp_path_factory.mktemp("store")
    results: list[list[SourceShard]] = []

    def look(names: Iterable[str]) -> None:
        by_folder: dict[str, set[str]] = {}
        for name in names:
            by_folder.setdefault(name.rpartition("/")[0], set()).add(name.rpartition("/")[2])
        scan = Scan(by_folder, LocalFiles(folder), "x", {})
        listings = Listings(LocalFiles(store), Mode.KEEP)
        try:
            shards = list(planning.folder_shards(str(folder), "x", "jpg".__eq__, (), listings, lambda *_: scan))
            results.append(shards)
            listings.write_parts()
            assert not listings.problems({shard.part for shard in shards})
        except ConfigError:
            assert not any(name.endswith("jpg") for name in names)

    threads = [threading.Thread(target=look, args=(names,)) for names in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    look(set().union(*seen))
    files = [file for shard in results[-1] for file in files_of(shard)] if results else []
    assert len(files) == len(set(files)), "a file is in two source shards"
    images = {name for name in set().union(*seen) if name.endswith(".jpg")}
    assert {file for file in files if file.endswith(".jpg")} == images
    last = {shard.path: files_of(shard) for shard in results[-1]} if results else {}
    for earlier in results:
        assert {shard.path: files_of(shard) for shard in earlier}.items() <= last.items()
    alone = LocalFiles(store).names("listings")
    assert {f"{shard.part}.json" for shard in (results[-1] if results else [])} == {
        name for name in alone if name.count(".") == 1
    }


def test_what_others_list_meanwhile_does_not_seem_to_be_gone(tmp_path: Path) -> None:
    class Racing(Listings):
        def read(self, folder: str) -> Any:
            make(tmp_path / "x", "later.jpg")
            find(tmp_path / "x", tmp_path / "store", Mode.KEEP)
            return super().read(folder)

    make(tmp_path / "x", "a.jpg")
    shards = find_source_shards(SourceConfig(shards=(f"{tmp_path}/x",)), Racing(LocalFiles(tmp_path / "store")))
    assert [list(shard.listing.missing) for shard in shards if shard.listing] == [[]]


@pytest.mark.parametrize(
    "files",
    [
        {"": ["../../outside.jpg"]},
        {"../..": ["outside.jpg"]},
        {"/etc": ["passwd"]},
        {"": [".."]},
        {"": ["a.jpg", 7]},
        {"": 7},
        {".": ["a.jpg"]},
    ],
)
def test_a_listing_names_no_file_outside_its_folder(files: dict[str, Any], tmp_path: Path) -> None:
    """With a digest that is right, as its author can make it."""
    log = Listings(LocalFiles(tmp_path), Mode.KEEP)
    assert log.add("photos", 0, [ListedPart("photos/#a", 3, {"": ["a.jpg"], "sub folder": ["b.jpg"]})])
    assert [part.path for parts in log.read("photos") for part in parts] == ["photos/#a"]
    assert log.add("photos", 1, [ListedPart("photos/#b", 3, files)])
    with pytest.raises(CorruptStore, match=r"\.00001\.json: not a listing"):
        log.read("photos")


def test_a_damaged_listing_is_named(tmp_path: Path) -> None:
    make(tmp_path / "x", *(f"{key}.jpg" for key in "abcdefghijklmnopqrst"))
    find(tmp_path / "x", tmp_path / "store", Mode.KEEP)
    first, second, *_, last = sorted((tmp_path / "store/listings").iterdir())
    good = second.read_bytes()
    for bad in (b"", good[:-9], good.replace(b"h.jpg", b"H.jpg"), b"[]"):
        second.write_bytes(bad)
        with pytest.raises(CorruptStore, match=f"listings/{second.name}: not a listing, or a damaged one"):
            find(tmp_path / "x", tmp_path / "store")
    second.unlink()
    with pytest.raises(CorruptStore, match=f"{second.name} missing; restore it"):
        find(tmp_path / "x", tmp_path / "store")
    assert first.exists() and last.exists()


def test_files_that_are_excluded_are_not_listed(tmp_path: Path) -> None:
    make(tmp_path / "x", "a.jpg", "thumbs/a.jpg", "b/thumbs/c.jpg", "d.jpg")
    shards = find(tmp_path / "x", exclude=("x/*thumbs/*", f"{tmp_path}/x/d.jpg"))
    assert [file for shard in shards for file in files_of(shard)] == ["a.jpg"]


REFUSED: dict[str, tuple[list[str], list[str], str]] = {
    "empty": ([], ["x"], "x: no image in it: it is empty"),
    "other things": (["x/0.tar", "x/1.csv"], ["x"], r"no image in it: it holds 2 files: .*name a folder of images, or"),
    "one in the other": (["x/y/a.jpg", "x/b.jpg"], ["x", "x/y"], "x/y lies in .*x, so that its images"),
    "one name": (["x/t/a.jpg", "y/t/b.jpg"], ["x/t", "y/t"], r"have one path relative .* set source.base"),
    "wildcards": (["x/a/b.jpg"], ["x/*"], "name the folder above them, without wildcards"),
    "missing": ([], ["y"], "1 of 1 source shards are missing"),
}


@pytest.mark.parametrize(("files", "patterns", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_a_collection_is_refused(
    tmp_path: Path, files: list[str], patterns: list[str], reason: str
) -> None:
    (tmp_path / "x").mkdir()
    make(tmp_path, *files)
    with pytest.raises(ConfigError, match=reason):
        find_source_shards(SourceConfig(shards=tuple(f"{tmp_path}/{pattern}" for pattern in patterns)))


def test_a_folder_by_two_names_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "x", "a.jpg")
    (tmp_path / "y").symlink_to(tmp_path / "x")
    with pytest.raises(ConfigError, match="is named twice, as x and as y"):
        find_source_shards(SourceConfig(shards=(f"{tmp_path}/x", f"{tmp_path}/y")))


@pytest.mark.parametrize(
    "pattern", ["{}/x", "{}/x/", "file://{}/x", "{}/../{name}/x", "x", "./x", "{}/[x]", "{}/{{x,z}}"]
)
def test_a_folder_may_be_named_in_many_ways(tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x", "a.jpg")
    make(tmp_path / "z", "c.jpg")
    make(tmp_path / "[x]", "d.jpg")
    shards = find(pattern.format(tmp_path, name=tmp_path.name))
    expected = {"{}/[x]": ["[x]/#d"], "{}/{{x,z}}": ["x/#a", "z/#c"]}.get(pattern, ["x/#a"])
    assert [shard.path for shard in shards] == expected
    monkeypatch.chdir(tmp_path / "x")
    assert [shard.path for shard in find(".")] == ["x/#a"]


@pytest.mark.parametrize("lacking", [{1}, {2}, {0, 1, 2}])
def test_a_list_that_lags_behind_hides_no_listing(
    tmp_path: Path, lacking: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of some object stores."""
    make(tmp_path / "x", *(f"{number:02d}.jpg" for number in range(15)))
    expected = find(tmp_path / "x", tmp_path / "store", Mode.KEEP)
    written = LocalFiles(tmp_path / "store").names("listings")
    assert len(written) == 3
    shown = [name for number, name in enumerate(written) if number not in lacking]
    monkeypatch.setattr(LocalFiles, "names", lambda self, folder: shown)
    assert find(tmp_path / "x", tmp_path / "store", Mode.KEEP) == expected
    assert LocalFiles(tmp_path / "store").list("listings") == written
