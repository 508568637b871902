"""`vqtok estimate` held against whole runs."""

import json
import os
import signal
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures_store import BATCH_SIZE, Job, good_samples, make_job, vqtok, write_shard

from pipeline.cli import main
from pipeline.errors import SourceError
from pipeline.jobs.estimating import job as estimate
from pipeline.jobs.estimating import measuring

pytest_plugins = ["fixtures_store"]


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def varied(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job over source shards of different lengths that nobody has begun."""
    folder = tmp_path_factory.mktemp("varied")
    for number, count in enumerate((90, 60, 120)):
        write_shard(folder / f"train-{number}.tar", good_samples(1000 * number, count))
    return make_job(folder / "job", folder, tokenizer_folder, {"source.shards": f"{folder}/train-*.tar"})


def test_beginnings_tell_what_a_whole_run_writes(varied: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring._Limits, "are_reached", lambda limits, samples, began: samples >= 48)
    found = estimate.run(varied.config(), processes=2, seconds=60)
    assert not varied.store.exists()
    assert [look.samples for look in found.measured.looks] == [48, 48, 48]
    assert not found.is_counted
    assert varied.run().complete
    assert found.rows == pytest.approx(270, rel=0.1)
    assert found.store_bytes == pytest.approx(bytes_of(varied.store), rel=0.1)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_told_to_end_leaves_no_folder_behind(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()

    def told(*arguments: object) -> None:
        assert list((tmp_path / "tmp").glob("vqtok-estimate-*/store/store.json"))
        os.kill(os.getpid(), signum)

    monkeypatch.setattr(measuring, "tokenize_all", told)
    with pytest.raises(SystemExit):
        estimate.run(job.config(), seconds=0)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_of_slow_tokenizers_a_batch_is_enough(job: Job) -> None:
    found = estimate.run(job.config(), seconds=0)
    assert [look.samples for look in found.measured.looks] == [BATCH_SIZE]
    assert found.images_per_second > 0


def test_whole_source_shards_are_counted_and_rejects_are_too(job: Job, finished: Job) -> None:
    result = CliRunner().invoke(main, ["estimate", "--config", str(job.file), "--seconds", "60", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    commits = finished.commits.values()
    assert found["samples_counted"]
    assert found["samples"] == sum(commit["seen"] for commit in commits)
    assert found["rows"] == sum(commit["written"] for commit in commits)
    assert found["store_bytes"] == pytest.approx(bytes_of(finished.store), rel=0.1)
    assert found["images_per_second"] > 0


def test_a_collection_that_cannot_be_read_is_refused(copied: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", copied, tokenizer_folder, {"source.shards": f"{copied}/train-0001.tar"})
    with (copied / "train-0001.tar").open("r+b") as file:
        file.truncate(700)
    with pytest.raises(SourceError, match=r"train-0001\.tar"):
        estimate.run(job.config(), seconds=5.0)


@pytest.mark.slow
def test_the_sample_set(tokenizer_folder: Path, tmp_path: Path) -> None:
    assert vqtok("sample", tmp_path / "sample", folder=tmp_path).wait().status == 0
    shards = {"source.shards": f"{tmp_path}/sample/photos-*.tar", "image.size": 64}
    job = make_job(tmp_path / "job", tmp_path / "sample", tokenizer_folder, shards)
    found = estimate.run(job.config("source.keep=[]", "tokenize.batch_size=64"), seconds=5.0)
    assert job.run("source.keep=[]", "tokenize.batch_size=64").complete
    assert found.store_bytes == pytest.approx(bytes_of(job.store), rel=0.1)
