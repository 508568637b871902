"""Whoever stands alone compares the whole source; whom another has started leaves it to that one."""

import shutil
from pathlib import Path

import pytest
from fixtures_replaced import OTHER_CONTENTS, PART, SHARD, replace
from fixtures_store import Job, all_files, save_tiny_tokenizer

from pipeline.errors import CorruptStore, SourceError, StoreError
from pipeline.jobs.status import job as status
from pipeline.jobs.tokenizing.checked import checked_plan
from pipeline.jobs.work.siblings import new_siblings
from pipeline.store import TokenStore

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


def test_half_a_copy_is_not_begun_anew(damageable: Job, tmp_path: Path) -> None:
    """rsync goes by the alphabet: commits are there, store.json and the arrays are not."""
    (damageable.store / "store.json").unlink()
    shutil.rmtree(damageable.store / "tokens.zarr")
    (damageable.store / "manifest.json").unlink()
    before = all_files(damageable.store)
    other = save_tiny_tokenizer(tmp_path / "other", seed=1)
    for overrides in ([], [f"tokenizer.path={other}"], ["source.exclude=train-0000.tar"]):
        with pytest.raises(CorruptStore, match=r"store\.json: missing, though 6 parts are committed: finish copying"):
            damageable.run(*overrides)
    assert all_files(damageable.store) == before
    with pytest.raises(StoreError, match="finish copying the store"):
        TokenStore(damageable.store)


@pytest.mark.parametrize("gone", ["one", "all"])
def test_records_that_are_gone_are_not_made_anew_behind_the_manifest(damageable: Job, gone: str) -> None:
    """Readers would go on reading the parts of before, and nobody be told."""
    for path in (
        [damageable.store / f"commits/{PART}.json"] if gone == "one" else (damageable.store / "commits").iterdir()
    ):
        path.unlink()
    with pytest.raises(
        CorruptStore, match=rf"commits: {1 if gone == 'one' else 6} of the records .* are gone.*delete manifest"
    ):
        damageable.run()
    (damageable.store / "manifest.json").unlink()
    assert damageable.run().complete
    assert len(TokenStore(damageable.store)) > 0


def test_a_manifest_of_another_time_is_not_gone_on_from(damageable: Job) -> None:
    """As a copy of older records over a store leaves it."""
    manifest = (damageable.store / "manifest.json").read_bytes()
    (damageable.store / "manifest.json").unlink()
    (damageable.store / f"commits/{PART}.json").unlink()
    assert damageable.run().complete
    (damageable.store / "manifest.json").write_bytes(manifest)
    (damageable.source / "train-0000.tar").unlink()
    with pytest.raises(CorruptStore, match=rf"manifest\.json: not as commits/{PART}\.json says; delete it"):
        damageable.run()


@pytest.mark.parametrize("has_manifest", [True, False])
def test_a_copy_that_lacks_arrays_is_not_called_complete(damageable: Job, has_manifest: bool) -> None:
    """One that was broken off, or made while a job was at work: its records came before their arrays."""
    (folder,) = damageable.store.glob(f"tokens.zarr/parts/{PART}.*")
    shutil.move(folder, damageable.output / "elsewhere")
    if not has_manifest:
        (damageable.store / "manifest.json").unlink()
    said = rf"parts/{folder.name}: missing, with the arrays of 1 committed .*finish copying .*commits/{PART}\.json"
    with pytest.raises(CorruptStore, match=said):
        damageable.run()
    assert (damageable.store / "manifest.json").exists() == has_manifest
    result = status.run(damageable.config())
    assert not result.complete and len(result.damaged) == has_manifest
    shutil.move(damageable.output / "elsewhere", folder)
    assert damageable.run().complete
    assert status.run(damageable.config()).complete
