"""The progress bar."""

import re
from dataclasses import replace

import pytest
from fixtures_store import COLLECTION, Job
from shard_work import ListQueue

from pipeline.jobs.plan import make_plan
from pipeline.jobs.work import progress

pytest_plugins = ["fixtures_store"]

IMAGES = sum(map(len, COLLECTION.values()))


def test_what_this_process_does_is_shown_without_a_question(
    finished: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = replace(make_plan(finished.config()), committed=set())
    read: list[str] = []
    monkeypatch.setattr(progress, "read_commit", lambda store, part: read.append(part))
    with progress.JobProgress(plan, enabled=True) as bar:
        queue = bar.of(ListQueue(plan.shards))
        while (shard := queue.next()) is not None:
            if images := len(COLLECTION[shard.path]):
                queue.progress(shard, images, shard.bytes or 0)
            queue.done(shard)
    assert f"6/6 source shards, {IMAGES} images" in capsys.readouterr().err
    assert read == []


@pytest.mark.parametrize(("reads", "exact"), [(6, True), (5, False), (2, False)])
def test_a_bar_reads_a_bounded_number_of_commits(
    finished: Job, reads: int, exact: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read: list[str] = []
    read_commit = progress.read_commit
    monkeypatch.setattr(progress, "read_commit", lambda store, part: read.append(part) or read_commit(store, part))
    monkeypatch.setattr(progress, "_READS", reads)
    plan = replace(make_plan(finished.config()), committed=set())
    with progress.JobProgress(plan, enabled=True) as bar:
        bar._thread.join(0.01)
    found = re.search(r"6/6 source shards, (about )?(\d+) images", capsys.readouterr().err)
    assert found is not None
    assert len(read) == len(set(read)) == reads
    assert (found[1] is None) is exact
    assert not exact or int(found[2]) == IMAGES
