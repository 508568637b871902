"""The error for a file of a store that is not as it must be."""

from pipeline.errors import CorruptStore
from pipeline.files import Files


def damaged(files: Files, path: str, what: str) -> CorruptStore:
    """The error to raise; `what` says what is wrong with the file at `path` of a store."""
    return CorruptStore(f"{files.root}/{path}: {what}")
