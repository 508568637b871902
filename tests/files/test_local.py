"""Files in a local folder: atomic, durable, without leftovers. What every place must do is in test_places.py."""

import os
import resource
import stat
import sys
import threading
from pathlib import Path

import pytest
from support import run_python, start_python

from pipeline.files import LocalFiles, make_folder, sync_tree

DATA = bytes(range(256)) * 40


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path / "root")


def everything(files: LocalFiles) -> list[str]:
    """Names of all files below the root, temporary ones too."""
    return sorted(name for _, _, names in os.walk(files.root) for name in names)


def test_a_listing_is_sorted_and_holds_finished_files_alone(files: LocalFiles) -> None:
    for name in ("z.json", "a.json", ".hidden", "sub/below.json"):
        files.put(f"commits/{name}", b"")
    files.path("commits/.tmp-a.json.0123abcd").write_bytes(b"half")  # left by a process that was killed
    assert files.list("commits") == [".hidden", "a.json", "z.json"]
    assert files.list("absent") == []


def test_a_reader_never_sees_half_of_a_replaced_file(files: LocalFiles) -> None:
    sizes = [1, 300_000]
    files.put("a", bytes(sizes[0]))
    seen, done = set(), threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(len(files.read("a")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for turn in range(60):
        files.put("a", bytes(sizes[turn % 2]))
    done.set()
    watcher.join()
    assert seen <= set(sizes)


def test_a_failed_write_leaves_the_old_file_and_no_temporary(files: LocalFiles) -> None:
    files.put("a", b"old")
    files.path("folder").mkdir()
    files.path("folder/inside").mkdir()
    with pytest.raises(OSError, match="folder"):
        files.put("folder", b"new")  # a folder of that name cannot be replaced
    with pytest.raises(TypeError):
        files.put("a", "text")  # type: ignore[arg-type]
    assert everything(files) == ["a"]
    assert files.read("a") == b"old"


# Reports every file that is opened for writing and every folder that is opened to be synced, in order.
WATCH = """
import os, sys
from pathlib import Path
from pipeline.files import LocalFiles
root = Path(sys.argv[1])
def report(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, Path)) and str(arguments[0]).startswith(str(root)):
        folder = arguments[2] & os.O_DIRECTORY
        print("sync" if folder else "open", Path(arguments[0]).relative_to(root).as_posix())
    if event in ("os.link", "os.rename"):
        print(event, Path(arguments[1]).relative_to(root).as_posix())
sys.addaudithook(report)
files = LocalFiles(root / "store")
files.put_if_absent("commits/a.json", b"1")
print("again")
files.put("commits/b.json", b"2")
"""


def test_names_become_durable_up_to_the_first_folder_that_was_there(tmp_path: Path) -> None:
    lines = run_python(WATCH, tmp_path).splitlines()
    first, second = lines[: lines.index("again")], lines[lines.index("again") + 1 :]
    assert {"sync .", "sync store"} <= set(first[:2])  # the names of `store` and of `commits`
    assert [line.split(".tmp-")[0] for line in first[2:]] == [
        "open store/commits/",
        "os.link store/commits/a.json",
        "sync store/commits",
    ]
    assert [line.split(".tmp-")[0] for line in second] == [
        "open store/commits/",
        "os.rename store/commits/b.json",
        "sync store/commits",
    ]


def test_a_folder_is_synced_once_for_each_file_and_each_name_that_lasts(
    files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.put("parts/before", b"")
    files.put("staging/before", b"")
    synced: list[str] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.path.relpath(Path(f"/proc/self/fd/{descriptor}").readlink(), files.root))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    contents = {"zarr.json": b"1", "key/zarr.json": b"", "key/data/c/0": DATA, "label/c/0": b"2"}
    stats = files.put_folder("parts/x", contents, "staging/x")
    assert {path: stat.bytes for path, stat in stats.items()} == {path: len(data) for path, data in contents.items()}
    folders = ["key/data/c", "key/data", "key", "label/c", "label"]
    assert sorted(synced[: len(contents)]) == sorted(f"staging/x/{path}" for path in contents)
    assert sorted(synced[len(contents) : -2]) == sorted(f"staging/x/{folder}" for folder in folders)
    assert synced[-2:] == ["staging/x", "parts"]  # and not `staging`, whose names may be lost


def test_a_folder_of_more_files_than_a_process_may_open(files: LocalFiles) -> None:
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    contents = {f"{number % 7}/{number}": str(number).encode() for number in range(300)}
    there = len(list(Path("/proc/self/fd").iterdir()))  # other tests of the process may hold some
    resource.setrlimit(resource.RLIMIT_NOFILE, (there + 100, allowed[1]))
    try:
        files.put_folder("parts/x", contents, "staging/x")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
    assert {path: files.read(f"parts/x/{path}") for path in files.stats("parts/x")} == contents


def test_a_short_write_is_gone_on_with(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """write(2) may take less than it was given: beyond 2 GiB, or when a signal comes in between."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:1000]))
    files.put("a", DATA)
    files.put_folder("parts/x", {"b": DATA}, "staging/x")
    assert files.read("a") == files.read("parts/x/b") == DATA


def under_strace(options: list[str], code: str, *arguments: object) -> str:
    """What a Python process prints that strace watches or thwarts; skips where the machine has none."""
    launcher = "import os, sys; os.execvp('strace', ['strace', '-f', '-qq', *sys.argv[1:]])"
    command = [*options, sys.executable, "-c", code, *map(str, arguments)]
    with start_python(launcher, *command) as process:
        out, errors = process.communicate(timeout=120)
    if "No such file or directory: 'strace'" in errors or "PTRACE_TRACEME" in errors:
        pytest.skip("no strace here")
    assert process.returncode == 0, errors
    return out


def test_the_bytes_are_synced_before_the_name_appears(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = "import sys; from pipeline.files import LocalFiles; LocalFiles(sys.argv[1]).put_if_absent('c/a', b'x' * 99)"
    under_strace(["-o", str(trace), "-e", "trace=write,link,linkat,fsync,fdatasync"], code, tmp_path / "root")
    calls = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines()]
    written = next(n for n, call in enumerate(calls) if call.startswith("write") and "x" * 20 in call)
    linked = next(n for n, call in enumerate(calls) if call.startswith("link"))
    syncs = [n for n, call in enumerate(calls) if call.startswith(("fsync", "fdatasync"))]
    assert any(written < n < linked for n in syncs)
    assert any(n > linked for n in syncs)


@pytest.mark.parametrize("error", ["EPERM", "EOPNOTSUPP", "ENOSYS"])
def test_a_file_system_without_hard_links_is_refused_with_the_remedy(tmp_path: Path, error: str) -> None:
    code = """if True:
        import sys
        from pipeline.errors import StoreError
        from pipeline.files import LocalFiles
        try:
            LocalFiles(sys.argv[1]).put_if_absent("a", b"1")
        except StoreError as error:
            print(error)
    """
    # The kernel answers every link with the error, as it does on vfat (EPERM).
    options = ["-o", os.devnull, "-e", "trace=link,linkat", "-e", f"inject=link,linkat:error={error}"]
    said = under_strace(options, code, tmp_path)
    assert f"{tmp_path}: this file system has no hard links" in said
    assert "put the store on one that has" in said
    assert list(tmp_path.iterdir()) == []


def test_make_folder_makes_what_is_missing(tmp_path: Path) -> None:
    make_folder(tmp_path / "a/b/c")
    make_folder(tmp_path / "a/b/c")
    assert (tmp_path / "a/b/c").is_dir()


def test_syncing_a_tree_changes_nothing(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    files.put("a/b/c", DATA)
    before = {path: stat.S_IMODE(path.stat().st_mode) for path in sorted(tmp_path.rglob("*"))}
    sync_tree(tmp_path / "a")
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in sorted(tmp_path.rglob("*"))} == before
    assert files.read("a/b/c") == DATA


def test_links_in_a_circle_are_listed_as_files_and_described_as_links(files: LocalFiles, tmp_path: Path) -> None:
    root = Path(files.root)
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "circle").symlink_to("circle")
    (root / "folder" / "file").write_text("text")
    assert files.list("folder") == ["circle", "file"]
    (root / "folder" / "inside").mkdir()
    (root / "folder" / "nowhere").symlink_to("absent")
    assert files.folders("folder") == ["inside"]
    assert files.names("folder") == ["circle", "file", "inside", "nowhere"]
    assert {path: stat.bytes for path, stat in files.stats("folder").items()} == {"circle": 6, "file": 4}
    assert files.stat("folder/circle") == files.stats("folder")["circle"]
    with pytest.raises(OSError, match="symbolic links"):
        files.read("folder/circle")
