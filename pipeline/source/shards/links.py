"""Folders below a folder, links followed; one that leads back into a folder above itself has no end, and is refused."""

import contextlib
import os
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.printing import printable

Device = tuple[int, int]
"""What tells a folder from all others, whatever it is called."""


def device(folder: str) -> Device:
    """Raises OSError."""
    found = Path(folder).stat()
    return found.st_dev, found.st_ino


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def entered(entry: os.DirEntry[str], above: frozenset[Device]) -> frozenset[Device]:
    """`above` and the folder of `entry`. Raises ConfigError where it is one of these, to which a link may lead."""
    found = device(entry.path)
    if found in above:
        raise ConfigError(
            f"source.shards: {printable(entry.path)}: a link leads back to a folder that it lies in, which has no end; "
            "remove it"
        )
    return above | {found}


def refuse_loops(top: str) -> None:
    """Raise ConfigError for a link below a folder that leads back. What cannot be looked into is passed over."""
    ahead = [(top, frozenset([device(top)]))]
    while ahead:
        folder, above = ahead.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            ahead += [
                (entry.path, entered(entry, above))
                for entry in entries
                if not entry.name.startswith(".") and leads_to_folder(entry)
            ]
