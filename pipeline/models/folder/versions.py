"""Whether files are as they were when they were last read."""

import time
from collections.abc import Iterable
from pathlib import Path

# Coarser than the clock of any file system in use.
_SETTLED_NS = 3 * 10**9

Versions = tuple[tuple[int, ...], ...]


def versions_of(folder: Path, names: Iterable[str]) -> Versions | None:
    """What the system says of files: equal answers mean the same contents. None where that cannot be told.

    A file that was written a moment ago may be written again within the same tick of the file system's clock.
    """
    try:
        stats = [(folder / name).stat() for name in names]
    except OSError:
        return None
    newest = max(time_ns for stat in stats for time_ns in (stat.st_mtime_ns, stat.st_ctime_ns))
    if time.time_ns() - newest < _SETTLED_NS:
        return None
    return tuple((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in stats)
