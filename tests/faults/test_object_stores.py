"""Source and store on an S3 server: the same digest as on a local disk, whatever happens on the way."""

import json
import os
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest
import yaml
from fixtures_remote import reconfigured
from fixtures_s3 import BUCKET, S3, Faults, Proxy
from fixtures_store import COLLECTION, ROWS, Child, Done, Job, vqtok, wait_for

from pipeline.files import files_at
from pipeline.jobs.showing import job as show
from pipeline.jobs.status import job as status
from pipeline.loader import TokenLoader
from pipeline.storage import storage_of
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store", "fixtures_s3", "fixtures_remote"]


def store_of(job: Job) -> str:
    return job.config().tokenize.store


def tokenize(job: Job, server: S3, *arguments: str) -> Child:
    return job.start(*arguments, environment=server.environment)


def assert_verified(job: Job, server: S3, finished: Job) -> None:
    """`vqtok verify` finds nothing wrong, and the digest of the local store."""
    done = vqtok("verify", "--json", "--config", job.file, folder=job.output, environment=server.environment).wait()
    assert done.status == 0, done.out + done.err
    report = json.loads(done.out)
    assert (report["content_digest"], report["samples"]) == (finished.digest, ROWS)


def assert_complete(job: Job, finished: Job) -> None:
    """Nothing lost, nothing doubled, the digest of the local store."""
    store = TokenStore(store_of(job))
    assert store.content_digest == finished.digest
    assert Counter(store.keys) == Counter(TokenStore(finished.store).keys)
    files = files_at(store_of(job))
    assert len(files.list("commits")) == len(COLLECTION)
    assert files.list("claims") == files.list("failures") == []  # whoever was killed


def test_the_store_is_that_of_a_local_run(
    remote: Job, s3: S3, finished: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = [tokenize(remote, s3) for _ in range(2)]
    assert [child.wait().status for child in children] == [0, 0]
    assert_verified(remote, s3, finished)
    assert_complete(remote, finished)
    files = files_at(store_of(remote))
    assert files.folders("") == ["commits", "rejects", "tokens.zarr"]  # no staging, no probe
    attempts = {f"{name.removesuffix('.json')}" for name in files.list("commits")}
    assert {name.rpartition(".")[0] for name in files.folders("tokens.zarr/parts")} == attempts

    local, there = TokenStore(finished.store), TokenStore(store_of(remote))
    rows = [0, len(local) - 1, 7]
    assert [block.tolist() for block in there.read(rows).idx_Bl] == [b.tolist() for b in local.read(rows).idx_Bl]
    assert sorted(key for batch in TokenLoader(there, batch_size=7) for key in batch.key) == sorted(local.keys)

    check_a_second_run(remote, s3)
    check_the_report(remote, tmp_path, monkeypatch)


def check_a_second_run(job: Job, server: S3) -> None:
    """It has nothing to do."""
    done = tokenize(job, server).wait()
    assert (done.status, done.out.strip()) == (
        0,
        f"{store_of(job)}: all 6 source shards are committed; nothing to do",
    )


def check_the_report(job: Job, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a distant store it is written here."""
    from pipeline.jobs.reporting import job as report

    monkeypatch.chdir(folder)
    made = report.run(job.config())
    assert made.html == f"{store_of(job).rpartition('/')[2]}-report/report.html"
    assert made.picture is not None
    assert Path(made.html).is_file() and Path(made.picture).is_file()
    assert f'TokenStore("{store_of(job)}")' in str(made)


def test_a_source_may_be_an_object_and_the_store_here(remote: Job, s3: S3, finished: Job, tmp_path: Path) -> None:
    job = reconfigured(remote, f"s3://{BUCKET}/source", str(tmp_path / "here"))
    assert tokenize(job, s3).wait().status == 0
    assert TokenStore(store_of(job)).content_digest == finished.digest


def test_a_source_may_be_here_and_the_store_of_objects(remote: Job, s3: S3, collection: Path, finished: Job) -> None:
    job = reconfigured(remote, str(collection), store_of(remote))
    assert tokenize(job, s3).wait().status == 0
    assert TokenStore(store_of(job)).content_digest == finished.digest


def test_a_web_server_is_a_source(remote: Job, s3: S3, finished: Job) -> None:
    base = f"http://127.0.0.1:{s3.port}/{BUCKET}/source"
    tree = yaml.safe_load(remote.file.read_text())
    tree["source"].update(shards=[f"{base}/train-{{0000..0003}}.tar", f"{base}/more/train-000{{0,4}}.tar"], base=base)
    remote.file.write_text(yaml.safe_dump(tree))
    assert tokenize(remote, s3).wait().status == 0
    assert TokenStore(store_of(remote)).content_digest == finished.digest


FAULTS = {
    "all of it, and slowly": Faults(drop=0.06, refuse=0.06, forget=0.06, cut=0.06, delay_s=0.01),
    "replies to commits are lost": Faults(forget=0.9, method="PUT", fragment="/commits/", at_most=12),
    "replies to claims are lost": Faults(forget=0.9, method="PUT", fragment="/claims/", at_most=12),
    "connections break": Faults(drop=0.2),
    "the server refuses": Faults(refuse=0.3),
    "answers are lost": Faults(forget=0.2),
    "answers are cut short": Faults(cut=0.2),
    "the reply to the birth is lost": Faults(forget=1.0, method="PUT", fragment="/store.json", at_most=1),
    "the reply to the manifest is lost": Faults(forget=1.0, method="PUT", fragment="/manifest.json", at_most=2),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if place > 0 else []) for place, name in enumerate(FAULTS)]
)
def test_a_bad_network_changes_nothing(name: str, remote: Job, s3: S3, proxy: Proxy, finished: Job) -> None:
    proxy.faults = FAULTS[name]
    children = [tokenize(remote, proxy.s3) for _ in range(2)]
    results = [child.wait() for child in children]
    assert [done.status for done in results] == [0, 0], results
    assert sum(proxy.faults.happened.values()) >= 1
    assert_verified(remote, s3, finished)
    assert_complete(remote, finished)


def test_lists_that_lag_behind_change_nothing(remote: Job, s3: S3, proxy: Proxy, finished: Job) -> None:
    proxy.faults = Faults(stale_s=3600)
    results = [child.wait() for child in [tokenize(remote, proxy.s3) for _ in range(2)]]
    assert [done.status for done in results] == [0, 0], results
    assert_verified(remote, proxy.s3, finished)
    assert tokenize(remote, proxy.s3).wait().status == 0
    reached = {"endpoint": proxy.s3.environment["AWS_ENDPOINT_URL"]}
    seen = status.run(remote.config(f"tokenize.storage={reached}"))
    assert (seen.complete, seen.done, seen.written, seen.damaged) == (True, len(COLLECTION), ROWS, [])
    whole = TokenStore(store_of(remote), partial=True, storage=reached)
    assert len(whole) == ROWS
    assert len(show.run(store_of(remote), whole.keys[0], storage=storage_of(reached)).rows) == 1
    proxy.faults = Faults()
    assert_complete(remote, finished)


def test_source_shards_that_are_gone_are_reported(remote: Job, s3: S3) -> None:
    source, names = f"{store_of(remote)}-source", ["train-0000.tar", "train-0001.tar"]
    for name in names:
        files_at(source).put(name, files_at(f"s3://{BUCKET}/source").read(name))
    job = reconfigured(remote, source, store_of(remote))
    only_here = f"source.shards={source}/train-*.tar"
    assert tokenize(job, s3, "--set", only_here).wait().status == 0
    files_at(source).delete(names[0])
    done = tokenize(job, s3, "--set", only_here).wait()
    assert done.status == 0
    assert "1 committed part is of a source shard that this configuration does not name" in done.out + done.err
    assert len(status.run(job.config(only_here)).unplanned) == 1


STEPS = {
    "/store.json": "",
    "/codebook/c/": "",
    "/tokens.zarr/zarr.json": "",
    "/claims/": "",
    "/tokens/zarr.json": "",
    "/tokens/c/": "",
    "/rejects/": "",
    "/commits/": "after",
    "/manifest.json": "",
}
"""Kinds of writes, and the moments of each that the short run tries."""


@pytest.mark.parametrize(
    ("step", "moment"),
    [
        pytest.param(step, moment, marks=[] if moment in short else pytest.mark.slow)
        for step, short in STEPS.items()
        for moment in ("before", "after")
    ],
)
def test_a_kill_at_any_write_is_made_good_by_the_next_run(
    step: str, moment: str, remote: Job, s3: S3, proxy: Proxy, finished: Job
) -> None:
    killed: list[str] = []
    child: list[Child] = []
    ready = threading.Event()

    def watch(method: str, path: str, forwarded: bool) -> None:
        if method == "PUT" and step in path and forwarded == (moment == "after") and not killed:
            ready.wait(60)
            killed.append(path)
            child[0].signal(signal.SIGKILL)

    proxy.faults = Faults(watch=watch)
    child.append(tokenize(remote, proxy.s3))
    ready.set()
    assert child[0].wait().status == -signal.SIGKILL
    assert len(killed) == 1
    assert tokenize(remote, s3).wait().status == 0
    assert_verified(remote, s3, finished)
    assert_complete(remote, finished)


@pytest.mark.slow
def test_a_frozen_process_that_wakes_up_late_does_no_harm(remote: Job, s3: S3, proxy: Proxy, finished: Job) -> None:
    child: list[Child] = []
    frozen, ready = threading.Event(), threading.Event()

    def watch(method: str, path: str, forwarded: bool) -> None:
        if method == "PUT" and "/commits/" in path and not forwarded and not frozen.is_set():
            ready.wait(60)
            child[0].signal(signal.SIGSTOP)
            frozen.set()
            wait_for(lambda: bool(thawed), 120)

    thawed: list[bool] = []
    proxy.faults = Faults(watch=watch)
    child.append(tokenize(remote, proxy.s3))
    ready.set()
    assert frozen.wait(60)
    assert tokenize(remote, s3, "--set", "tokenize.claim_timeout=1").wait().status == 0
    swept = vqtok("clean", "--config", remote.file, folder=remote.output, environment=s3.environment).wait()
    assert swept.status == 0, swept.err
    thawed.append(True)  # its commit goes on to the server
    child[0].signal(signal.SIGCONT)
    assert child[0].wait().status == 0
    assert_verified(remote, s3, finished)
    assert_complete(remote, finished)


def test_a_server_without_conditional_writes_is_refused_at_birth(remote: Job, s3: S3, proxy: Proxy) -> None:
    proxy.faults = Faults(ignore_conditions=True)
    done = tokenize(remote, proxy.s3).wait()
    assert done.status == 1
    assert "this place overwrites where a file should only be created (PUT with If-None-Match: *)" in done.err
    assert files_at(store_of(remote)).stats("") == {}


def refused(job: Job, server: S3, **environment: str) -> Done:
    """A run that ends in a message, without a traceback."""
    done = job.start(environment={**server.environment, **environment}).wait()
    assert done.status in (1, 2)
    assert "Traceback" not in done.err
    assert len(done.err.strip().splitlines()) == 1, done.err
    return done


def test_a_bucket_that_is_not_there_is_named(remote: Job, s3: S3, uploaded: str) -> None:
    reconfigured(remote, uploaded, "s3://no-such-bucket/store")
    assert "no-such-bucket" in refused(remote, s3).err


def test_missing_and_replaced_objects_are_named(remote: Job, s3: S3, uploaded: str) -> None:
    reconfigured(remote, f"{uploaded}/nothing-here", store_of(remote))
    assert "matches no file" in refused(remote, s3).err

    path = f"/{BUCKET}/changing/train-0.tar"
    data = s3.request("GET", f"/{BUCKET}/source/train-0000.tar")
    s3.request("PUT", path, data)
    job = reconfigured(remote, f"s3://{BUCKET}/changing", store_of(remote))
    tree = yaml.safe_load(job.file.read_text())
    tree["source"]["shards"] = [f"s3://{BUCKET}/changing/*.tar"]
    job.file.write_text(yaml.safe_dump(tree))
    assert tokenize(job, s3).wait().status == 0
    s3.request("PUT", path, data)  # the same contents again
    assert tokenize(job, s3).wait().status == 0
    s3.request("PUT", path, data[:600] + b"x" + data[601:])
    assert "train-0.tar: of the same size, with other contents" in refused(job, s3).err
    s3.request("PUT", path, data + bytes(10240))
    assert "source shards were replaced after they were committed" in refused(job, s3).err


def tokenize_without_credentials(arguments: list[str]) -> None:
    """In a child: whoever runs the tests, and the first of them, may have some."""
    from pipeline.cli import main

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(AWS_EC2_METADATA_DISABLED="true", HOME="/nonexistent")
    main(["tokenize", *arguments])


def test_without_credentials_the_message_says_where_they_are_looked_for(remote: Job, s3: S3) -> None:
    done = Child(tokenize_without_credentials, ["--config", str(remote.file)], folder=remote.output).wait()
    assert done.status == 2
    assert "no credentials in the environment (AWS_ACCESS_KEY_ID, ...), in ~/.aws or of this machine" in done.err
