"""Expanding the patterns of a `source` section into files: braces first, then wildcards."""

import glob
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from braceexpand import alphabet, braceexpand

from pipeline.errors import ConfigError
from pipeline.files import LocalFiles, is_url
from pipeline.files.secret_urls import refuse_credentials
from pipeline.redaction import redacted_place
from pipeline.source.shards.links import refuse_loops
from pipeline.source.shards.objects import NamedFile, asked_for, matching_objects, named_objects
from pipeline.source.shards.opening import absolute
from pipeline.storage import Storage

_WILDCARD = re.compile(r"[*?\[{]")
_RANGE = re.compile(r"(-?\d+|[A-Za-z](?=\.\.[A-Za-z]))\.\.(-?\d+|(?<=[A-Za-z]\.\.)[A-Za-z])(?:\.\.-?(\d+))?")
_DIGITS = 18
_MOST_NAMES = 10_000_000
"""That one pattern stands for."""


def expand(pattern: str, storage: Storage | None = None) -> list[NamedFile]:
    """Files that one pattern stands for.

    Args:
        storage: how URLs are reached.

    Raises ConfigError for a pattern that matches nothing or is malformed, and OSError.
    """
    refuse_credentials(pattern, "source.shards")
    named = pattern.removeprefix("file://")  # a path of no letters is that of the working folder
    found = (_expand_url(pattern, storage) if is_url(pattern) else _expand_local(_local(pattern))) if named else []
    if not found:
        raise ConfigError(
            f"source.shards: {redacted_place(pattern)!r} matches no file; correct the pattern or the folder (of images "
            "in folders, name the folder above them, without wildcards)"
        )
    return found


def literal_folder(pattern: str) -> str:
    """The folder or URL named before the first wildcard of a pattern."""
    if is_url(pattern):
        wildcard = _WILDCARD.search(pattern)
        literal = pattern[: wildcard.start()] if wildcard else pattern.rstrip("/")
        folder = literal.rpartition("/")[0]
        return literal if folder.endswith(":/") else folder  # a whole bucket
    local = _local(pattern)
    if Path(local).is_dir():
        return str((Path(local) if Path(local).name not in ("", "..") else absolute(local)).parent)
    wildcard = None if Path(local).is_file() else _WILDCARD.search(local)
    return str(Path(local[: wildcard.start()] + "x" if wildcard else local).parent)


def expand_braces(pattern: str, field: str) -> list[str]:
    """`train-{0000..0003}.tar` as four names.

    Raises ConfigError naming the field of a pattern that is unbalanced, or stands for too many names.
    """
    shown = redacted_place(pattern)
    try:
        names = list(braceexpand(pattern)) if _count_names(pattern) <= _MOST_NAMES else []
    except ValueError:
        raise ConfigError(f"{field}: {shown!r}: a brace is opened or closed alone; correct the pattern") from None
    except RecursionError:
        raise ConfigError(f"{field}: {shown!r}: braces lie too deep in one another; correct the pattern") from None
    if not names:
        raise ConfigError(f"{field}: {shown!r}: stands for more than {_MOST_NAMES:,} names; correct the pattern")
    return names


class _Braces(NamedTuple):
    """What is between two braces, as far as it has been read."""

    start: int
    others: int = 0
    """Names of the alternatives that a comma has ended."""
    names: int = 1
    """Of the present one."""


def _count_names(pattern: str) -> int:
    """How many names a pattern stands for, or more than there may be; of an unbalanced one any number.

    `braceexpand` makes all alternatives before it gives the first name.
    """
    open_braces = [_Braces(0)]
    at = 0
    while at < len(pattern):
        top = open_braces[-1]
        if pattern[at] == "\\":
            at += 1
        elif pattern[at] == "{":
            open_braces.append(_Braces(at + 1))
        elif pattern[at] == "," and len(open_braces) > 1:
            open_braces[-1] = _Braces(top.start, top.others + top.names)
        elif pattern[at] == "}" and len(open_braces) > 1:
            open_braces.pop()
            ends = _RANGE.fullmatch(pattern, top.start, at)
            inside = _length(*ends.groups()) if ends else top.others + top.names
            outer = open_braces[-1]
            open_braces[-1] = outer._replace(names=min(outer.names * inside, _MOST_NAMES + 1))
        at += 1
    return open_braces[0].names


def _length(first: str, last: str, step: str | None) -> int:
    """Of a range such as `0..9`, `0..9..3` or `a..z`."""
    if max(len(first), len(last), len(step or "")) > _DIGITS:
        return _MOST_NAMES + 1
    number: Callable[[str], int] = alphabet.index if first.isalpha() else int
    return abs(number(last) - number(first)) // max(1, int(step or 1)) + 1


def _local(pattern: str) -> str:
    return str(Path(pattern.removeprefix("file://")).expanduser())


def _expand_local(pattern: str) -> list[NamedFile]:
    # A name with braces or brackets in it is still a name.
    names = [pattern] if Path(pattern).exists() else expand_braces(pattern, "source.shards")
    return [_found(file) for name in names for file in _expand_glob(name)]


def _expand_glob(name: str) -> list[str]:
    if Path(name).exists() or not glob.has_magic(name):
        return [name]
    before, deep, _ = name.partition("**")
    if deep:  # would go round a loop of links forty times, and find all anew each time
        for folder in glob.glob(before) if before else ["."]:
            if Path(folder).is_dir():
                refuse_loops(folder)
    return [file for file in glob.glob(name, recursive=True) if not Path(file).is_dir()]


def _found(file: str) -> NamedFile:
    path = Path(file)
    if path.is_dir():
        return NamedFile(file, None, is_folder=True)
    return NamedFile(file, LocalFiles(path.parent).stat(path.name) if path.is_file() else None)


def _expand_url(pattern: str, storage: Storage | None) -> list[NamedFile]:
    names = expand_braces(pattern, "source.shards")
    if pattern.startswith("http"):
        return _on_web_server(names, storage)
    folders = [NamedFile(name.rstrip("/"), None, is_folder=True) for name in names if name.endswith("/")]
    files = [name for name in names if not name.endswith("/")]
    outright = [name for name in files if not glob.has_magic(name)]
    matching = [found for name in files if glob.has_magic(name) for found in matching_objects(name, storage)]
    return [*folders, *named_objects(outright, storage), *matching]


def _on_web_server(urls: list[str], storage: Storage | None) -> list[NamedFile]:
    """Web servers have no listing: every file is asked for, and so must be named."""
    for url in urls:
        if glob.has_magic(url):
            raise ConfigError(
                f"source.shards: {url}: a web server cannot be listed; name the files, with braces if they are many"
            )
    return asked_for(urls, storage)
