"""A job looked at again and again."""

import itertools
import time

import pytest
from fixtures_store import COLLECTION, Job

from pipeline.jobs.status.watching import Watcher

pytest_plugins = ["fixtures_store"]


def test_a_look_that_fails_is_told_beside_what_was_seen_before(
    job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job.run()
    watcher = Watcher(job.config())
    assert watcher.is_complete

    def refuse(store: object) -> set[str]:
        raise OSError("the network is down")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.jobs.status.job.committed_parts", refuse)
        watcher.look()
        assert not watcher.is_complete
        watcher.show("a note")
    shown = capsys.readouterr().out
    assert f"{len(COLLECTION)} of {len(COLLECTION)} source shards are committed" in shown
    assert shown.endswith("\n\na note\n\nas of the last look; this one failed: the network is down\n")
    watcher.look()
    assert watcher.is_complete


def test_a_log_has_a_line_now_and_then(
    finished: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watcher(finished.config(), error=True)
    watcher.show_progress("1 task")
    watcher.show_progress("1 task")
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("complete; 1 task")
    later = time.monotonic() + 31
    monkeypatch.setattr(time, "monotonic", lambda: later)
    watcher.show_progress("no task")
    assert capsys.readouterr().err.endswith("; no task\n")


def test_looking_takes_a_tenth_of_the_time(finished: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher, now, looks = Watcher(finished.config()), [0.0], []

    def look() -> None:
        looks.append(now[0])
        now[0] += 3

    monkeypatch.setattr(watcher, "look", look)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for _ in range(40):
        watcher.look_sparingly()
        now[0] += 2
    assert [later - earlier for earlier, later in itertools.pairwise(looks)] == [31.0, 31.0]
