"""What each source shard of a folder consists of, in a file of its own: as the log says, whoever writes it."""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures_s3 import Proxy

from pipeline.config import SourceConfig
from pipeline.errors import CorruptStore
from pipeline.files import Files, LocalFiles, files_at
from pipeline.files.objects import ObjectFiles
from pipeline.source.find import find_source_shards
from pipeline.source.folders import planning
from pipeline.source.folders.listings import ListedPart, Listings, Mode
from pipeline.source.shards.naming import part_name

pytest_plugins = ["fixtures_s3"]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "SHARD_SAMPLES", 2)
    monkeypatch.setattr(planning, "_PARTS_AT_ONCE", 2)


NAMES = [*(f"{key}.jpg" for key in "abcdefg"), "m/ü.jpg", os.fsdecode(b"caf\xe9.jpg"), "a.txt", 'new\n"line.jpg']


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images `x/…`: five source shards in a log of three files."""
    add(tmp_path / "x", *NAMES)
    return tmp_path / "x"


def add(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1" * len(name))


def plan(store: Path | Files, *folders: Path, mode: Mode = Mode.KEEP) -> Listings:
    """What is decided of folders then."""
    listings = Listings(LocalFiles(store) if isinstance(store, Path) else store, mode)
    find_source_shards(SourceConfig(shards=tuple(map(str, folders))), listings)
    return listings


def written(store: Path | Files) -> dict[str, bytes]:
    """Files of single source shards by name."""
    files = LocalFiles(store) if isinstance(store, Path) else store
    return {name: files.read(f"listings/{name}") for name in files.names("listings") if name.count(".") == 1}


def test_a_source_shard_has_a_file_of_its_own_that_says_what_the_log_says(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    plan(store, folder).write_parts()
    log = sorted((store / "listings").glob("*.*.json"))
    assert [path.name for path in log] == [f"{part_name('x')}.{number:05d}.json" for number in range(3)]
    decided = [(number, json.loads(path.read_bytes())["listing"]) for number, path in enumerate(log)]
    parts = {part_name(part["path"]): (number, part) for number, body in decided for part in body["parts"]}
    assert len(parts) == 5
    files = written(store)
    assert files.keys() == {f"{part}.json" for part in parts}
    for part, (number, of_log) in parts.items():
        tree = json.loads(files[f"{part}.json"])
        assert tree["listing"] == {"folder": "x", "number": number, "part": part, **of_log}
        text = json.dumps(tree["listing"], sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert files[f"{part}.json"].decode() == f'{{"listing":{text},"sha256":"{digest}"}}\n'
    names = [
        f"{inside}/{name}".lstrip("/")
        for _, part in parts.values()
        for inside, some in part["files"].items()
        for name in some
    ]
    assert sorted(names) == sorted(NAMES)


def test_whoever_writes_it_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    plan(store, folder).write_parts()  # from what it has seen
    expected = written(store)
    for mode in (Mode.LOOK, Mode.KEEP):  # from the log
        for name in expected:
            (store / "listings" / name).unlink()
        plan(store, folder, mode=mode).write_parts()
        assert written(store) == expected


def test_a_log_that_an_older_version_wrote_gets_them(folder: Path, tmp_path: Path) -> None:
    """Its keys are not sorted, and no file of a part is beside it."""
    store = tmp_path / "store"
    part = {"path": "x/#a", "bytes": 17, "files": {"m": ["ü.jpg"], "": ["a.jpg", "a.txt"]}}
    body = {"folder": "x", "parts": [part]}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    (store / "listings").mkdir(parents=True)
    log = store / "listings" / f"{part_name('x')}.00000.json"
    log.write_text(json.dumps({"listing": body, "sha256": digest}, separators=(",", ":")) + "\n")
    before = log.read_bytes()
    listings = plan(store, folder, mode=Mode.LOOK)
    assert listings.problems({part_name("x/#a")}) == []
    listings.write_parts()
    assert json.loads(written(store)[f"{part_name('x/#a')}.json"])["listing"]["files"] == part["files"]
    assert plan(store, folder).problems({part_name("x/#a")}) == []
    assert log.read_bytes() == before


class Noting(LocalFiles):
    """Notes what it is asked."""

    asked: list[tuple[str, str]]

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked = []

    def names(self, folder: str) -> list[str]:
        self.asked.append(("names", folder))
        return super().names(folder)

    def read(self, path: str, *arguments: Any) -> bytes:
        self.asked.append(("read", path))
        return super().read(path, *arguments)

    def fetch(self, path: str, *arguments: Any) -> Any:
        self.asked.append(("fetch", path))
        return super().fetch(path, *arguments)

    def put_if_absent(self, path: str, *arguments: Any) -> bool:
        self.asked.append(("put", path))
        return super().put_if_absent(path, *arguments)


def test_a_resume_compares_names_of_one_list_for_all_folders(folder: Path, tmp_path: Path) -> None:
    add(tmp_path / "y", "a.jpg")
    plan(tmp_path / "store", folder, tmp_path / "y").write_parts()
    files = Noting(tmp_path / "store")
    plan(files, folder, tmp_path / "y").write_parts()
    assert [what for what, _ in files.asked].count("names") == 1
    assert {path.count(".") for what, path in files.asked if what == "read"} == {2}  # the log alone
    assert {what for what, _ in files.asked} == {"names", "read"}


def test_only_missing_ones_are_written(folder: Path, tmp_path: Path) -> None:
    plan(tmp_path / "store", folder).write_parts()
    first = sorted(written(tmp_path / "store"))[0]
    (tmp_path / "store/listings" / first).unlink()
    files = Noting(tmp_path / "store")
    plan(files, folder, mode=Mode.LOOK).write_parts()
    assert [path for what, path in files.asked if what == "put"] == [f"listings/{first}"]


def test_what_another_process_has_written_meanwhile_is_not_written_again(folder: Path, tmp_path: Path) -> None:
    files = Noting(tmp_path / "store")
    late = plan(files, folder)
    plan(tmp_path / "store", folder).write_parts()
    files.asked.clear()
    late.write_parts()
    assert files.asked == [("names", "listings")]


def test_a_part_is_not_mistaken_for_a_log_nor_a_log_for_a_part(tmp_path: Path) -> None:
    """Keys that look like numbers, and a folder that is called as a source shard of another one."""
    store = tmp_path / "store"
    add(tmp_path / "x", "00000.jpg", "00000.00000.jpg", "00001.jpg")
    plan(store, tmp_path / "x").write_parts()
    first = part_name("x/#00000")
    assert first.startswith("_00000-")
    assert sorted(written(store)) == sorted([f"{first}.json", f"{part_name('x/#00001')}.json"])
    other = Listings(LocalFiles(store), Mode.KEEP)
    assert part_name("x/#00000") == first  # as a folder, too
    assert other.read("x/#00000") == []
    assert other.add("x/#00000", 0, [ListedPart("x/#00000/#a", 3, {"": ["a.jpg"]})])
    other.write_parts()
    again = Listings(LocalFiles(store))
    assert [part.path for parts in again.read("x/#00000") for part in parts] == ["x/#00000/#a"]
    assert [part.path for parts in again.read("x") for part in parts] == ["x/#00000", "x/#00001"]
    assert again.problems({first, part_name("x/#00001"), part_name("x/#00000/#a")}) == []
    assert len(written(store)) == 3


def bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def do(path: Path) -> None:
        path.unlink()
        make(path)

    return do


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "bit": (bit, "not as {log} beside it says; delete it and run vqtok tokenize again"),
    "cut": (lambda path: os.truncate(path, 20), "not as {log} beside it says; delete it and"),
    "empty": (lambda path: os.truncate(path, 0), "not as {log} beside it says; delete it and"),
    "longer": (lambda path: path.open("ab").write(b"\n"), "not as {log} beside it says; delete it and"),
    "huge": (lambda path: os.truncate(path, 1 << 40), "not as {log} beside it says; delete it and"),
    "endless": (instead(lambda path: path.symlink_to("/dev/zero")), "delete it and run vqtok tokenize again"),
    "FIFO": (instead(os.mkfifo), "delete it and run vqtok tokenize again"),
    "folder": (instead(Path.mkdir), "no file; delete it and run vqtok tokenize again (Is a directory)"),
    "loop": (instead(lambda path: path.symlink_to(path.name)), "no file; delete it and run vqtok tokenize again"),
    "link to nothing": (instead(lambda path: path.symlink_to("nowhere")), "leads to no file; delete it and run"),
    "gone": (Path.unlink, "missing; run vqtok tokenize again"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_one_is_named_and_stops_nothing(kind: str, folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shards = find_source_shards(SourceConfig(shards=(str(folder),)), plan(store, folder))
    plan(store, folder).write_parts()
    committed = {shard.part for shard in shards}
    name = sorted(written(store))[2]
    expected, path = written(store), store / "listings" / name
    damage, what = DAMAGES[kind]
    damage(path)
    (problem,) = plan(store, folder, mode=Mode.LOOK).problems(committed)
    log = f"{part_name('x')}.{json.loads(expected[name])['listing']['number']:05d}.json"
    assert problem.startswith(f"{path}: ")
    assert what.format(log=log) in problem
    before = path.lstat() if kind != "gone" else None
    listings = plan(store, folder)
    assert find_source_shards(SourceConfig(shards=(str(folder),)), listings) == shards
    listings.write_parts()
    if kind != "gone":
        assert path.lstat() == before  # nothing is written over
        shutil.rmtree(path) if kind == "folder" else path.unlink()
        plan(store, folder).write_parts()
    assert written(store) == expected
    assert plan(store, folder, mode=Mode.LOOK).problems(committed) == []


def test_a_list_that_lags_behind_lets_nothing_be_written_over(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of some object stores."""
    plan(tmp_path / "store", folder).write_parts()
    path = tmp_path / "store/listings" / min(written(tmp_path / "store"))
    path.write_bytes(b"other")
    before = written(tmp_path / "store")
    monkeypatch.setattr(LocalFiles, "names", lambda self, folder: [])
    listings = plan(tmp_path / "store", folder)
    listings.write_parts()
    assert len(listings.problems(())) == 1
    monkeypatch.undo()
    assert written(tmp_path / "store") == before


def test_one_that_was_never_written_is_no_damage_before_its_part_is_committed(folder: Path, tmp_path: Path) -> None:
    plan(tmp_path / "store", folder).write_parts()
    first, second, *_ = sorted(written(tmp_path / "store"))
    (tmp_path / "store/listings" / first).unlink()
    listings = plan(tmp_path / "store", folder, mode=Mode.LOOK)
    assert listings.problems({second.removesuffix(".json")}) == []
    (problem,) = listings.problems({first.removesuffix(".json")})
    assert problem.endswith(f"/{first}: missing; run vqtok tokenize again")


def test_a_listing_whose_path_no_part_can_be_called_by_is_damaged(tmp_path: Path) -> None:
    """With a digest that is right, as its author can make it."""
    store = LocalFiles(tmp_path)
    body = {"folder": "x", "parts": [{"path": "x/#\udce9", "bytes": 3, "files": {"": ["a.jpg"]}}]}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    store.put(f"listings/{part_name('x')}.00000.json", json.dumps({"listing": body, "sha256": digest}).encode())
    with pytest.raises(CorruptStore, match=r"\.00000\.json: not a listing"):
        Listings(store).read("x")


def test_objects_are_written_as_files_are(folder: Path, tmp_path: Path, bucket_url: str) -> None:
    plan(tmp_path / "store", folder).write_parts()
    expected = written(tmp_path / "store")
    files = files_at(bucket_url)
    racing = [threading.Thread(target=lambda: plan(files_at(bucket_url), folder).write_parts()) for _ in range(3)]
    for thread in racing:
        thread.start()
    for thread in racing:
        thread.join()
    assert written(files) == expected
    first, second, third, *_ = sorted(expected)
    committed = {name.removesuffix(".json") for name in expected}
    files.put(f"listings/{first}", b"{}")
    files.put(f"listings/{second}", expected[second] * 2)
    files.delete(f"listings/{third}")
    problems = sorted(plan(files, folder, mode=Mode.LOOK).problems(committed))
    assert [problem.split(": ")[0] for problem in problems] == [
        f"{bucket_url}/listings/{name}" for name in (first, second, third)
    ]
    assert ["beside it says" in problem for problem in problems] == [True, True, False]
    files.delete(f"listings/{first}")
    files.delete(f"listings/{second}")
    plan(files, folder).write_parts()
    assert written(files) == expected


def test_of_objects_each_is_a_request_at_first_sight_and_none_later(
    folder: Path, bucket_url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.s3.environment["AWS_ENDPOINT_URL"])
    plan(ObjectFiles(bucket_url), folder).write_parts()
    assert proxy.counts == {"ListObjects": 2, "HeadObject": 1, "PutObject": 3 + 5}, proxy.asked
    proxy.asked.clear()
    plan(ObjectFiles(bucket_url), folder).write_parts()
    assert proxy.counts == {"ListObjects": 1, "HeadObject": 1, "GetObject": 3}, proxy.asked
