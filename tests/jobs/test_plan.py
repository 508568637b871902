"""What a configuration asks for, and what of it is done."""

import os
from pathlib import Path

import pytest
from fixtures_store import COLLECTION, IMAGE_SIZE, Job, make_job, save_tiny_tokenizer

from pipeline.errors import ConfigError, TokenizerError
from pipeline.files import LocalFiles
from pipeline.jobs.plan import is_finished, job_identity, make_plan, refuse_unwritable
from pipeline.models.tokenizers.registry import tokenizer_identity
from pipeline.source.find import part_name
from pipeline.store.schema import names

pytest_plugins = ["fixtures_store"]


def test_everything_is_pending_before_the_first_run(job: Job) -> None:
    plan = make_plan(job.config())
    assert [shard.path for shard in plan.pending] == sorted(COLLECTION, key=part_name)
    assert plan.planned == {part_name(path) for path in COLLECTION}
    size = sum((job.source / path).stat().st_size for path in COLLECTION)
    assert str(plan) == f"{job.store}: 6 of 6 source shards are pending, {size:,} bytes"
    assert not is_finished(plan, job.config())
    assert not job.store.exists()


def test_nothing_is_pending_after_the_last(finished: Job) -> None:
    plan = make_plan(finished.config())
    assert plan.pending == []
    assert plan.committed == plan.planned
    assert str(plan) == f"{finished.store}: all 6 source shards are committed"
    assert is_finished(plan, finished.config())


def test_pending_is_what_has_no_commit(damageable: Job) -> None:
    (damageable.store / f"commits/{part_name('train-0001.tar')}.json").unlink()
    plan = make_plan(damageable.config())
    assert [shard.path for shard in plan.pending] == ["train-0001.tar"]
    assert not is_finished(plan, damageable.config())


def test_a_job_is_not_finished_without_a_manifest_of_its_own_plan(damageable: Job) -> None:
    fewer = damageable.config("source.exclude=train-0001.tar")
    assert make_plan(fewer).pending == []
    assert not is_finished(make_plan(fewer), fewer)
    (damageable.store / "manifest.json").unlink()
    assert not is_finished(make_plan(damageable.config()), damageable.config())


def test_a_job_of_another_identity_is_not_finished(finished: Job) -> None:
    for override in ("tokenize.layout=raster", "image.resize=stretch", "source.label=null", "source.keep=[]"):
        config = finished.config(override)
        assert not is_finished(make_plan(config), config), override
    for override in ("tokenize.decode_workers=1", "tokenize.claim_timeout=5", "image.max_pixels=200000"):
        config = finished.config(override)
        assert is_finished(make_plan(config), config), override


def test_the_identity_is_all_that_decides_tokens_and_no_path(finished: Job, copied: Path, tmp_path: Path) -> None:
    identity = job_identity(finished.config())
    assert identity["tokenizer"] == tokenizer_identity(finished.tokenizer)
    assert identity["image"]["size"] == list(IMAGE_SIZE)
    assert (identity["layout"], identity["source"]["keep"]) == ("quadrants", ["txt"])
    same_weights = save_tiny_tokenizer(tmp_path / "tokenizer")
    assert job_identity(make_job(tmp_path / "elsewhere", copied, same_weights).config()) == identity
    for name in (finished.source, finished.tokenizer, finished.store):
        assert str(name) not in str(identity)


def test_a_plan_needs_source_shards_and_a_store_that_can_be_opened(job: Job) -> None:
    with pytest.raises(ConfigError, match="matches no file"):
        make_plan(job.config("source.shards=nowhere/*.tar", "source.base=null"))
    with pytest.raises(ConfigError, match="hdfs:// cannot be opened"):
        make_plan(job.config("tokenize.store=hdfs://host/store"))
    with pytest.raises(TokenizerError, match="no such tokenizer folder"):
        job_identity(job.config("tokenizer.path=nowhere"))


@pytest.mark.parametrize("name", names.WRITTEN)
def test_a_store_with_a_folder_of_another_user_is_refused_before_work_begins(
    name: str, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests run as root, too, who may write anywhere: so the system's answer is put in its place."""
    folder = copied / name
    folder.mkdir(parents=True, exist_ok=True)
    refuse_unwritable(LocalFiles(copied))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder)
    with pytest.raises(ConfigError, match=rf"cannot be written: no permission to write into {folder}; .*chmod -R g\+w"):
        refuse_unwritable(LocalFiles(copied))
