"""Files of a folder as samples: the key is the path without its last extension, and all files of one key belong
together."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class FileSample(NamedTuple):
    """The files of one key."""

    key: str
    members: list[tuple[str, str]]
    """(extension in lower case, path relative to the folder), sorted. What is not UTF-8 in a path is surrogates, as
    Python has it."""


def split_file_name(name: str) -> tuple[str, str] | None:
    """(stem, extension in lower case) of a file's own name; None for what belongs to no sample: dotfiles, and names
    without an extension."""
    stem, _, extension = name.rpartition(".")
    if not stem or not extension or name.startswith("."):
        return None
    return stem, extension.lower()


def joined(folder: str, name: str) -> str:
    """A path below the top folder, whose own name is empty."""
    return f"{folder}/{name}" if folder else name


def key_of(path: str) -> str:
    """A path as text that can be written down: bytes that are not UTF-8 become `\\xff`."""
    if path.isascii():
        return path
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def samples_of(files: Mapping[str, Iterable[str]]) -> list[FileSample]:
    """Samples, sorted by key, of files given as names by folder. Files that belong to none are left out.

    Written for a million files in a few seconds.
    """
    members: dict[str, list[tuple[str, str]]] = {}
    for folder, names in files.items():
        before = joined(folder, "")
        for name in names:
            split = split_file_name(name)
            if split is not None:
                members.setdefault(key_of(before + split[0]), []).append((split[1], before + name))
    return [FileSample(key, sorted(members[key])) for key in sorted(members)]
