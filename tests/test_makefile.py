"""The Makefile: how the environment is made."""

import os
import subprocess
from pathlib import Path

from support import ROOT


def program(path: Path, code: str) -> None:
    """A shell script that notes how it was called."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "{path.name} $*" >>calls\n{code}\n')
    path.chmod(0o755)


def test_an_environment_that_is_activated_and_out_of_date_is_renewed(tmp_path: Path) -> None:
    """Its python has no pip, and uv is where the first `make setup` has put it."""
    (tmp_path / "Makefile").symlink_to(ROOT / "Makefile")
    (tmp_path / "scripts").mkdir()
    for name in ("pyproject.toml", "scripts/requirements.lock"):
        (tmp_path / name).touch()
    program(tmp_path / ".venv/bin/python3", "exit 1")
    program(tmp_path / ".venv/uv/bin/uv", "exit 0")
    path = f"{tmp_path}/.venv/bin:/usr/bin:/bin"
    made = subprocess.run(["make", "setup"], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / ".venv/installed").exists()
    calls = (tmp_path / "calls").read_text()
    assert "-m pip" not in calls
    assert calls.count("uv pip install") == 2
