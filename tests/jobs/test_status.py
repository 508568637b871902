"""`vqtok status`: how far a job is, from the store alone."""

import json
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest
from fixtures_store import COLLECTION, ROWS, Halt, Job, make_job, vqtok

from pipeline.errors import ConfigError, CorruptStore
from pipeline.jobs import status
from pipeline.source.shards import part_name

pytest_plugins = ["fixtures_store"]

FIELDS = {
    "store": str,
    "planned": int,
    "done": int,
    "pending": int,
    "pending_bytes": int,
    "running": list,
    "failed": list,
    "unplanned": list,
    "written": int,
    "rejected": int,
    "images_per_second": float | None,
    "eta_seconds": float | None,
    "complete": bool,
}


def asked(job: Job) -> dict[str, object]:
    """What `--json` prints, its form checked."""
    done = vqtok("status", "--json", "--config", job.file, folder=job.output).wait()
    assert (done.status, done.err) == (0, "")
    answer = json.loads(done.out)
    assert list(answer) == list(FIELDS)
    for name, kind in FIELDS.items():
        assert isinstance(answer[name], kind), name
    assert answer["planned"] == answer["done"] + answer["pending"]
    return dict(answer)


def commit_file(job: Job, path: str) -> Path:
    return job.store / f"commits/{part_name(path)}.json"


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_job_that_nobody_has_begun(job: Job) -> None:
    answer = asked(job)
    size = sum((job.source / path).stat().st_size for path in COLLECTION)
    assert (answer["done"], answer["pending"], answer["pending_bytes"], answer["written"]) == (0, 6, size, 0)
    assert (answer["images_per_second"], answer["eta_seconds"], answer["complete"]) == (None, None, False)
    assert not job.store.exists()


def test_a_finished_job(finished: Job) -> None:
    answer = asked(finished)
    assert (answer["done"], answer["pending"], answer["pending_bytes"], answer["complete"]) == (6, 0, 0, True)
    assert (answer["written"], answer["rejected"], answer["eta_seconds"]) == (ROWS, 7, None)
    text = vqtok("status", "--config", finished.file, folder=finished.output).wait().out
    assert "6 of 6 source shards are committed" in text
    assert f"{ROWS} samples written, 7 rejected" in text
    assert text.endswith("complete\n")


def test_all_committed_is_not_complete_without_the_manifest(damageable: Job) -> None:
    (damageable.store / "manifest.json").unlink()
    answer = asked(damageable)
    assert (answer["pending"], answer["complete"]) == (0, False)


def test_who_is_at_work_is_shown_until_it_is_gone(job: Job) -> None:
    child = job.start(halt=Halt("os.link", "/commits/", 2, signal.SIGSTOP))
    child.wait_until_stopped()
    answer = asked(job)
    assert answer["done"] == 1
    running = answer["running"]
    assert isinstance(running, list)
    assert 1 <= len(running) <= 2  # one in work, one being written beside it
    for claim in running:
        assert set(claim) == {"part", "host", "pid", "images"}
        assert claim["host"] == socket.gethostname()
        assert Path(f"/proc/{claim['pid']}").exists()
        assert claim["pid"] != os.getpid()
        assert claim["part"] in {part_name(path) for path in COLLECTION}
    assert f"running  {running[0]['part']} on {socket.gethostname()}, process" in str(status.run(job.config()))
    child.signal(signal.SIGKILL)
    child.wait()
    assert job.listing("claims") != []
    assert asked(job)["running"] == []


def test_the_last_failure_of_what_is_pending_is_shown(copied: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", copied, tokenizer_folder)
    (copied / "train-0001.tar").write_bytes(b"no tar" * 200)
    assert not job.run().complete
    (failure,) = asked(job)["failed"]  # type: ignore[misc]
    assert set(failure) == {"source", "reason", "host", "time"}
    assert failure["source"] == "train-0001.tar"
    assert "not a tar at all" in failure["reason"]
    text = str(status.run(job.config()))
    assert f"failed   train-0001.tar at {failure['time']}: {failure['reason']}" in text


def test_what_is_committed_but_not_planned_is_shown(finished: Job) -> None:
    result = status.run(finished.config("source.exclude=more/*"))
    assert (result.planned, result.done, result.complete) == (4, 4, False)
    assert result.unplanned == sorted(part_name(path) for path in COLLECTION if path.startswith("more/"))
    assert f"extra    {result.unplanned[0]}: committed, but not of this configuration" in str(result)


def test_rate_and_time_to_go_follow_from_the_commits(damageable: Job) -> None:
    """Three commits within a minute; the first one says nothing about the time before it."""
    finish = {"train-0000.tar": "10:00:00", "train-0003.tar": "10:00:20", "train-0001.tar": "10:00:40"}
    for path in COLLECTION:
        if path in finish:
            rewrite(commit_file(damageable, path), finished=f"2026-01-01T{finish[path]}+00:00")
        else:
            commit_file(damageable, path).unlink()
    size = {path: (damageable.source / path).stat().st_size for path in COLLECTION}
    result = status.run(damageable.config())
    assert result.images_per_second == pytest.approx((17 + 5) / 40)
    pending = sum(size[path] for path in COLLECTION if path not in finish)
    assert result.pending_bytes == pending
    assert result.eta_seconds == pytest.approx(pending / ((size["train-0003.tar"] + size["train-0001.tar"]) / 40))
    assert "1 images/s since the first commit" in str(result)
    assert f"about {result.eta_seconds / 60:,.0f} min to go" in str(result)


def test_commits_of_one_moment_have_no_rate(damageable: Job) -> None:
    for path in COLLECTION:
        rewrite(commit_file(damageable, path), finished="2026-01-01T10:00:00+00:00")
    assert status.run(damageable.config()).images_per_second is None


def test_a_damaged_commit_is_named(damageable: Job) -> None:
    path = commit_file(damageable, "train-0001.tar")
    path.write_text("{")
    with pytest.raises(CorruptStore, match=str(path.name)):
        status.run(damageable.config())
    done = vqtok("status", "--config", damageable.file, folder=damageable.output).wait()
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"vqtok: {path}: not a commit record")


def test_a_record_under_another_name_is_refused(damageable: Job) -> None:
    shutil.copy(commit_file(damageable, "train-0000.tar"), commit_file(damageable, "train-0001.tar"))
    with pytest.raises(CorruptStore, match=f"the commit record of {part_name('train-0000.tar')}"):
        status.run(damageable.config())


def test_a_source_that_is_missing_is_a_bad_configuration(job: Job) -> None:
    with pytest.raises(ConfigError, match="matches no file"):
        status.run(job.config("source.shards=nowhere/*.tar", "source.base=null"))
