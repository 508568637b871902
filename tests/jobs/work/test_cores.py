"""How much CPU time was left over."""

import time
from pathlib import Path

import pytest

from pipeline.jobs.work import cores
from pipeline.jobs.work.cores import IdleCores


def test_the_fuller_of_machine_and_process_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(cores, "_STAT", stat)
    stat.write_text("cpu 100 0 0 100 0 0 0 0 0 0\n")
    idle = IdleCores(4)
    time.sleep(0.1)
    stat.write_text("cpu 180 0 0 105 15 0 0 0 0 0\n")  # 80 ticks at work, 20 without, of which 15 waited for a disk
    assert idle.share() == pytest.approx(0.2)
    stat.write_text("cpu 100 0 0 900 0 0 0 0 0 0\n")
    idle = IdleCores(1)
    ends = time.process_time() + 0.1
    while time.process_time() < ends:
        pass
    stat.write_text("cpu 100 0 0 1900 0 0 0 0 0 0\n")  # the machine had nothing else to do
    assert idle.share() < 1


def test_without_linux_the_process_alone_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_STAT", tmp_path / "gone")
    idle = IdleCores(2)
    time.sleep(0.1)
    assert 0.5 < idle.share() <= 1
