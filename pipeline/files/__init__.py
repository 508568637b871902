"""One interface for whole files, byte ranges and folders: on local file systems and in object stores.

Source shards, and all of a store, are read and written through `Files` and nothing else.
"""

import re
from functools import lru_cache
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.files.base import Files, Readable, Stat, TooLarge
from pipeline.files.local import LocalFiles, make_folder, sync_folder, sync_tree
from pipeline.storage import Storage

__all__ = [
    "Files",
    "LocalFiles",
    "Readable",
    "Stat",
    "TooLarge",
    "files_at",
    "is_url",
    "make_folder",
    "sync_folder",
    "sync_tree",
]

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")


def is_url(place: str) -> bool:
    """Whether a path or pattern names something that is not on a local file system."""
    match = _URL.match(place)
    return match is not None and match[1].lower() != "file"


def files_at(place: str, storage: Storage | None = None) -> Files:
    """The `Files` for a folder, or for a URL such as `s3://bucket/folder`.

    Args:
        storage: how a URL is reached; by default as the environment says.

    Raises ConfigError for a URL that this version or this installation cannot open.
    """
    if is_url(place):
        return _objects_at(place, storage or Storage())
    return LocalFiles(Path(place.removeprefix("file://")).expanduser())


@lru_cache(maxsize=64)
def _objects_at(url: str, storage: Storage) -> Files:
    """One client for each URL: it holds the connections."""
    if url.lower().startswith("hf://"):
        try:
            from pipeline.files.hub import HubFiles
        except ImportError:
            raise ConfigError(f"{url}: hf:// needs the package huggingface_hub: pip install huggingface_hub") from None
        return HubFiles(url, storage)
    try:
        from pipeline.files.objects import ObjectFiles  # tens of milliseconds that local jobs need not wait
    except ImportError:
        raise ConfigError(f"{url}: object stores need the package obstore: pip install 'vqtok[objects]'") from None
    return ObjectFiles(url, storage)
