"""A node sees what the driver sees, or says what it does not see."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fixtures_store import Job

from pipeline.jobs.plan import make_plan
from pipeline.jobs.work.shared import Shared, shared_by_nodes

pytest_plugins = ["fixtures_store"]


@pytest.fixture
def shared(job: Job) -> Iterator[Shared]:
    """What the driver of a job sees."""
    with shared_by_nodes(job.config(), str(job.file), make_plan(job.config())) as shared:
        yield shared


def test_a_node_with_the_same_files_sees_no_difference(job: Job, shared: Shared) -> None:
    assert shared.difference() == ""
    assert (job.store / shared.mark).exists()


def test_a_job_that_is_refused_leaves_no_store(job: Job) -> None:
    with shared_by_nodes(job.config(), str(job.file), make_plan(job.config())):
        assert job.store.exists()
    assert not job.store.exists()


def changed(**fields: Any) -> Callable[[Shared], Shared]:
    return lambda shared: dataclasses.replace(shared, **fields)


def without_tokenizer(shared: Shared) -> Shared:
    tokenizer = shared.config.tokenizer.model_copy(update={"path": "/nowhere/tokenizer"})
    return dataclasses.replace(shared, config=shared.config.model_copy(update={"tokenizer": tokenizer}))


def other(number: int) -> Callable[[Shared], Shared]:
    """The driver has seen something else there."""
    return lambda s: dataclasses.replace(s, digests=(*s.digests[:number], "0", *s.digests[number + 1 :]))


DIFFERENCES: dict[str, tuple[Callable[[Shared], Shared], str]] = {
    "version": (changed(version="9.9"), "and the driver has 9.9"),
    "no configuration": (
        changed(config_file="/nowhere/job.yaml"),
        "configuration /nowhere/job.yaml: cannot be read here",
    ),
    "configuration": (other(0), "configuration .* is another one here"),
    "no tokenizer": (without_tokenizer, "tokenizer.path: /nowhere/tokenizer: cannot be read here"),
    "tokenizer": (other(1), "tokenizer.path: .* is another one here"),
    "no source": (
        lambda s: dataclasses.replace(s, shard=s.shard.model_copy(update={"base": "/nowhere"})),
        "source.shards: /nowhere/.*: cannot be read here",
    ),
    "source": (other(2), "source.shards: .* is another one here"),
    "store": (
        changed(mark="probe-of-another-folder"),
        "tokenize.store: .*is another folder here than where the driver runs",
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_node_that_sees_something_else_says_what(shared: Shared, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("pipeline.jobs.work.shared._PATIENCE_SECONDS", 0.0)
    change, message = DIFFERENCES[name]
    found = change(shared).difference()
    assert re.search(message, found), found
