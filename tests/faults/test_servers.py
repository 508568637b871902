"""Object stores of other makers: a job, killed and resumed, ends in the digest of a local run."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml
from fixtures_servers import Server, ceph
from fixtures_store import COLLECTION, Job, make_job, vqtok, wait_for

from pipeline.files import files_at
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store", "fixtures_servers"]

SERVERS: dict[str, Callable[[Path], AbstractContextManager[Server]]] = {"ceph": ceph}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """One after the other, and this process's environment pointed at it."""
    folder = tmp_path / "server"
    folder.mkdir()
    with SERVERS[request.param](folder) as server:
        for variable in [name for name in os.environ if name.startswith(("AWS_", "AZURE_"))]:
            monkeypatch.delenv(variable)
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, value)
        yield server


@pytest.fixture
def job(server: Server, collection: Path, tokenizer_folder: Path, tmp_path: Path) -> Job:
    """A job whose source and store are on the server."""
    job = make_job(tmp_path / "job", collection, tokenizer_folder)
    for path in COLLECTION:
        files_at(f"{server.url}/source").put(path, (collection / path).read_bytes())
    tree = yaml.safe_load(job.file.read_text())
    source = f"{server.url}/source"
    tree["source"].update(shards=[f"{source}/train-*.tar", f"{source}/more/train-*.tar"], base=source)
    tree["tokenize"].update(store=f"{server.url}/store", claim_timeout=3)
    job.file.write_text(yaml.safe_dump(tree))
    return job


@pytest.mark.slow
def test_a_killed_job_is_resumed_to_the_digest_of_a_local_one(job: Job, server: Server, finished: Job) -> None:
    checked = vqtok("check", "--config", job.file, folder=job.output, environment=server.environment).wait()
    assert checked.status == 0, checked.out + checked.err
    store = files_at(f"{server.url}/store")
    assert store.stats("") == {}
    killed = job.start(environment=server.environment)
    wait_for(lambda: len(store.list("commits")) >= 2)
    killed.signal(signal.SIGKILL)
    killed.wait()
    children = [job.start(environment=server.environment) for _ in range(2)]
    assert [child.wait().status for child in children] == [0, 0]
    done = vqtok("verify", "--json", "--config", job.file, folder=job.output, environment=server.environment).wait()
    assert done.status == 0, done.out + done.err
    assert json.loads(done.out)["content_digest"] == finished.digest
    assert sorted(TokenStore(store.root).keys) == sorted(TokenStore(finished.store).keys)
    assert vqtok("clean", "--config", job.file, folder=job.output, environment=server.environment).wait().status == 0
