"""What the processes of one `vqtok tokenize --processes N` leave for each other, in a folder of their parent.

It spares repeated work and repeated lines, and nothing depends on it: cleaners of temporary files may take the folder
away, and its disk may be full.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from pipeline.jobs.work.result import TokenizeResult

_VARIABLE = "VQTOK_LAUNCH"


class Siblings:
    """The folder, seen from the process that made it or from one that was started with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def environment(self) -> Mapping[str, str]:
        """What tells a process of its siblings."""
        return {_VARIABLE: str(self._folder)}

    def is_first(self, what: str) -> bool:
        """Whether no sibling has asked this before: what concerns them all is said once."""
        try:
            (self._folder / hashlib.sha256(what.encode()).hexdigest()).touch(exist_ok=False)
        except FileExistsError:
            return False
        except OSError:
            return True  # better twice than never
        return True

    def once(self, name: str, compute: Callable[[], str]) -> str:
        """What `compute` gives in whichever sibling comes first, while the others wait.

        Where that one dies, the next one does it. Whatever `compute` raises is raised, and remembered by nobody.
        """
        # Not at the top: on Windows it cannot be imported, and the command line must still say so in its own words.
        from pipeline.files import locks

        try:
            descriptor = locks.lock(self._folder / f"{name}.lock")
        except OSError:
            return compute()  # better twice than never
        try:
            return self._found(name) or self._left(name, compute())
        finally:
            locks.unlock(descriptor)

    def _found(self, name: str) -> str:
        """What `_left` has left; empty where there is nothing."""
        with contextlib.suppress(OSError):
            return (self._folder / name).read_text(encoding="utf-8")
        return ""

    def _left(self, name: str, found: str) -> str:
        with contextlib.suppress(OSError):
            (self._folder / name).write_text(found, encoding="utf-8")
        return found

    def begin_work(self) -> None:
        """Say that this process has started up."""
        with contextlib.suppress(OSError):
            (self._folder / "at-work").touch()

    @property
    def has_begun(self) -> bool:
        """Whether any of them has started up; also where that can no longer be told."""
        return not self._folder.is_dir() or (self._folder / "at-work").exists()

    def leave_result(self, result: TokenizeResult) -> bool:
        """Hand the result of this process to whoever started it. Returns whether that was possible."""
        try:
            (self._folder / f"{os.getpid()}.result").write_bytes(result.to_json())
        except OSError:
            return False
        return True

    def results(self) -> list[TokenizeResult]:
        """Of those that have left one."""
        found = []
        for path in sorted(self._folder.glob("*.result")):
            try:
                found.append(TokenizeResult.model_validate_json(path.read_bytes()))
            except (OSError, ValidationError):
                continue  # killed while it wrote, or the disk is full
        return found


@contextlib.contextmanager
def new_siblings() -> Iterator[Siblings]:
    """For processes that are about to be started."""
    with contextlib.ExitStack() as until_ended:
        folder = ""
        with contextlib.suppress(OSError):
            made = tempfile.TemporaryDirectory(prefix="vqtok-launch-", ignore_cleanup_errors=True)
            folder = until_ended.enter_context(made)
        yield Siblings(Path(folder or os.devnull))  # no folder: each process stands alone


def current_siblings() -> Siblings | None:
    """Those of this process; None where `--processes` did not start it."""
    folder = os.environ.get(_VARIABLE)
    return Siblings(Path(folder)) if folder and Path(folder).is_dir() else None
