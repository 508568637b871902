"""A store that holds parts of another set of source shards."""

import json
import re
import shutil
from pathlib import Path

import pytest
from fixtures_store import Job, all_files, good_samples, vqtok, write_shard

from pipeline.errors import StoreError

pytest_plugins = ["fixtures_store"]


@pytest.fixture
def other(damageable: Job, tmp_path: Path) -> list[str]:
    """Options that name one source shard that the store knows nothing of."""
    write_shard(tmp_path / "mine/mine-0000.tar", good_samples(500, 3))
    return ["--set", f"source.shards={tmp_path}/mine/*.tar", "--set", "source.base=null"]


def tokenize(job: Job, *options: str) -> tuple[int, str, str]:
    done = vqtok("tokenize", "--no-progress", "--config", job.file, *options, folder=job.output).wait()
    return done.status, done.out, done.err


def test_another_set_is_refused_unless_it_is_asked_for(damageable: Job, other: list[str]) -> None:
    before = all_files(damageable.store)
    for options in (other, [*other, "--processes", "2"]):
        status, out, err = tokenize(damageable, *options)
        assert (status, out) == (1, "")
        assert err.startswith(f"vqtok: {damageable.store}: holds 6 committed parts, none of them of the source shards")
        assert "--allow-other-sources" in err and err.count("\n") == 1
    with pytest.raises(StoreError, match="none of them"):
        damageable.run(*(override for override in other if override != "--set"))
    assert all_files(damageable.store) == before

    note = f"{damageable.store}: 6 committed parts are of source shards that this configuration does not name; readers "
    note += "read their rows all the same\n"
    status, out, err = tokenize(damageable, *other, "--allow-other-sources")
    assert (status, err) == (0, note + note)  # at its start and at its end
    assert "1 of 1 source shards are committed" in out
    status, out, err = tokenize(damageable, *other)
    assert (status, err) == (0, note)
    assert "nothing to do" in out


def test_a_set_that_moves_on_needs_no_word(damageable: Job) -> None:
    (damageable.source / "train-0000.tar").unlink()
    write_shard(damageable.source / "train-0009.tar", good_samples(600, 3))
    status, _, err = tokenize(damageable)
    note = f"{damageable.store}: 1 committed part is of a source shard that this configuration does not name; readers "
    note += "read its rows all the same\n"
    assert (status, err) == (0, note + note)
    assert len(json.loads((damageable.store / "manifest.json").read_text())["parts"]) == 7


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_source_shard_of_another_name_is_not_taken_in_twice(damageable: Job, is_finished: bool) -> None:
    if not is_finished:
        (damageable.store / "manifest.json").unlink()
    (damageable.source / "train-0003.tar").rename(damageable.source / "train-0009.tar")
    before = all_files(damageable.store)
    status, _, err = tokenize(damageable)
    assert status == 1
    assert re.search(
        r"1 of the source shards are committed under other names.*train-0009\.tar is what train-0003\.tar", err
    )
    assert all_files(damageable.store) == before
    assert damageable.run("source.exclude=train-0009.tar").complete
    status, _, err = tokenize(damageable, "--allow-other-sources")
    assert status == 0 and "readers read its rows all the same" in err


def test_a_copy_that_is_named_beside_its_original_is_the_users_own(damageable: Job) -> None:
    shutil.copy(damageable.source / "train-0003.tar", damageable.source / "train-0009.tar")
    (damageable.source / "train-0000.tar").unlink()
    assert damageable.run().complete
