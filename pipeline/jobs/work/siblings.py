"""What the processes of one `vqtok tokenize --processes N` leave for each other, in a folder of their parent."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
        with (self._folder / f"{name}.once").open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # given back by the system when a process dies
            file.seek(0)
            found = file.read()
            if not found:
                found = compute()
                file.write(found)
                file.flush()
            return found

    def begin_work(self) -> None:
        """Say that this process has started up."""
        (self._folder / "at-work").touch()

    @property
    def has_begun(self) -> bool:
        """Whether any of them has started up."""
        return (self._folder / "at-work").exists()

    def leave_result(self, result: TokenizeResult) -> None:
        """Hand the result of this process to whoever started it."""
        (self._folder / f"{os.getpid()}.result").write_bytes(result.to_json())

    def results(self) -> list[TokenizeResult]:
        """Of those that have left one."""
        found = []
        for path in sorted(self._folder.glob("*.result")):
            try:
                found.append(TokenizeResult.model_validate_json(path.read_bytes()))
            except ValidationError:
                continue  # killed while it wrote
        return found


@contextmanager
def new_siblings() -> Iterator[Siblings]:
    """For processes that are about to be started."""
    with tempfile.TemporaryDirectory(prefix="vqtok-launch-", ignore_cleanup_errors=True) as folder:
        yield Siblings(Path(folder))


def current_siblings() -> Siblings | None:
    """Those of this process; None where `--processes` did not start it."""
    folder = os.environ.get(_VARIABLE)
    return Siblings(Path(folder)) if folder and Path(folder).is_dir() else None
