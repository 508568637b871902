"""Whoever stands alone compares the whole source; whom another has started leaves it to that one."""

import pytest
from fixtures_replaced import OTHER_CONTENTS, SHARD, replace
from fixtures_store import Job

from pipeline.errors import SourceError
from pipeline.jobs.tokenizing.checked import checked_plan
from pipeline.jobs.work.siblings import new_siblings

pytest_plugins = ["fixtures_store", "fixtures_replaced"]


def test_several_processes_refuse_before_they_start(resumed: Job) -> None:
    replace(resumed, 700)
    done = resumed.start("--processes", "2").wait()
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)


def test_every_rank_of_another_launcher_refuses(resumed: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that compared its share alone would go on, and so would a process that was given a rank by mistake."""
    replace(resumed, 700)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        with pytest.raises(SourceError, match=f"{SHARD}: {OTHER_CONTENTS}"):
            checked_plan(resumed.config(), False)


def test_processes_that_another_has_started_leave_the_comparison_to_it(
    resumed: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand processes that each read all of a million commits would read for weeks."""
    replace(resumed, 700)
    with new_siblings() as siblings:
        for name, value in siblings.environment.items():
            monkeypatch.setenv(name, value)
        assert checked_plan(resumed.config(), False).planned
    with pytest.raises(SourceError):  # nobody has compared for whoever finds the variable of processes long gone
        checked_plan(resumed.config(), False)
