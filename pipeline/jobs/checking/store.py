"""The place of the store: whether all can be done there that a job does, tried on files that go again."""

from collections.abc import Callable
from typing import NamedTuple

from pipeline.config import Config
from pipeline.errors import StoreError
from pipeline.files import Files, LocalFiles, is_url
from pipeline.files.places import nearest
from pipeline.jobs.checking.answers import REACH, blamed
from pipeline.jobs.checking.lines import Checks
from pipeline.jobs.checking.probes import probing
from pipeline.jobs.plan import refuse_unwritable, store_of
from pipeline.store.schema.birth import overwriting

ABOUT = "store"
_FIRST, _SECOND = b"written by vqtok check", b"and written once more"


class _Try(NamedTuple):
    """One thing that a job does with files."""

    on_disk: str
    """What it is called where the store is a folder; `` where it is not tried."""
    of_objects: str
    """The same of an object store."""
    do: Callable[[Files, str], None]
    """Raises OSError or StoreError. Called with the store and the path of a probe in it."""


def check_store(checks: Checks, config: Config) -> Files | None:
    """The place of the store, if a job can write there."""
    store = checks.attempt(ABOUT, "place", lambda: store_of(config), lambda files: files.root)
    if store is None:
        return None
    before = len(checks.lines)
    if not (_check_objects(checks, store) if is_url(store.root) else _check_folder(checks, store)):
        return None
    with probing(checks, store) as probe:
        _try_all(checks, store, probe)
    return None if any(line.status == "failed" for line in checks.lines[before:]) else store


def _check_objects(checks: Checks, store: Files) -> bool:
    """Whether the server lets us in. What LIST may not do, others may."""
    found = checks.attempt(
        ABOUT,
        REACH,
        lambda: store.names(""),
        lambda names: f"{len(names):,} objects at the top",
        blame=blamed,
    )
    return found is not None or checks.lines[-1].tried == REACH[-1]


def _check_folder(checks: Checks, store: Files) -> bool:
    assert isinstance(store, LocalFiles)
    folder = nearest(store.path("."))

    def look() -> str:
        refuse_unwritable(store)
        return "is there" if folder == store.path(".") else f"can be made in {folder}"

    return checks.attempt(ABOUT, "folder", look, str) is not None


def _try_all(checks: Checks, store: Files, probe: str) -> None:
    distant = is_url(store.root)
    for one in _TRIES:
        name = one.of_objects if distant else one.on_disk
        if not name:
            continue

        def do(one: _Try = one) -> str:
            one.do(store, probe)
            return ""

        if checks.attempt(ABOUT, name, do) is None and one.do is _put:
            return  # nothing to read, and nothing to delete


def _put(files: Files, probe: str) -> None:
    files.put(f"{probe}/file", _FIRST)


def _read(files: Files, probe: str) -> None:
    if files.read(f"{probe}/file", 3, 5) != _FIRST[3:8]:
        raise StoreError(f"{files.root}: a range of a file has other bytes than were written")


def _create(files: Files, probe: str) -> None:
    created = files.put_if_absent(f"{probe}/created", _FIRST)
    again = files.put_if_absent(f"{probe}/created", _SECOND)
    if (created, again, files.read(f"{probe}/created")) != (True, False, _FIRST):
        raise overwriting(files)


def _replace(files: Files, probe: str) -> None:
    files.put(f"{probe}/file", _SECOND)
    if files.read(f"{probe}/file") != _SECOND:
        raise StoreError(f"{files.root}: a file that was replaced reads as before; turn off caches on the way")


def _rename(files: Files, probe: str) -> None:
    stats = files.put_folder(f"{probe}/folder", {"file": _FIRST}, f"{probe}/staging/folder")
    if stats["file"].bytes != len(_FIRST):
        raise StoreError(f"{files.root}: a file of a renamed folder has another size than was written")


def _delete(files: Files, probe: str) -> None:
    files.delete(f"{probe}/file")
    files.delete_folder(probe)


_TRIES = (
    _Try("write and fsync", "PUT", _put),
    _Try("read", "GET by range", _read),
    _Try("hard links", "If-None-Match", _create),
    _Try("replace", "PUT again", _replace),
    _Try("rename", "", _rename),
    _Try("delete", "DELETE", _delete),
)
