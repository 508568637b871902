"""What is in a folder, at any depth: names alone, for looking at a million files takes longer than naming them."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.files import Files, LocalFiles
from pipeline.source.folders.names import joined
from pipeline.source.shards.links import Device, device, entered, leads_to_folder


@dataclass(frozen=True)
class Scan:
    """The files of a folder when it was looked at."""

    names: dict[str, set[str]]
    """By folder, relative to the top one, whose own name is empty."""
    _files: Files
    _top: str
    _sizes: dict[str, int] | None
    """By path, where the listing tells."""

    def bytes(self, path: str) -> int:
        """Size of a file; 0 for one that is gone by now, which reading it tells."""
        if self._sizes is not None:
            return self._sizes.get(path, 0)
        try:
            return os.stat(f"{self._files.root}/{joined(self._top, path)}").st_size  # noqa: PTH116 - a million times
        except OSError:
            return 0

    def extensions(self) -> str:
        """What files there are, for a message."""
        kinds = Counter(os.path.splitext(name)[1].lower() for names in self.names.values() for name in names)  # noqa: PTH122
        if not kinds:
            return "it is empty, or a store or a tokenizer, whose pictures belong to no collection"
        named = ", ".join(f"{count:,} {kind or 'without an extension'}" for kind, count in kinds.most_common(5))
        return f"it holds {sum(kinds.values()):,} files: {named}{', ...' if len(kinds) > 5 else ''}"


def scan_folder(files: Files, folder: str) -> Scan:
    """Name the files below a folder, relative to the root of `files`.

    Links are followed; folders whose names begin with a dot, stores and tokenizers are passed over.

    Raises OSError for a folder that cannot be read, ConfigError for a link that leads into itself.
    """
    if isinstance(files, LocalFiles):
        names = {inside: found for inside, found in _walk(str(files.path(folder))) if found}
        return Scan(names, files, folder, None)
    sizes = {path: stat.bytes for path, stat in files.stats(folder).items() if _is_shown(path)}
    by_folder: dict[str, set[str]] = {}
    for path in sizes:
        inside, _, name = path.rpartition("/")
        by_folder.setdefault(inside, set()).add(name)
    return Scan(by_folder, files, folder, sizes)


def _is_shown(path: str) -> bool:
    *folders, name = path.split("/")
    return bool(name) and not any(folder.startswith(".") for folder in folders)


def _walk(top: str) -> Iterator[tuple[str, set[str]]]:
    """Each folder below a local one, and the names of its files."""
    ahead: list[tuple[str, frozenset[Device]]] = [("", frozenset([device(top)]))]
    while ahead:
        inside, above = ahead.pop()
        names, folders = set[str](), list[os.DirEntry[str]]()
        with os.scandir(os.path.join(top, inside)) as entries:  # noqa: PTH118
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    names.add(entry.name)
                elif leads_to_folder(entry):
                    if not entry.name.startswith("."):
                        folders.append(entry)
                elif entry.is_symlink():  # one that leads nowhere is a file that is missing, and no nothing
                    names.add(entry.name)
        if not _is_output(names):
            ahead += [(joined(inside, entry.name), entered(entry, above)) for entry in folders]
            yield inside, names


def _is_output(names: set[str]) -> bool:
    """Whether a folder with these files is a store or a tokenizer, whose pictures belong to no collection."""
    return {"store.json", "manifest.json"} <= names or {"config.json", "model.safetensors"} <= names
