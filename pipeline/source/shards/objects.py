"""Which objects there are of those that URLs name, in few requests and without a look at what is not named."""

import contextlib
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from pipeline.errors import ConfigError
from pipeline.files import Files, Stat, files_at
from pipeline.redaction import redacted_place
from pipeline.storage import Storage

_REQUESTS = 32
# Up to so many are asked for one by one: a list has a thousand in a request, but also what nobody named.
_ASKED_FOR = 64


class NamedFile(NamedTuple):
    """A file or folder that a pattern stands for."""

    file: str
    """Its path or URL."""
    stat: Stat | None
    """None for a folder, and for a file that a pattern names outright, but that is not there."""
    is_folder: bool = False
    """Whether it is a folder, which stands for all files in it."""


def named_objects(urls: Sequence[str], storage: Storage | None = None) -> list[NamedFile]:
    """Objects that are named outright, in that order; `stat` is None for those that are not there."""
    if len(urls) <= _ASKED_FOR:
        found = asked_for(urls, storage)
        if missing := [named.file for named in found if named.stat is None]:
            with contextlib.suppress(PermissionError):  # to list is another right
                _listed(missing[:1], storage)  # a bucket that is not there says so in lists alone
        return found
    listed = _listed(urls, storage)
    found = [NamedFile(url, listed.get(url)) for url in urls]
    confirmed = _confirmed([named.file for named in found if named.stat is None], storage)
    return [NamedFile(named.file, named.stat or confirmed.get(named.file)) for named in found]


def asked_for(urls: Sequence[str], storage: Storage | None = None) -> list[NamedFile]:
    """The same, each by a request of its own."""

    def ask(url: str) -> NamedFile:
        root, path = _split_root(url)
        try:
            return NamedFile(url, files_at(root, storage).stat(path) if path else None)
        except FileNotFoundError:
            return NamedFile(url, None)

    with ThreadPoolExecutor(_REQUESTS) as requests:
        return list(requests.map(ask, urls))


def _listed(urls: Iterable[str], storage: Storage | None) -> dict[str, Stat]:
    """What lists say of objects: of each folder the names that begin as all that are wanted there."""
    names: dict[str, list[str]] = {}
    for url in urls:
        folder, _, name = url.rpartition("/")
        names.setdefault(folder, []).append(name)
    found = {}
    for folder, wanted in names.items():
        root, path = _split_root(f"{folder}/")
        stats = files_at(root, storage).level(path.rstrip("/"), os.path.commonprefix(wanted))  # noqa: RUF071 - of names
        found.update({f"{folder}/{name}": stat for name, stat in stats.items()})
    return found


def _confirmed(urls: Sequence[str], storage: Storage | None) -> dict[str, Stat]:
    """Those that are there though a list lacks them, as that of some servers does for a while.

    Some at a time, and no more once one is missing indeed: it is an error then, whatever becomes of the others.
    """
    found: dict[str, Stat] = {}
    for start in range(0, len(urls), _ASKED_FOR):
        answers = asked_for(urls[start : start + _ASKED_FOR], storage)
        found.update({named.file: named.stat for named in answers if named.stat is not None})
        if any(named.stat is None for named in answers):
            break
    return found


def matching_objects(url: str, storage: Storage | None = None) -> list[NamedFile]:
    """Objects that a URL with wildcards matches, sorted. Of folders that it does not match nothing is listed."""
    root, path = _split_root(url)
    matches = _compile(url).match
    found = {f"{root}/{name}": stat for name, stat in _below(files_at(root, storage), "", path.split("/"))}
    return [NamedFile(file, stat) for file, stat in sorted(found.items()) if matches(file)]


def _below(files: Files, folder: str, steps: Sequence[str]) -> Iterator[tuple[str, Stat]]:
    """Objects below a folder that steps with wildcards may lead to, by path."""
    step, rest = steps[0], steps[1:]
    if "**" in step:  # any number of folders
        yield from ((_joined(folder, name), stat) for name, stat in files.stats(folder).items())
    elif not rest:
        yield from ((_joined(folder, name), stat) for name, stat in files.level(folder, _beginning(step)).items())
    elif not glob.has_magic(step):
        yield from _below(files, _joined(folder, step), rest)
    else:
        matches = _compile(step).match
        inner = [_joined(folder, name) for name in files.folders(folder) if matches(name)]
        with ThreadPoolExecutor(_REQUESTS) as requests:
            for found in requests.map(lambda name: [*_below(files, name, rest)], inner):
                yield from found


def _beginning(step: str) -> str:
    """What comes before the first wildcard."""
    return re.split(r"[*?\[]", step, maxsplit=1)[0]


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _compile(pattern: str) -> re.Pattern[str]:
    from fsspec.utils import glob_translate  # tens of milliseconds that local jobs need not wait

    try:
        return re.compile(glob_translate(pattern))
    except ValueError as error:
        raise ConfigError(f"source.shards: {redacted_place(pattern)!r}: {error}; correct the pattern") from None


def _split_root(url: str) -> tuple[str, str]:
    """`s3://bucket/a/b` as (`s3://bucket`, `a/b`): one client serves all folders of a bucket."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", path
