"""All processes of a training stop after the same step, and one of them says why."""

import multiprocessing
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from torch import distributed

from pipeline.errors import TrainingDiverged
from pipeline.jobs.training import agreement
from pipeline.jobs.training.agreement import StopAgreement, raise_once
from pipeline.process.signals import StopRequest


def test_one_process_says_why_and_the_others_end_with_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_WORD_SECONDS", 0)
    error = TrainingDiverged("it went wrong")
    with pytest.raises(TrainingDiverged, match="it went wrong"):
        raise_once(error, is_main=True)
    with pytest.raises(SystemExit) as caught:
        raise_once(error, is_main=False)
    assert caught.value.code == error.exit_status


def answers(rank: int, store: Path, out: Connection) -> None:
    """What one of two processes is told after each of four steps, the second having been asked to stop after one."""
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    request = StopRequest("at once")
    stop, told = StopAgreement(request), []
    for step in range(4):
        if rank == 1 and step == 1:
            request.signum = signal.SIGTERM
        told.append(stop.signum())
    out.send([*told, stop.settle()])
    distributed.destroy_process_group()


def test_both_are_told_one_step_after_either_was_asked(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    ranks = [context.Process(target=answers, args=(rank, tmp_path / "store", pipes[rank][1])) for rank in range(2)]
    for rank in ranks:
        rank.start()
    try:
        found = [ours.recv() if ours.poll(60) else None for ours, _ in pipes]
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()
    assert found == [[None, None, signal.SIGTERM, signal.SIGTERM, signal.SIGTERM]] * 2
