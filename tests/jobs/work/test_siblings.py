"""What processes that were started together leave for each other, and what they do where that is gone."""

import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fixtures_store import Job

from pipeline.errors import VqtokError
from pipeline.jobs.plan import make_plan
from pipeline.jobs.work import launch as launching
from pipeline.jobs.work.launch import tokenize_in_processes
from pipeline.jobs.work.result import TokenizeResult
from pipeline.jobs.work.siblings import Siblings

pytest_plugins = ["fixtures_store"]


def test_one_computes_and_the_others_wait_for_it(tmp_path: Path) -> None:
    computed: list[int] = []
    with ThreadPoolExecutor(8) as askers:
        asked = [askers.submit(Siblings(tmp_path).once, "what", lambda: computed.append(1) or "this") for _ in range(8)]
        assert [each.result() for each in asked] == ["this"] * 8
    assert computed == [1]


def test_nothing_fails_where_the_folder_is_gone(tmp_path: Path) -> None:
    siblings = Siblings(tmp_path / "gone")
    assert siblings.is_first("what")
    assert siblings.once("what", lambda: "this") == "this"
    siblings.begin_work()
    assert siblings.has_begun  # nobody can say otherwise
    assert not siblings.leave_result(TokenizeResult(store="store", planned=1, committed=1))
    assert siblings.results() == []


def test_what_was_done_counts_where_no_result_was_left(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(job.config())

    def launch(arguments: object, processes: int, environment: dict[str, str], look: object) -> int:
        shutil.rmtree(environment["VQTOK_LAUNCH"])
        return 0

    monkeypatch.setattr(launching, "launch", launch)
    with pytest.raises(VqtokError, match="2 of 2 processes ended without having tokenized"):
        tokenize_in_processes(plan, [], 2, 60)
    job.run()
    status, found = tokenize_in_processes(plan, [], 2, 60)
    assert (status, str(found)) == (0, f"{job.store}: 6 of 6 source shards are committed")


def test_signals_are_handled_as_before_once_the_processes_have_ended(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    launching.launch(["--version"], 1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
