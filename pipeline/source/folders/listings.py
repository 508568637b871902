"""Which files of a folder make which source shard: decided once, at first sight, by whichever process comes first.

A log of numbered files for each folder, `listings/<folder>.<number>.json`. Each is created exclusively, by a process
that has read all before it, and speaks of no file that these speak of. So processes that see different files, because
somebody is adding some, agree on what was decided all the same, and no file is ever in two source shards.
"""

import hashlib
import json
from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

from pipeline.files import Files
from pipeline.files.damage import damaged, naming_no_file
from pipeline.files.each import read_each
from pipeline.source.shards.naming import part_name

FOLDER = "listings"


class Mode(Enum):
    """What becomes of files that are in no listing yet."""

    LOOK = "look"
    """Say which source shards they would make."""
    KEEP = "keep"
    """Make them source shards, for good."""
    LISTED = "listed"
    """Leave them alone, where anything of their folder is listed."""


class ListedPart(NamedTuple):
    """The files of one source shard."""

    path: str
    """Of the source shard, `<folder>/#<first key>`."""
    bytes: int
    """When they were listed."""
    files: dict[str, list[str]]
    """Names by folder, relative to the top one."""


class Listings:
    """The log of each folder of a collection.

    Args:
        files: of a store or a tokenizer folder; None where there is none yet.
    """

    def __init__(self, files: Files | None = None, mode: Mode = Mode.LOOK) -> None:
        self._files = files
        self.mode = mode
        self.listed: dict[str, set[str]] = {}
        """Paths of the source shards that are listed, by folder, as they were last read."""
        self.remarks: list[str] = []
        """What a user should hear of folders, but no reason to stop."""

    def read(self, folder: str) -> list[list[ListedPart]]:
        """All that was decided of a folder, in order. Raises CorruptStore, OSError."""
        if self._files is None:
            return []
        names = self._names(folder)
        log = [self._parse(name, data) for name, data in zip(names, read_each(self._read, names), strict=True)]
        self.listed[folder] = {part.path for parts in log for part in parts}
        return log

    def _names(self, folder: str) -> list[str]:
        """The files of a log, in order. What a list lacks is asked for: that of some object stores lags behind."""
        assert self._files is not None
        stem = f"{part_name(folder)}."
        listed = {name for name in self._files.names(FOLDER) if name.startswith(stem)}
        found: list[str] = []
        while (name := _name(folder, len(found))) in listed or self._is_there(name):
            found.append(name)
        if listed - {*found}:
            raise damaged(self._files, FOLDER, f"{name} missing; restore it from a copy")
        return found

    def _is_there(self, name: str) -> bool:
        assert self._files is not None
        try:
            self._files.stat(f"{FOLDER}/{name}")
        except FileNotFoundError:
            return False
        return True

    def add(self, folder: str, number: int, parts: Sequence[ListedPart]) -> bool:
        """Decide on some more files of a folder. False where another process has decided something else."""
        assert self._files is not None
        body = {"folder": folder, "parts": [part._asdict() for part in parts]}
        data = json.dumps({"listing": body, "sha256": _digest(body)}, separators=(",", ":")) + "\n"
        return self._files.put_if_absent(f"{FOLDER}/{_name(folder, number)}", data.encode())

    def _read(self, name: str) -> bytes:
        assert self._files is not None
        with naming_no_file(self._files, f"{FOLDER}/{name}"):
            return self._files.read(f"{FOLDER}/{name}")

    def _parse(self, name: str, data: bytes) -> list[ListedPart]:
        assert self._files is not None
        try:
            tree = json.loads(data)
            body: dict[str, Any] = tree["listing"]
            parts = [ListedPart(**part) for part in body["parts"]]
            if tree["sha256"] == _digest(body) and all(_stays_inside(part) for part in parts):
                return parts
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        raise damaged(self._files, f"{FOLDER}/{name}", "not a listing, or a damaged one; restore it from a copy")


def _stays_inside(part: ListedPart) -> bool:
    """Whether a source shard consists of files below its folder: they are read by these names."""
    steps = [step for folder in part.files if folder for step in folder.split("/")]
    names = [name for names in part.files.values() for name in names]
    is_sound = isinstance(part.path, str) and type(part.bytes) is int and part.bytes >= 0
    return is_sound and not {"", ".", ".."} & {*steps, *names} and not any("/" in name for name in names)


def _name(folder: str, number: int) -> str:
    return f"{part_name(folder)}.{number:05d}.json"


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
