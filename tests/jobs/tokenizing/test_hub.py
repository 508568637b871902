"""A private data set of the hub: tokenized, resumed and verified as the same files on a disk; its token never shown."""

import json
import shutil
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fixtures_hub import TOKEN, Hub
from fixtures_store import Halt, Job, all_files, good_samples, make_job, vqtok

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError, VqtokError
from pipeline.files import files_at
from pipeline.source.find import find_source_shards
from pipeline.storage import Storage

pytest_plugins = ["fixtures_store", "fixtures_hub"]

NAMES = ("train-00000.parquet", "train-00001.parquet", "train-00002.parquet")


def write_parquet(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        samples = good_samples(100 * number, 9 + number)
        table = {
            "image": [{"bytes": members["jpg"], "path": f"{key}.jpg"} for key, members in samples],
            "label": [int(members["cls"]) for _, members in samples],
        }
        pq.write_table(pa.table(table), folder / name, row_group_size=4)


def job_over(source: Mapping[str, object], folder: Path, tokenizer: Path) -> Job:
    job = make_job(folder, folder, tokenizer)
    tree = yaml.safe_load(job.file.read_text())
    tree["source"] = dict(source)
    job.file.write_text(yaml.safe_dump(tree))
    return job


@pytest.fixture
def local(hub: Hub, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A finished job over the files of the data set."""
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    write_parquet(hub.folder / "data")
    (hub.folder / "README.md").write_text("# Photographs")
    job = job_over({"shards": f"{hub.folder}/data/train-*.parquet"}, tmp_path / "local", tokenizer_folder)
    assert job.run().complete
    return job


@pytest.fixture
def remote(hub: Hub, local: Job, tokenizer_folder: Path, tmp_path: Path) -> Job:
    """A job over the same on the hub."""
    source = {"shards": f"{hub.url}/data/train-*.parquet", "storage": {"endpoint": hub.endpoint}}
    return job_over(source, tmp_path / "remote", tokenizer_folder)


def test_the_same_tokens_come_of_it(hub: Hub, local: Job, remote: Job) -> None:
    hub.unavailable = 1
    assert remote.run().complete
    assert remote.digest == local.digest
    assert hub.leaks == []
    assert not any(TOKEN.encode() in data for data in all_files(remote.store).values())
    contents = Counter(line.split()[2] for line in hub.asked if " contents " in line)
    assert max(contents.values()) <= 5, "footer, keys, rows, digest, and one that was refused"


def test_a_file_that_was_replaced_is_refused(hub: Hub, remote: Job) -> None:
    assert remote.run().complete
    shutil.copy(hub.folder / "data" / NAMES[0], hub.folder / "data" / NAMES[1])
    with pytest.raises(VqtokError, match="source shards were replaced after they were committed"):
        remote.run()


def test_it_is_seen_that_a_file_changes_while_it_is_read(hub: Hub, remote: Job) -> None:
    files = files_at(f"{hub.url}/data", Storage(endpoint=hub.endpoint))
    before = files.stat(NAMES[0])
    shutil.copy(hub.folder / "data" / NAMES[1], hub.folder / "data" / NAMES[0])
    assert files.stat(NAMES[0]).version != before.version


@pytest.mark.parametrize("token", ["", "hf_another"])
def test_a_data_set_that_one_may_not_see(
    token: str, hub: Hub, remote: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    source = SourceConfig(shards=(f"{hub.url}/data/*.parquet",), storage=Storage(endpoint=hub.endpoint))
    with pytest.raises(ConfigError, match=r"HF_TOKEN: 'hf://datasets/me/photos/data'") as refused:
        find_source_shards(source)
    assert "hf_another" not in str(refused.value)


@pytest.mark.slow
def test_killed_resumed_and_verified_by_commands(hub: Hub, local: Job, remote: Job) -> None:
    killed = remote.start(environment=hub.environment, halt=Halt("os.link", "/commits/", 2)).wait()
    assert killed.status == -signal.SIGKILL
    hub.unavailable = 2
    said = [remote.start(environment=hub.environment).wait()]
    assert said[0].status == 0, said[0].err
    assert remote.digest == local.digest
    for command in (["status"], ["verify", "--json"], ["check"], ["verify", "--quick"]):
        done = vqtok(*command, "--config", remote.file, folder=remote.output, environment=hub.environment).wait()
        assert done.status == 0, done.out + done.err
        said.append(done)
    assert json.loads(said[2].out)["content_digest"] == local.digest
    assert not any(TOKEN in done.out + done.err for done in said)
