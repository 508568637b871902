"""Which files of a folder make which source shard: decided once, at first sight, by whichever process comes first.

A log of numbered files for each folder decides, `listings/<folder>.<number>.json`. Each is created exclusively, by a
process that has read all before it, and speaks of no file that these speak of. So processes that see different files,
because somebody is adding some, agree on what was decided all the same, and no file is ever in two source shards. Files
for each source shard alone could not see to that.

For those who look for the files of one source shard there is `listings/<part>.json`, which says again what the log says
of it: whoever writes it writes the same bytes. Nothing here reads it but `vqtok verify`.
"""

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from enum import Enum
from typing import Any, NamedTuple

from pipeline.errors import VqtokError
from pipeline.files import Files
from pipeline.files.base import TooLarge
from pipeline.files.damage import damaged, naming_no_file
from pipeline.files.each import read_each, write_each
from pipeline.source.shards.naming import part_name

FOLDER = "listings"
# The name of no part has a dot.
_OF_A_LOG = re.compile(r"[^.]+\.[0-9]{5,}\.json")


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


class Decision(NamedTuple):
    """What the log says of one source shard."""

    folder: str
    number: int
    """Of the file of the log."""
    part: ListedPart

    def to_json(self) -> bytes:
        """The content of `listings/<part>.json`."""
        body = {"folder": self.folder, "number": self.number, "part": part_name(self.part.path)}
        return _sealed(body | self.part._asdict())


class Listings:
    """What was decided of each folder of a collection.

    Args:
        files: of a store or a tokenizer folder; None where there is none yet.
    """

    def __init__(self, files: Files | None = None, mode: Mode = Mode.LOOK) -> None:
        self._files = files
        self._names: set[str] | None = None
        self._decided: dict[str, Decision] = {}
        self.mode = mode
        self.listed: dict[str, set[str]] = {}
        """Paths of the source shards that are listed, by folder, as they were last read."""
        self.remarks: list[str] = []
        """What a user should hear of folders, but no reason to stop."""

    # --- the log ---------------------------------------------------------------------------------------------

    def read(self, folder: str) -> list[list[ListedPart]]:
        """All that was decided of a folder, in order. Raises CorruptStore, OSError."""
        if self._files is None:
            return []
        names = self._log_of(folder)
        log = [self._parse(name, data) for name, data in zip(names, read_each(self._read, names), strict=True)]
        self.listed[folder] = {part.path for parts in log for part in parts}
        for number, parts in enumerate(log):
            self._note(folder, number, parts)
        return log

    def add(self, folder: str, number: int, parts: Sequence[ListedPart]) -> bool:
        """Decide on some more files of a folder. False where another process has decided something else."""
        assert self._files is not None
        data = _sealed({"folder": folder, "parts": [part._asdict() for part in parts]})
        is_ours = self._files.put_if_absent(f"{FOLDER}/{_name(folder, number)}", data)
        if is_ours:
            self._note(folder, number, parts)
        return is_ours

    def _note(self, folder: str, number: int, parts: Sequence[ListedPart]) -> None:
        self._decided.update({part_name(part.path): Decision(folder, number, part) for part in parts})

    def _log_of(self, folder: str) -> list[str]:
        """The files of a log, in order. What a list lacks is asked for: that of some object stores lags behind."""
        stem = f"{part_name(folder)}."
        listed = {name for name in self._there() if name.startswith(stem) and _OF_A_LOG.fullmatch(name)}
        found: list[str] = []
        while (name := _name(folder, len(found))) in listed or self._is_there(name):
            found.append(name)
        if listed - {*found}:
            assert self._files is not None
            raise damaged(self._files, FOLDER, f"{name} missing; restore it from a copy")
        return found

    def _there(self, anew: bool = False) -> set[str]:
        """Names of all files here, from one list for all folders."""
        assert self._files is not None
        if self._names is None or anew:
            self._names = {*self._files.names(FOLDER)}
        return self._names

    def _is_there(self, name: str) -> bool:
        assert self._files is not None
        try:
            self._files.stat(f"{FOLDER}/{name}")
        except FileNotFoundError:
            return False
        return True

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
            if tree["sha256"] == _digest(_text(body)) and all(_is_sound(part) for part in parts):
                return parts
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        raise damaged(self._files, f"{FOLDER}/{name}", "not a listing, or a damaged one; restore it from a copy")

    # --- a file for each source shard ------------------------------------------------------------------------

    def write_parts(self) -> None:
        """Write the file of each source shard that has none: of those that were added here, of those whose process was
        killed before it did, and of those that a version without such files has listed.

        Raises OSError, StoreError.
        """
        if self._files is None or not self._without_file():
            return
        self._there(anew=True)  # others have written some meanwhile
        write_each(self._write_part, self._without_file())

    def _without_file(self) -> list[str]:
        return [part for part in self._decided if f"{part}.json" not in self._there()]

    def _write_part(self, part: str) -> None:
        assert self._files is not None
        self._files.put_if_absent(f"{FOLDER}/{part}.json", self._decided[part].to_json())

    def problems(self, committed: Collection[str]) -> list[str]:
        """What is wrong with the files of single source shards, a line for each.

        A missing one is a loss where its part is committed, unless all are missing: then a version that wrote none has
        made the store, and the next job writes them.
        """
        parts = list(self._decided)
        looks = dict(zip(parts, read_each(self._look_at_part, parts), strict=True))
        problems = [look for look in looks.values() if look]
        missing = [part for part, look in looks.items() if look is None]
        lost = [part for part in missing if part in committed] if len(missing) < len(parts) else []
        return problems + [self._problem(part, "missing; run vqtok tokenize again") for part in lost]

    def _look_at_part(self, part: str) -> str | None:
        """What is wrong with the file of a source shard; nothing if it is right, None if there is none."""
        assert self._files is not None
        path, decision = f"{FOLDER}/{part}.json", self._decided[part]
        expected = decision.to_json()
        try:
            with naming_no_file(self._files, path, f"no file; {_REMEDY}"):
                is_right = self._files.fetch(path, len(expected))[0] == expected
        except FileNotFoundError:
            return self._problem(part, f"leads to no file; {_REMEDY}") if f"{part}.json" in self._there() else None
        except TooLarge:
            is_right = False
        except (OSError, VqtokError) as error:
            return str(error)
        return "" if is_right else self._problem(part, f"not as {_name(*decision[:2])} beside it says; {_REMEDY}")

    def _problem(self, part: str, what: str) -> str:
        assert self._files is not None
        return str(damaged(self._files, f"{FOLDER}/{part}.json", what))


_REMEDY = "delete it and run vqtok tokenize again"


def _is_sound(part: ListedPart) -> bool:
    """Whether a source shard consists of files below its folder: they are read by these names.

    Raises TypeError, ValueError for a path by which no part can be called.
    """
    part_name(part.path)
    steps = [step for folder in part.files if folder for step in folder.split("/")]
    names = [name for names in part.files.values() for name in names]
    is_size = type(part.bytes) is int and part.bytes >= 0
    return is_size and not {"", ".", ".."} & {*steps, *names} and not any("/" in name for name in names)


def _name(folder: str, number: int) -> str:
    return f"{part_name(folder)}.{number:05d}.json"


def _text(body: Any) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sealed(body: Any) -> bytes:
    """A listing with its digest: one line of JSON with sorted keys."""
    text = _text(body)
    return f'{{"listing":{text},"sha256":"{_digest(text)}"}}\n'.encode()
