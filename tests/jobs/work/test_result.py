"""What processes know at the end of a job."""

import pytest
from fixtures_store import COLLECTION, Job

from pipeline.errors import VqtokError
from pipeline.jobs.plan import make_plan
from pipeline.jobs.work.result import TokenizeResult, found_result, together

pytest_plugins = ["fixtures_store"]


def test_a_failure_that_another_process_made_good_is_not_told() -> None:
    result = TokenizeResult(store="store", planned=2, committed=1, failures={"a.tar": "cut short"})
    assert str(result).startswith("a.tar stays pending: cut short\n")
    assert str(result.model_copy(update={"committed": 2})) == "store: 2 of 2 source shards are committed"


def test_processes_side_by_side_are_summed_up() -> None:
    one = TokenizeResult(store="store", planned=3, committed=2, images=5, seconds=2, idle=0.5, failures={"a": "why"})
    two = one.model_copy(update={"committed": 3, "images": 7, "seconds": 4, "idle": 0.25, "failures": {"b": "why"}})
    three = one.model_copy(update={"images": 0, "idle": None, "failures": {}})
    found = together([one, two, three])
    assert (found.committed, found.images, found.seconds, found.idle, found.processes) == (3, 12, 4, 0.25, 3)
    assert (found.failures, found.pending_failures) == ({"a": "why", "b": "why"}, [])
    assert "12 images in 3 processes, 3 images/s" in str(found)


def test_the_store_tells_what_nobody_else_does(job: Job) -> None:
    plan = make_plan(job.config())  # as before all work
    assert str(found_result(plan)) == f"{job.store}: 0 of {len(COLLECTION)} source shards are committed"
    job.run()
    assert found_result(plan).succeeded
    (job.store / "manifest.json").unlink()
    with pytest.raises(VqtokError, match="the manifest is not up to date: run it again"):
        found_result(plan)
