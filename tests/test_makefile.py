"""The Makefile: how the environment is made."""

import os
import subprocess
from pathlib import Path

import pytest
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


# What is on the command line, and how many processes tokenize.
PROCESSES = [
    (["GPUS="], "2"),
    (["GPUS=", "NPROC=3"], "3"),
    (["GPUS=/dev/nvidia0"], "auto"),
    (["GPUS=/dev/nvidia0", "NPROC=3"], "3"),
]


@pytest.mark.parametrize(("variables", "expected"), PROCESSES)
def test_where_a_gpu_is_seen_tokenizing_starts_as_many_processes_as_are_best(
    variables: list[str], expected: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "NPROC"}
    command = ["make", "--dry-run", "tokenize", *variables]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert f"--engine processes --processes {expected} " in said.stdout
