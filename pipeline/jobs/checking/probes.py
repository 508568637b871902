"""Files that are written to see whether they can be. Whatever happens, none is to stay."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.files import Files, LocalFiles
from pipeline.jobs.checking.lines import Checks
from pipeline.store.schema import names


@contextlib.contextmanager
def probing(checks: Checks, files: Files) -> Iterator[str]:
    """A folder of a store in which things may be tried; it is not made yet, and gone afterwards.

    So are the folders that a store on this machine would lie in, as far as they were made for it. What a killed process
    leaves has a name that `vqtok clean` knows.
    """
    probe = names.new_probe()
    made = _missing_folders(files)
    try:
        yield probe
    finally:
        with contextlib.suppress(Exception):  # a line has said what is wrong with the place
            checks.within(lambda: files.delete_folder(probe), at_most=0.5)
        for folder in made:
            with contextlib.suppress(OSError):  # never made, or somebody has begun a store meanwhile
                folder.rmdir()


def _missing_folders(files: Files) -> list[Path]:
    """The folders that come into being with a first file, innermost first."""
    if not isinstance(files, LocalFiles):
        return []
    root = files.path(".")
    return [folder for folder in (root, *root.parents) if not folder.exists()]
