"""OpenMP's threads sleep while they wait, unless the environment says otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from pipeline.openmp import let_waiting_threads_sleep

COMMAND = """
from pipeline.cli import main
main(["train", "--help"], standalone_mode=False)
import torch
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="other builds of torch bring another OpenMP")
def test_the_command_sets_it_before_torch_loads_the_library() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND],
        env={**environment, "OMP_DISPLAY_ENV": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY", ""])
def test_what_the_environment_says_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name or "UNRELATED", "own")
    let_waiting_threads_sleep()
    assert os.environ.get("OMP_WAIT_POLICY") == {"": "passive", "OMP_WAIT_POLICY": "own"}.get(name)
