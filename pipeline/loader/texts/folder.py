"""Ids of texts on the disk: written once by whoever comes first, and mapped into memory by all.

    FOLDER/<name>/about.json         what they are the ids of, and how many
    FOLDER/<name>/offsets.uint64     [texts + 1], little-endian: text i has the ids offsets[i] to offsets[i + 1]
    FOLDER/<name>/ids.uint32         of all texts, one behind the other, little-endian
    FOLDER/<name>.lock               held by whoever writes them
    FOLDER/<name>.unfinished/        what is being written, or was when its process was killed

`<name>` appears by a rename, whole and on the disk: what has this name is complete.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import StoreError
from pipeline.files import make_folder, sync_folder, sync_tree
from pipeline.files.locks import lock, unlock
from pipeline.files.places import why_unwritable
from pipeline.records import JSON, differences

_ABOUT, _OFFSETS, _IDS = "about.json", "offsets.uint64", "ids.uint32"

Ids = np.ndarray[Any, np.dtype[np.uint32]]
"""Of one text, [n]."""


@dataclass(frozen=True)
class StoredIds:
    """Ids that are there, mapped into memory."""

    offsets: np.ndarray[Any, np.dtype[np.uint64]]
    """[texts + 1]."""
    ids: Ids
    """Of all texts."""
    longest: int
    """The most ids that a text has."""
    vocab_size: int
    """Every id is below it."""


def stored_ids(folder: Path, name: str, of: JSON, texts: Iterable[Ids] | None) -> StoredIds:
    """The ids of some texts, written first where nobody has done so; another process that does is waited for.

    Args:
        of: what they are the ids of, which decides `name`.
        texts: of each text in order, int [n] below 2**32; they are taken only where they are to be written. None to
            read what is there.

    Raises StoreError where they are not there and there is nothing to write, where the folder cannot be written into,
    and for files that are damaged; OSError where the disk is full.
    """
    place = folder / name
    if not place.exists():
        if texts is None:
            raise StoreError(f"{place}: there are no ids yet, and no encode= to make them with")
        with _alone(folder, name):
            if not place.exists():
                _write(place, folder / f"{name}.unfinished", of, texts)
    return _read(place, of)


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """The only one to write these ids, of all processes."""
    reason = why_unwritable(folder)
    if reason is not None:
        raise StoreError(f"{folder}: the ids of texts cannot be kept there: {reason}; name another folder with folder=")
    make_folder(folder)
    descriptor = lock(folder / f"{name}.lock")
    try:
        yield
    finally:
        unlock(descriptor)


def _write(place: Path, unfinished: Path, of: JSON, texts: Iterable[Ids]) -> None:
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    unfinished.mkdir()
    try:
        counts = _write_arrays(unfinished, texts)
        (unfinished / _ABOUT).write_text(json.dumps({"of": of, **counts}, indent=1))
        sync_tree(unfinished)
        unfinished.rename(place)
        sync_folder(place.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_arrays(folder: Path, texts: Iterable[Ids]) -> JSON:
    """Write the ids of all texts. Returns what is to be known of them."""
    count, total, longest, vocab_size = 0, 0, 0, 0
    with (folder / _OFFSETS).open("wb") as offsets, (folder / _IDS).open("wb") as ids:
        offsets.write(bytes(8))
        for text in texts:
            count, total, longest = count + 1, total + len(text), max(longest, len(text))
            vocab_size = max(vocab_size, int(text.max()) + 1 if len(text) else 0)
            offsets.write(total.to_bytes(8, "little"))
            ids.write(text.astype("<u4").tobytes())
    return {"texts": count, "ids": total, "longest": longest, "vocab_size": vocab_size}


def _read(place: Path, of: JSON) -> StoredIds:
    try:
        about = json.loads((place / _ABOUT).read_bytes())
        counts = {name: int(about[name]) for name in ("texts", "ids", "longest", "vocab_size")}
        found = differences(of, about["of"])
        sizes = [(place / file).stat().st_size for file in (_OFFSETS, _IDS)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(place, str(error)) from error
    if found:
        raise _damaged(place, "; ".join(found))
    expected = [8 * (counts["texts"] + 1), 4 * counts["ids"]]
    if sizes != expected:
        raise _damaged(place, f"files of {sizes} bytes, where {expected} were written")
    return StoredIds(
        offsets=np.memmap(place / _OFFSETS, "<u8", mode="r"),
        # An empty file cannot be mapped.
        ids=np.memmap(place / _IDS, "<u4", mode="r") if counts["ids"] else np.empty(0, np.uint32),
        longest=counts["longest"],
        vocab_size=counts["vocab_size"],
    )


def _damaged(place: Path, why: str) -> StoreError:
    return StoreError(f"{place}: the ids of texts are damaged ({why}); delete this folder, and they are made anew")
