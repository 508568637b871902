"""What a task does on its node, without Ray: the node sees what the driver sees, or says what it does not see."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures_store import Job

from pipeline.jobs.plan import make_plan
from pipeline.jobs.ray import task
from pipeline.jobs.ray.cluster import Share
from pipeline.jobs.ray.shared import Shared, shared_by_nodes
from pipeline.jobs.ray.task import Ending, Errand, run_errand

pytest_plugins = ["fixtures_store"]


@pytest.fixture
def shared(job: Job) -> Iterator[Shared]:
    """What the driver of a job sees."""
    with shared_by_nodes(job.config(), str(job.file), make_plan(job.config())) as shared:
        yield shared


def test_a_node_with_the_same_files_sees_no_difference(job: Job, shared: Shared) -> None:
    assert shared.difference() is None
    assert (job.store / shared.mark).exists()


def test_a_job_that_is_refused_leaves_no_store(job: Job) -> None:
    with shared_by_nodes(job.config(), str(job.file), make_plan(job.config())):
        assert job.store.exists()
    assert not job.store.exists()


DIFFERENCES: dict[str, tuple[Callable[[Shared], Shared], str]] = {
    "version": (lambda s: dataclasses.replace(s, version="9.9"), "and the driver has 9.9"),
    "no configuration": (
        lambda s: dataclasses.replace(s, config="/nowhere/job.yaml"),
        "configuration /nowhere/job.yaml: cannot be read here",
    ),
    "configuration": (lambda s: dataclasses.replace(s, config_digest="0"), "is another one here"),
    "no tokenizer": (
        lambda s: dataclasses.replace(s, tokenizer="/nowhere/tokenizer"),
        "tokenizer.path: /nowhere/tokenizer: cannot be read here",
    ),
    "tokenizer": (lambda s: dataclasses.replace(s, tokenizer_digest="0"), "tokenizer.path: .* is another one here"),
    "no source": (
        lambda s: dataclasses.replace(s, shard=s.shard.model_copy(update={"base": "/nowhere"})),
        "source.shards: /nowhere/.*: cannot be read here",
    ),
    "source": (lambda s: dataclasses.replace(s, shard_digest="0"), "source.shards: .* is another one here"),
    "store": (
        lambda s: dataclasses.replace(s, mark="probe-of-another-folder"),
        "tokenize.store: .*is another folder here than where the driver runs",
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_node_that_sees_something_else_says_what(shared: Shared, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("pipeline.jobs.ray.shared._PATIENCE_SECONDS", 0.0)
    change, message = DIFFERENCES[name]
    found = change(shared).difference()
    assert found is not None
    assert re.search(message, found), found


def test_a_task_whose_node_lacks_the_working_folder_starts_nothing(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "_run_process", None)  # not to be called
    ending = run_errand(Errand((), "/nowhere", Share(1, 0), shared, 1), 0)
    assert ending.status == 2
    assert "/nowhere" in str(ending)
    assert "all nodes need the working folder of the driver" in str(ending)


@pytest.mark.parametrize(
    ("cores", "cpus", "processes"), [(64, 4, 16), (10, 4, 3), (2, 1, 2), (1, 1, 1), (2, 0.5, 4), (4, 16, 1)]
)
def test_a_process_has_its_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, cpus: float, processes: int
) -> None:
    monkeypatch.setattr(task, "available_cores", lambda: cores)
    environment = task._environment(Share(cpus, 0), 3, 7)
    assert (environment["RANK"], environment["WORLD_SIZE"]) == ("3", "7")
    assert (environment["LOCAL_RANK"], environment["LOCAL_WORLD_SIZE"]) == ("0", str(processes))


@pytest.mark.parametrize(
    ("endings", "commits", "status"),
    [
        ([0], [], 0),
        ([1], [], 1),
        ([-9, 0], [3], 0),
        ([-9, -11, -9, 0], [3, 4, 4], 0),  # not thrice in vain
        ([-9, -9, -9, -9, -9], [3, 4, 5, 5, 5], 137),
        ([-11, -11, -11], [0, 0, 0], 139),
        ([-15], [0], 143),
    ],
)
def test_a_process_that_is_killed_is_started_again_while_anything_is_committed(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, endings: list[int], commits: list[int], status: int
) -> None:
    ended, committed = iter(endings), iter(commits)
    monkeypatch.setattr(task, "_run_process", lambda errand, number: next(ended))
    monkeypatch.setattr(task, "committed_parts", lambda files: range(next(committed)))
    assert run_errand(Errand((), None, Share(1, 0), shared, 1), 0).status == status
    assert next(ended, None) is None


def test_a_process_without_a_gpu_of_its_own_leaves_those_of_the_node_alone() -> None:
    assert task._environment(Share(1, 0), 0, 1)["ACCELERATE_USE_CPU"] == "true"
    assert "ACCELERATE_USE_CPU" not in set(task._environment(Share(4, 1), 0, 1)) - set(os.environ)


def test_the_last_that_a_process_said_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of another task\n")
    begin = log.stat().st_size
    with log.open("a") as file:
        file.write("vqtok: first\nvqtok: the disk is full\n\n")
    assert task._last_line(log, begin) == "vqtok: the disk is full"
    assert task._last_line(log, log.stat().st_size) == ""
    text = str(Ending(3, 1, "vqtok: the disk is full", "host0", "/logs/worker.err"))
    assert text == "task 3 on host0 ended with exit status 1: vqtok: the disk is full; its log there: /logs/worker.err"
