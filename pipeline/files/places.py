"""Why a folder cannot be used, in words for whoever named it."""

import os
from pathlib import Path

_RDONLY = getattr(os, "ST_RDONLY", 1)


def why_unreadable(folder: Path) -> str | None:
    """Why a folder cannot be read; None where it can be, and where there is none but could be."""
    try:
        present = _nearest(folder)
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
    present = _nearest(folder)
    if os.statvfs(present).f_flag & _RDONLY:
        return f"the file system of {present} is read-only"
    if not os.access(present, os.W_OK | os.X_OK):
        return f"no permission to write into {present}"
    return None


def _nearest(folder: Path) -> Path:
    """The folder, or what comes next above it that is there."""
    for path in (folder, *folder.parents):
        try:
            os.lstat(path)
            return path
        except (FileNotFoundError, NotADirectoryError):
            continue
    return folder
