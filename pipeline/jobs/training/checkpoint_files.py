"""What a checkpoint is made of, so that damage is known before half of it is loaded."""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from pipeline.files.regular import open_regular, read_regular
from pipeline.records import Record

FILE = "contents.json"


class _CheckpointFile(Record):
    bytes: int
    sha256: str


class _Contents(Record):
    files: dict[str, _CheckpointFile]


def write_contents(folder: Path) -> None:
    """Record the files of a checkpoint."""
    files = {path.name: _describe(path) for path in sorted(folder.iterdir()) if path.is_file()}
    (folder / FILE).write_bytes(_Contents(files=files).to_json())


def is_recorded(folder: Path) -> bool:
    """Whether `damage` has something to go by."""
    return (folder / FILE).exists()


def damage(folder: Path) -> str | None:
    """Why the files in a checkpoint are not those that were written; None when they are.

    Checkpoints of versions that recorded nothing are taken as they are: see `is_recorded`.
    """
    odd = [path.name for path in sorted(folder.iterdir()) if not (path.is_file() or path.is_dir())]
    if odd:  # who opens a FIFO waits for ever
        return f"{odd[0]} is no file"
    try:
        contents = _Contents.model_validate_json(read_regular(folder / FILE))
    except FileNotFoundError:
        return None
    except (ValidationError, OSError):
        return f"{FILE} cannot be read"
    for name, then in contents.files.items():
        if "/" in name:
            return f"{FILE} names {name!r}, which is none of its files"
        try:
            size = (folder / name).stat().st_size
            if size != then.bytes:
                return f"{name} has {size:,} bytes, {then.bytes:,} were written"
            if _describe(folder / name) != then:
                return f"{name} holds other bytes than were written"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return None


def _describe(path: Path) -> _CheckpointFile:
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        return _CheckpointFile(bytes=file.tell(), sha256=digest)
