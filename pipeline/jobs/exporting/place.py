"""Where an export is written: `OUT.partial`, which becomes OUT when all of it is there.

OUT.partial/request.json        what the export was begun for: only the same goes on
           /lock                held by whoever is at work
           /done/000012.json    a piece that is written, and what its format notes of it
           /scratch/            what formats need until the end
           /unfinished/         files that have not been written to their end
           /files/              becomes OUT
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError, ExportError
from pipeline.files import LocalFiles, is_url, make_folder, sync_folder
from pipeline.files.locks import try_lock, unlock
from pipeline.jobs.exporting.disk import full_disk_explained, whole_file
from pipeline.records import JSON, differences

_REQUEST, _LOCK, _DONE = "request.json", "lock", "done"
MARK = "export.json"
"""The last file of an export."""


@dataclass(frozen=True)
class Place:
    """The folder `OUT.partial`."""

    out: Path
    partial: Path

    @property
    def files(self) -> Path:
        """What becomes OUT."""
        return self.partial / "files"

    @property
    def scratch(self) -> Path:
        """Files that formats need until the end."""
        return self.partial / "scratch"

    @property
    def unfinished(self) -> Path:
        """For files until they are whole; emptied at each start."""
        return self.partial / "unfinished"

    def done(self) -> dict[int, JSON]:
        """Pieces that are written, and what is noted of each."""
        files = LocalFiles(self.partial)
        return {int(name.split(".")[0]): json.loads(files.read(f"{_DONE}/{name}")) for name in files.list(_DONE)}

    def note(self, piece: int, result: JSON) -> None:
        """A piece is written, and on the disk."""
        LocalFiles(self.partial).put(f"{_DONE}/{piece:06d}.json", json.dumps(result).encode())

    def publish(self, mark: JSON) -> None:
        """All is written: give it the name OUT."""
        with whole_file(self.files / MARK, self.unfinished) as file:
            file.write((json.dumps(mark, indent=1, ensure_ascii=False) + "\n").encode())
        for folder, _, _ in os.walk(self.files, topdown=False):
            sync_folder(Path(folder))
        _refuse_occupied(self)
        self.files.rename(self.out)  # of an empty folder it takes the place
        sync_folder(self.out.parent)
        shutil.rmtree(self.partial, ignore_errors=True)


@contextlib.contextmanager
def place_for(out: str | Path, store: str, request: JSON) -> Iterator[Place]:
    """The place of an export, begun or gone on with; no other process has it meanwhile.

    Args:
        store: folder or URL of the store.
        request: all that decides the bytes. An export that was begun for something else is refused.

    Raises ConfigError for an OUT that cannot be, ExportError while another process works on the same one.
    """
    place = _place(out, store)
    _refuse_occupied(place)
    _refuse_foreign(place.partial)
    with full_disk_explained(place.partial):
        make_folder(place.partial)
        descriptor = try_lock(place.partial / _LOCK)
        if descriptor is None:
            raise ExportError(f"{place.partial}: another process works on this export")
        try:
            _refuse_occupied(place)  # by one that has ended meanwhile
            _begin(place, request)
            yield place
        finally:
            unlock(descriptor)


def _place(out: str | Path, store: str) -> Place:
    if is_url(str(out)):
        raise ConfigError(f"{out}: exports are written to a local folder; copy it from there")
    real = Path(os.path.realpath(Path(out).expanduser()))
    if not is_url(store) and real.is_relative_to(os.path.realpath(store.removeprefix("file://"))):
        raise ConfigError(f"{out}: lies in the store; name a folder elsewhere")
    if os.path.ismount(real):
        raise ConfigError(f"{out}: a file system is mounted there; name a new folder in it")
    return Place(real, real.with_name(f"{real.name}.partial"))


def _refuse_occupied(place: Place) -> None:
    out = place.out
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return
    if (out / MARK).exists():
        if not place.files.exists():  # all that an export leaves that was killed behind its last step
            shutil.rmtree(place.partial, ignore_errors=True)
        raise ConfigError(f"{out}: is there already, a whole export ({MARK}); delete it, or name a new folder")
    raise ConfigError(f"{out}: is there already; name a new folder, or an empty one")


def _refuse_foreign(partial: Path) -> None:
    """Of a folder that no export has made nothing may be deleted at the end."""
    if not os.path.lexists(partial):
        return
    if (
        partial.is_symlink()
        or not partial.is_dir()
        or (not (partial / _REQUEST).exists() and {path.name for path in partial.iterdir()} - {_LOCK})
    ):
        raise ConfigError(
            f"{partial}: is where this export would be written, and is none; move it, or name another OUT"
        )


def _begin(place: Place, request: JSON) -> None:
    files = LocalFiles(place.partial)
    if not files.put_if_absent(_REQUEST, json.dumps(request, indent=1).encode()):
        found = differences(request, json.loads(files.read(_REQUEST)))
        if found:
            raise ConfigError(
                f"{place.partial}: an export was begun for something else: {'; '.join(found)}; give the same options "
                "to go on with it, or delete that folder to begin anew"
            )
    shutil.rmtree(place.unfinished, ignore_errors=True)
    for folder in (place.files, place.scratch, place.unfinished):
        folder.mkdir(exist_ok=True)
