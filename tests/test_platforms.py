"""Where vqtok runs: on Linux, and on macOS, which lacks some of its system calls; Windows is told at once."""

import os
import sys
from pathlib import Path

from click.testing import CliRunner
from fixtures_store import Child, Job, cold_python
from support import in_a_child

from pipeline.cli import main

pytest_plugins = ["fixtures_store"]


def tokenize_and_read_as_on_macos(job: Job) -> None:
    sys.platform = "darwin"
    for name in ("fdatasync", "sched_getaffinity", "sched_setaffinity"):
        delattr(os, name)
    read_text = Path.read_text

    def without_proc(path: Path, encoding: str | None = None) -> str:
        if path.is_relative_to("/proc") or path.is_relative_to("/sys"):
            raise FileNotFoundError(path)
        return read_text(path, encoding)

    Path.read_text = without_proc  # type: ignore[assignment]
    assert job.run().complete
    from pipeline.store import PartCache, TokenStore

    TokenStore(str(job.store), cache=PartCache(job.output / "cache", 1 << 20)).read(slice(0, 4))


def test_what_macos_lacks_is_not_needed(job: Job) -> None:
    done = Child(tokenize_and_read_as_on_macos, job, folder=job.output).wait()
    assert done.status == 0, done.err


def look_as_on_windows() -> tuple[int, str]:
    sys.platform = "win32"
    for name in [name for name in sys.modules if name.startswith("pipeline.jobs.work")] + ["pipeline.files.locks"]:
        sys.modules.pop(name, None)
    sys.modules["fcntl"] = None  # type: ignore[assignment]
    done = CliRunner().invoke(main, ["status", "--config", "my.yaml"])
    return done.exit_code, done.stderr


def test_windows_is_told_where_it_would_run() -> None:
    told = "vqtok: vqtok runs on Linux and macOS; on Windows, use it in WSL\n"
    assert in_a_child(look_as_on_windows) == (1, told)


def test_so_are_programs() -> None:
    done = cold_python("import sys; sys.modules['fcntl'] = None; import pipeline.store; pipeline.store.PartCache")
    assert done.status == 1
    assert done.err.endswith("ImportError: vqtok runs on Linux and macOS; on Windows, use it in WSL\n")
