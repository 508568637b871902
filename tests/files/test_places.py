"""What every place for files must do, on a local folder and on an S3 server."""

import pickle
from pathlib import Path

import pytest
from support import sampled, start_python

from pipeline.errors import ConfigError
from pipeline.files import Files, LocalFiles, files_at, is_url

pytest_plugins = ["fixtures_store", "fixtures_s3"]

DATA = bytes(range(256)) * 40


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder or URL below which nothing is yet."""
    return str(tmp_path / "root") if request.param == "local" else str(request.getfixturevalue("bucket_url"))


@pytest.fixture
def files(place: str) -> Files:
    return files_at(place)


def test_what_was_put_is_read(files: Files) -> None:
    files.put("a/b/c.json", DATA)
    assert files.read("a/b/c.json") == DATA
    assert files.stat("a/b/c.json").bytes == len(DATA)
    assert list(files.stats("")) == ["a/b/c.json"]


def test_put_replaces_and_its_stat_tells(files: Files) -> None:
    files.put("a", b"old and longer")
    old = files.stat("a")
    assert files.stat("a") == old
    files.put("a", b"new")
    assert files.read("a") == b"new"
    assert files.stat("a") != old
    assert list(files.stats("")) == ["a"]


RANGES = [
    (0, None, DATA),
    (0, 0, b""),
    (0, 10, DATA[:10]),
    (300, 17, DATA[300:317]),
    (len(DATA) - 5, 100, DATA[-5:]),  # fewer where the file ends
    (len(DATA), 1, b""),
    (len(DATA) + 1000, 1, b""),  # past the end
    (len(DATA) + 1000, None, b""),
    (5, None, DATA[5:]),
]


def test_ranges_end_where_the_file_ends(files: Files) -> None:
    files.put("a", DATA)
    for start, length, expected in RANGES:
        assert files.read("a", start, length) == expected


def test_a_missing_file_is_not_found(files: Files) -> None:
    for read in (files.read, files.stat, lambda path: files.open(path).read(1)):
        with pytest.raises(FileNotFoundError, match="folder/absent"):
            read("folder/absent")


def test_deleting_is_done_once_and_harmless_twice(files: Files) -> None:
    files.put("a/b", b"")
    files.delete("a/b")
    files.delete("a/b")
    files.delete("no/such/folder")
    assert files.list("a") == []


def test_listings_are_sorted_and_of_one_level(files: Files) -> None:
    for name in ("z.json", "a.json", "ü b.json", ".hidden", "sub/below.json", "also/c", "sub/deep/er"):
        files.put(f"commits/{name}", b"1")
    files.put("commits-of-another-name", b"")
    assert files.list("commits") == [".hidden", "a.json", "z.json", "ü b.json"]
    assert files.folders("commits") == ["also", "sub"]
    assert files.folders("") == ["commits"]
    assert files.list("absent") == files.folders("absent") == []


BEGINNINGS = [
    ("", "", ["0", "t-", "t-0", "t-9.json", "tz", "z"]),
    ("", "t-", ["t-", "t-0", "t-9.json"]),
    ("", "0", ["0"]),
    ("", "no", []),
    ("f", "00", ["00", "001"]),
    ("f", "ü", ["ü", "üb"]),
    ("absent", "", []),
    ("absent", "a", []),
]


def test_a_level_is_listed_by_what_names_begin_with(files: Files) -> None:
    names = ["0", "t-", "t-0", "t-9.json", "tz", "z", "t-8/deeper", "t-8/er", "f/00", "f/001", "f/01", "f/ü", "f/üb"]
    for path in names:
        files.put(path, path.encode())
    for folder, beginning, expected in BEGINNINGS:
        found = files.level(folder, beginning)
        assert sorted(found) == expected, (folder, beginning)
        assert all(found[name] == files.stat(f"{folder}/{name}" if folder else name) for name in found)


def test_the_end_of_a_file_is_read_with_its_size(files: Files) -> None:
    files.put("a", DATA)
    files.put("empty", b"")
    assert [files.read_end("a", length) for length in (1, 500, 10**6)] == [
        (DATA[-1:], len(DATA)),
        (DATA[-500:], len(DATA)),
        (DATA, len(DATA)),
    ]
    assert files.read_end("empty", 10) == (b"", 0)
    assert files.read("empty", 0, 10) == b""
    with pytest.raises(FileNotFoundError, match="absent"):
        files.read_end("absent", 1)


def test_stats_are_of_all_below(files: Files) -> None:
    for path in ("f/a", "f/b/c", "f/b/d e", "g/a"):
        files.put(path, path.encode())
    stats = files.stats("f")
    assert {path: stat.bytes for path, stat in stats.items()} == {"a": 3, "b/c": 5, "b/d e": 7}
    assert stats["b/c"] == files.stat("f/b/c")
    assert files.stats("absent") == {}


def test_put_if_absent_creates_once(files: Files) -> None:
    assert files.put_if_absent("claims/a", b"first") is True
    assert files.put_if_absent("claims/a", b"second") is False
    assert files.read("claims/a") == b"first"
    assert files.list("claims") == ["a"]


RACE = """
import sys
from pipeline.files import files_at
files, mine = files_at(sys.argv[1]), sys.argv[2].encode() * 5000
print("ready", flush=True)
sys.stdin.readline()
print(*(int(files.put_if_absent(f"race/{n}", mine)) for n in range(20)))
"""


@pytest.mark.parametrize("names", sampled("abc", "abcdef"))
def test_of_racing_processes_exactly_one_creates_each_file(place: str, names: str) -> None:
    racers = [start_python(RACE, place, name) for name in names]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = []
    for racer in racers:
        out, errors = racer.communicate(timeout=60)
        assert racer.returncode == 0, errors
        won.append([int(word) for word in out.split()])
    for number, winners in enumerate(zip(*won, strict=True)):
        assert sum(winners) == 1
        name = names[winners.index(1)]
        assert files_at(place).read(f"race/{number}") == name.encode() * 5000  # whole, and the winner's


def test_a_folder_is_put_and_deleted_as_a_whole(files: Files) -> None:
    contents = {"zarr.json": b"{}", "a/zarr.json": b"[]", "a/c/0/0": DATA}
    files.put_folder("parts/x", contents, "staging/x")
    files.put("parts/y/other", b"")
    assert {path: files.read(f"parts/x/{path}") for path in files.stats("parts/x")} == contents
    assert files.folders("parts") == ["x", "y"]
    assert files.stats("staging") == {}
    files.delete_folder("parts/x")
    files.delete_folder("parts/x")
    assert files.folders("parts") == ["y"]


@pytest.mark.parametrize("size", [0, 1, 511, 8 << 20, (8 << 20) + 1, 20 << 20])
def test_a_stream_equals_the_file(files: Files, size: int) -> None:
    data = (DATA * (1 + size // len(DATA)))[:size]
    files.put("a", data)
    with files.open("a") as stream:
        pieces = [stream.read(100), stream.read(0), stream.read(3), stream.read(9 << 20)]
        while piece := stream.read(1 << 20):
            pieces.append(piece)
        assert stream.read(1) == b""
    assert b"".join(pieces) == data


def test_a_stream_that_is_left_early_ends_at_once(files: Files) -> None:
    files.put("a", DATA * 2000)
    with files.open("a") as stream:
        assert stream.read(5) == DATA[:5]


def test_another_process_opens_the_same_place(files: Files) -> None:
    files.put("a", DATA)
    again: Files = pickle.loads(pickle.dumps(files))
    assert (again.root, again.read("a")) == (files.root, DATA)


def test_a_folder_or_a_file_url_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files_at(str(tmp_path)).put("a", b"1")
    assert files_at(f"file://{tmp_path}").read("a") == b"1"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files_at("~").read("a") == b"1"
    monkeypatch.chdir(tmp_path)
    assert files_at(".").read("a") == b"1"


@pytest.mark.parametrize(
    ("place", "remote"),
    [
        ("s3://bucket/a", True),
        ("https://host/a.tar", True),
        ("file:///data", False),
        ("/data/s3://odd", False),
        ("data", False),
        ("~/data", False),
        ("c:data", False),
    ],
)
def test_urls_are_told_from_paths(place: str, remote: bool) -> None:
    assert is_url(place) is remote


def test_unknown_schemes_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"hdfs://host/x: hdfs:// cannot be opened; known are s3, .* and folders"):
        files_at("hdfs://host/x")


@pytest.mark.parametrize(
    "url",
    ["s3://bucket/store?X-Amz-Signature=secret", "s3://bucket/store#secret", "https://user:secret@host/store"],
)
def test_urls_with_secrets_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ConfigError, match="no user, query or fragment; put credentials into the env") as caught:
        files_at(url)
    assert "secret" not in str(caught.value)


def test_local_files_are_what_others_build_on(tmp_path: Path) -> None:
    assert LocalFiles(tmp_path).path("a/b") == tmp_path / "a/b"
