"""`vqtok verify --rate`: which rows are encoded again, and what becomes of those that differ."""

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from damage import CHUNK, SHARD, commit_in_its_place, inside, verified, with_other_tokens
from fixtures_store import COLLECTION, ROWS, Job, write_shard

from pipeline.jobs.verifying.commits import percent
from pipeline.jobs.verifying.reencoding import choose_batches, encode_again
from pipeline.source.containers.tar.strict import StrictTar
from pipeline.store.schema.commits import CommitRecord

pytest_plugins = ["fixtures_store"]


def test_tokens_of_another_machine_may_differ_a_little(damageable: Job) -> None:
    other = {"precision": "fp32", "device": "another", "batch_size": 3}
    commit_in_its_place(damageable, SHARD, lambda shard: replace(with_other_tokens(shard), execution=other))
    result = verified(damageable, rate=1)
    assert result.problems == []
    assert result.rows_that_differ == 10
    assert result.token_agreement == pytest.approx(1 - 10 / (24 * ROWS))
    (warning,) = result.warnings
    # One token of 24 in each row.
    assert warning.startswith("10 of 10 rows differ when encoded again, 95.8333% of their tokens agree; ")
    assert re.search(
        r'made in another way: device: "\w.*" here, "another" there; images_at_once: \d+ here, null there; versions',
        warning,
    )
    assert "batch_size" not in warning
    assert f"{ROWS} rows encoded again, 10 differ; {percent(1 - 10 / (24 * ROWS))} of their tokens agree" in str(result)


def test_tokens_of_another_machine_may_be_the_same(damageable: Job) -> None:
    other = {"precision": "fp32", "device": "another"}
    commit_in_its_place(damageable, SHARD, lambda shard: replace(shard, execution=other))
    result = verified(damageable, rate=1)
    assert (result.problems, result.warnings, result.token_agreement) == ([], [], 1)


def test_a_part_is_encoded_again_in_batches_of_its_own_size(damageable: Job) -> None:
    """The configuration may have changed since; what counts is what the record says."""
    result = verified(damageable, "tokenize.batch_size=3", rate=1)
    assert (result.problems, result.warnings) == ([], [])
    assert (result.rows_encoded_again, result.rows_that_differ) == (ROWS, 0)
    commit_in_its_place(damageable, SHARD, with_other_tokens)
    (problem,) = verified(damageable, "tokenize.batch_size=3", rate=1).problems
    assert "10 of 10 rows differ when encoded again, though in the way in which they were made" in problem


def test_nothing_is_encoded_again_where_there_are_problems(damageable: Job) -> None:
    inside(damageable, CHUNK).unlink()
    result = verified(damageable, rate=1)
    assert (len(result.problems), result.rows_encoded_again, result.token_agreement) == (1, 0, None)
    assert result.warnings == ["nothing was encoded again: see to the problems first"]


def commit_of_rows(part: str, rows: int, **execution: object) -> CommitRecord:
    return CommitRecord.model_construct(part=part, written=rows, execution=execution)


def test_batches_are_drawn_from_the_whole_store() -> None:
    commits = [commit_of_rows(f"part{number:03d}", number % 7 * 10, batch_size=8) for number in range(100)]
    rows = sum(commit.written for commit in commits)
    everything = choose_batches(commits, 1, 99, "seed")
    assert sum(len(batch) for batches in everything.values() for batch in batches) == rows
    assert max(len(batch) for batches in everything.values() for batch in batches) == 8
    for commit in commits:
        assert [row for batch in everything.get(commit.part, []) for row in batch] == [*range(commit.written)]
    for rate in (1e-9, 0.01, 0.1, 0.5):
        chosen = choose_batches(commits, rate, 99, "seed")
        assert chosen == choose_batches(commits, rate, 99, "seed")
        count = sum(len(batches) for batches in chosen.values())
        assert count == max(1, -(-rate * sum(map(len, everything.values())) // 1))
        for part, batches in chosen.items():
            assert all(batch in everything[part] for batch in batches)
            assert [batch.start for batch in batches] == sorted({batch.start for batch in batches})
    assert choose_batches(commits, 0.1, 99, "seed") != choose_batches(commits, 0.1, 99, "another")
    spread = [int(part.removeprefix("part")) for part in choose_batches(commits, 0.1, 99, "seed")]
    assert max(after - before for before, after in pairwise(spread)) <= 25


def test_records_without_a_batch_size_have_that_of_the_configuration() -> None:
    for execution in ({}, {"batch_size": 0}, {"batch_size": "many"}):
        assert choose_batches([commit_of_rows("p", 10, **execution)], 1, 4, "") == {
            "p": [range(4), range(4, 8), range(8, 10)]
        }


def test_a_store_without_rows_has_no_batches() -> None:
    assert choose_batches([], 1, 4, "") == {}
    assert choose_batches([commit_of_rows("p", 0)], 1, 4, "") == {}


def test_a_source_shard_is_read_once_for_all_its_batches(finished: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    begin = StrictTar.__init__

    def counted(tar: StrictTar, stream: Any, location: str, *options: Any, **settings: Any) -> None:
        opened.append(location)
        begin(tar, stream, location, *options, **settings)

    config = finished.config()
    result = verified(finished)
    monkeypatch.setattr(StrictTar, "__init__", counted)
    encode_again(config, result, 1, show_progress=False)
    # All but the empty one.
    assert sorted(opened) == sorted(f"{finished.source}/{path}" for path, samples in COLLECTION.items() if samples)


def test_an_image_that_became_bad_fails_its_batch(damageable: Job) -> None:
    """As after a source shard was replaced while it was verified: the rows behind it must not move up."""
    config = damageable.config()
    result = verified(damageable)
    samples = COLLECTION["train-0000.tar"]
    bad = [(key, {**members, "jpg": b"no image"} if key == "000009" else members) for key, members in samples]
    write_shard(damageable.source / "train-0000.tar", bad)
    encode_again(config, result, 1, show_progress=False)
    (problem,) = result.problems
    assert "train-0000.tar: not the images that were tokenized" in problem
    assert result.rows_encoded_again == ROWS - 12
    assert result.rows_that_differ == 0
