"""What a command takes, measured by a process that is larger than it."""

import subprocess
import sys

import numpy as np
import pytest
from measured import run_measured


def test_the_peak_is_that_of_the_command_alone() -> None:
    larger = np.ones(400 << 20, np.uint8)
    little = run_measured([sys.executable, "-S", "-c", "pass"])
    block = run_measured([sys.executable, "-S", "-c", "import time; x = b'x' * (200 << 20); time.sleep(0.3)"])
    assert larger.all()
    assert little.peak_mib < 100
    assert 200 < block.peak_mib < 300
    assert block.seconds > 0.3
    assert block.cpu_seconds < block.seconds
    assert run_measured([sys.executable, "-S", "-c", "sum(range(4_000_000))"]).cpu_seconds > little.cpu_seconds


def test_a_command_that_fails_is_no_measurement() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run_measured([sys.executable, "-c", "import sys; sys.exit(3)"])
