"""What a source shard is called in the store."""

import hashlib
import re
from pathlib import PurePosixPath


def part_name(path: str) -> str:
    """Name of the part that the source shard at `path` (relative to its base) becomes."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", PurePosixPath(path).name.removesuffix(".tar"))[:100]
    return f"{stem}-{hashlib.sha256(path.encode()).hexdigest()[:12]}"
