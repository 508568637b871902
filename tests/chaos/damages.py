"""One damage to one file of a store, drawn by a seed.

Imported in forked processes: nothing of the package, nothing slow.
"""

import os
import random
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_KINDS_OF_FILES = (
    (r"store\.json", "store.json"),
    (r"manifest\.json", "manifest.json"),
    (r"commits/.*", "commit record"),
    (r"rejects/.*", "rejects"),
    (r"claims/.*", "claim"),
    (r"failures/.*", "note of a failure"),
    (r"listings/[^.]+\.[0-9]+\.json", "log of a folder"),
    (r"listings/.*", "files of a part"),
    (r"tokens\.zarr/codebook/.*", "codebook"),
    (r"tokens\.zarr/parts/[^/]+/tokens/c/.*", "tokens"),
    (r"tokens\.zarr/parts/.*/c/.*", "labels, keys and fields"),
    (r"tokens\.zarr/parts/[^/]+/.+/zarr\.json", "array metadata"),
    (r"tokens\.zarr/.*", "group metadata"),
)


def kind_of_file(path: str) -> str:
    """What a file of a store is, by its path there."""
    return next(kind for pattern, kind in _KINDS_OF_FILES if re.fullmatch(pattern, path))


@dataclass(frozen=True)
class Damage:
    """What befalls a file."""

    path: str
    """In the folder that holds it."""
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} of {self.path}"


def draw_damage(files: Mapping[str, bytes], kind: str, of: Callable[[str], str], draw: random.Random) -> Damage:
    """A damage of this kind to one of the files; every kind of file, as `of` names them, is equally likely."""
    kinds = sorted({of(path) for path in files})
    chosen = draw.choice(kinds)
    return Damage(draw.choice(sorted(path for path in files if of(path) == chosen)), kind)


def do(damage: Damage, folder: Path, elsewhere: Sequence[Path], draw: random.Random) -> bool:
    """Damage a file in `folder`, which may be a hard link to one that must stay. Returns whether it differs now.

    Args:
        elsewhere: folders of the same kind, whose files are put in its place.
    """
    path = folder / damage.path
    data = path.read_bytes()
    if damage.kind in _STRUCTURAL:
        path.unlink()
        _STRUCTURAL[damage.kind](path)
        return True
    if damage.kind == "swap":
        return _swap(path, _others(path, damage.path, [folder]), draw)
    if damage.kind == "file of elsewhere":
        others = _others(path, damage.path, [*elsewhere])
        changed = draw.choice(others).read_bytes() if others else data
    else:
        changed = _CONTENTS[damage.kind](data, draw)
    path.unlink()
    path.write_bytes(changed)
    return changed != data


def _bit(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(8 * len(data)) if data else 0
    return _with(data, place // 8, bytes([data[place // 8] ^ 1 << place % 8])) if data else b"\0"


def _byte(data: bytes, draw: random.Random) -> bytes:
    return _with(data, draw.randrange(len(data)), bytes([draw.randrange(256)])) if data else b"\0"


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice([0, len(data) // 2, max(len(data) - 1, 0), draw.randrange(len(data) + 1)])]


def _append(data: bytes, draw: random.Random) -> bytes:
    return data + draw.choice([b"\0", b"\n", b"{}", draw.randbytes(draw.randrange(1, 100)), data])


def _zero(data: bytes, draw: random.Random) -> bytes:
    start = draw.choice([0, draw.randrange(len(data) + 1)])
    length = draw.choice([len(data), 16, 512])
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def _digit(data: bytes, draw: random.Random) -> bytes:
    """Another number or another digit in text; in other files a byte."""
    numbers = [*re.finditer(rb"\d+", data)]
    if not numbers or data[:1] not in b"{[":
        return _byte(data, draw)
    found = draw.choice(numbers)
    number = int(found[0])
    values = [number + 1, number - 1, -number - 1, 0, 10**9, 1 << 31, 1 << 63, 10**40, 10 * number + 7]
    return data[: found.start()] + b"%d" % draw.choice(values) + data[found.end() :]


def _with(data: bytes, place: int, part: bytes) -> bytes:
    return data[:place] + part + data[place + len(part) :]


def _swap(path: Path, others: Sequence[Path], draw: random.Random) -> bool:
    if not others:
        return False
    other = draw.choice(others)
    data, theirs = path.read_bytes(), other.read_bytes()
    for place, contents in ((path, theirs), (other, data)):
        place.unlink()
        place.write_bytes(contents)
    return data != theirs


def _others(path: Path, relative: str, folders: Sequence[Path]) -> list[Path]:
    """Files that a careless copy may put there: those of the same name in the folders of other parts and attempts."""
    of_parts = r"(parts|commits|rejects|claims|failures|listings)"
    pattern = re.sub(rf"{of_parts}/[^/]+?(\.json|\.jsonl|)(?=/|$)", r"\1/*\2", relative)
    return sorted(other for folder in folders for other in folder.glob(pattern) if other != path and other.is_file())


_STRUCTURAL: dict[str, Callable[[Path], object]] = {
    "deletion": lambda path: None,
    "folder in the place": lambda path: path.mkdir(),
    "loop of links in the place": lambda path: path.symlink_to(path.name),
}
_CONTENTS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bit": _bit,
    "byte": _byte,
    "cut": _cut,
    "append": _append,
    "zeros": _zero,
    "another number": _digit,
}
KINDS = (*_CONTENTS, *_STRUCTURAL, "swap", "file of elsewhere")
"""All kinds of damage."""
OF_OBJECTS = tuple(kind for kind in KINDS if kind not in ("folder in the place", "loop of links in the place"))
"""Those that an object store can suffer."""


def linked(source: Path, target: Path) -> Path:
    """A copy of a folder that takes no room: files are hard links, so whoever changes one must unlink it first."""
    shutil.copytree(source, target, copy_function=os.link)
    return target
