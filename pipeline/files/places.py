"""Why a place cannot be used, in words for whoever named it."""

import os
from pathlib import Path
from urllib.parse import urlsplit

_RDONLY = getattr(os, "ST_RDONLY", 1)
# Hosts of https:// that are object stores, and spoken to as such.
_OBJECT_STORES = (".amazonaws.com", ".r2.cloudflarestorage.com", ".core.windows.net", ".fabric.microsoft.com")


def why_unreadable(folder: Path) -> str | None:
    """Why a folder cannot be read; None where it can be, and where there is none but could be."""
    try:
        present = nearest(folder)
        if not present.is_dir():
            return f"{present} is a file" if present.exists() else f"{present} leads nowhere"
        if present == folder and not os.access(present, os.R_OK | os.X_OK):
            return f"no permission to read {present}"
        if not os.access(present, os.X_OK):
            return f"no permission to look into {present}"
    except (OSError, ValueError) as error:  # too long, in a circle, a null character
        return str(getattr(error, "strerror", None) or error).lower()
    return None


def why_unwritable(folder: Path) -> str | None:
    """Why a folder cannot be made or written into; None where it can be."""
    reason = why_unreadable(folder)
    if reason is not None:
        return reason
    present = nearest(folder)
    if os.statvfs(present).f_flag & _RDONLY:
        return f"the file system of {present} is read-only"
    if not os.access(present, os.W_OK | os.X_OK):
        return f"no permission to write into {present}"
    return None


def why_unlistable(url: str) -> str | None:
    """Why nobody can tell what is below a URL; None where it can be told."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and not (parts.hostname or "").endswith(_OBJECT_STORES):
        return "a web server can be read, but not listed or written; name a folder, s3://, gs:// or az://"
    return None


def nearest(folder: Path) -> Path:
    """The folder, or what comes next above it that is there."""
    for path in (folder, *folder.parents):
        try:
            os.lstat(path)
            return path
        except (FileNotFoundError, NotADirectoryError):
            continue
    return folder
