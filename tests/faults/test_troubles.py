"""Every job x every trouble of an object store: the same results as on a local disk, and none of it by luck.

In this process, source and store through a proxy of their own `storage` section.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures_s3 import BUCKET, EXPIRED, S3, SLOW_DOWN, Faults, Proxy
from fixtures_store import COLLECTION, ROWS, Job

from pipeline.config import Config
from pipeline.errors import StoreError, VqtokError
from pipeline.files import files_at
from pipeline.jobs.exporting import job as exporting
from pipeline.jobs.exporting.request import Request
from pipeline.jobs.status import job as status
from pipeline.jobs.status.table import status_table
from pipeline.jobs.tokenizing import job as tokenizing
from pipeline.jobs.verifying.commits import check_commits
from pipeline.jobs.verifying.contents import check_contents
from pipeline.loader import TokenLoader
from pipeline.store import TokenStore

pytest_plugins = ["fixtures_store", "fixtures_s3", "fixtures_remote"]

Check = Callable[[Config, Job, Path], None]


def tokenize(config: Config, finished: Job, folder: Path) -> None:
    assert tokenizing.run(config, show_progress=False).complete
    store = TokenStore(config.tokenize.store)  # without the proxy
    assert (store.content_digest, len(store)) == (finished.digest, ROWS)
    assert files_at(config.tokenize.store).list("failures") == []


def verify(config: Config, finished: Job, folder: Path) -> None:
    result = check_commits(config)
    check_contents(config, result, show_progress=False)
    assert (result.problems, result.content_digest) == ([], finished.digest)


def export(config: Config, finished: Job, folder: Path) -> None:
    for name, store, storage in (
        ("there", config.tokenize.store, config.tokenize.storage),
        ("here", str(finished.store), None),
    ):
        exporting.run(store, folder / name, Request(format="npy"), storage=storage)
    for name in ("tokens.npy", "labels.npy", "keys.txt"):
        assert (folder / "there" / name).read_bytes() == (folder / "here" / name).read_bytes()


def load(config: Config, finished: Job, folder: Path) -> None:
    store = TokenStore(config.tokenize.store, storage=config.tokenize.storage)
    rows = [
        (key, int(label), [block[i].tolist() for block in batch.idx_Bl])
        for batch in TokenLoader(store, batch_size=7, shuffle=True, seed=1)
        for i, (key, label) in enumerate(zip(batch.key, batch.label, strict=True))
    ]
    local = [
        (key, int(label), [block[i].tolist() for block in batch.idx_Bl])
        for batch in TokenLoader(TokenStore(finished.store), batch_size=7, shuffle=True, seed=1)
        for i, (key, label) in enumerate(zip(batch.key, batch.label, strict=True))
    ]
    assert rows == local


def look(config: Config, finished: Job, folder: Path) -> None:
    seen = status.run(config)
    assert (seen.complete, seen.done, seen.written, seen.gave_up) == (True, len(COLLECTION), ROWS, None)


JOBS: dict[str, Check] = {"tokenize": tokenize, "verify": verify, "export": export, "load": load, "status": look}

TROUBLES: dict[str, Callable[[], Faults]] = {
    "an outage": lambda: Faults(refuse=1.0, answer=SLOW_DOWN, after=6, for_s=1.5),
    "keys end": lambda: Faults(keys_end={"one": time.monotonic() + 0.3}, keys_answer=EXPIRED, latency_s=0.02),
    "503s": lambda: Faults(refuse=0.3, answer=SLOW_DOWN),
    "resets": lambda: Faults(reset=0.2),
    "cut bodies": lambda: Faults(cut=0.2),
    "lost replies": lambda: Faults(forget=0.2),
    "latency": lambda: Faults(latency_s=0.04),
}

IN_SHORT = {("tokenize", "an outage"), ("tokenize", "keys end"), ("load", "an outage")}


@pytest.fixture(scope="session")
def stored(uploaded: str, finished: Job, s3_server: S3) -> str:
    """A finished store of the collection as objects; its URL."""
    url = f"s3://{BUCKET}/stored"
    with pytest.MonkeyPatch.context() as environment:
        for name, value in s3_server.environment.items():
            environment.setenv(name, value)
        config = finished.config(
            f"source.shards=[{uploaded}/train-*.tar, {uploaded}/more/train-*.tar]",
            f"source.base={uploaded}",
            f"tokenize.store={url}",
        )
        assert tokenizing.run(config, show_progress=False).complete
    return url


@pytest.fixture
def profile(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """A profile whose program gives out the key `one`, and `two` from the second time on."""
    script, flag = tmp_path / "give.sh", tmp_path / "later"
    answer = {"Version": 1, "SecretAccessKey": "s", "SessionToken": "t", "Expiration": "2099-01-01T00:00:00Z"}
    one, two = (json.dumps({**answer, "AccessKeyId": key}) for key in ("one", "two"))
    script.write_text(f"#!/bin/sh\nif [ -e {flag} ]; then echo '{two}'; else touch {flag}; echo '{one}'; fi\n")
    script.chmod(0o755)
    (tmp_path / "aws").write_text(f"[profile ending]\ncredential_process = {script}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    return "ending"


@pytest.mark.parametrize(
    ("job", "trouble"),
    [
        pytest.param(job, trouble, marks=[] if (job, trouble) in IN_SHORT else pytest.mark.slow)
        for job in JOBS
        for trouble in TROUBLES
    ],
)
def test_a_job_in_trouble_comes_to_the_same(
    job: str,
    trouble: str,
    remote: Job,
    stored: str,
    s3: S3,
    proxy: Proxy,
    profile: str,
    finished: Job,
    tmp_path: Path,
) -> None:
    endpoint = proxy.s3.environment["AWS_ENDPOINT_URL"]
    storage = f"{{endpoint: {endpoint!r}, profile: {profile}, patience_s: 60}}"
    place = [] if job == "tokenize" else [f"tokenize.store={stored}"]
    config = remote.config(f"source.storage={storage}", f"tokenize.storage={storage}", *place)
    proxy.faults = faults = TROUBLES[trouble]()
    JOBS[job](config, finished, tmp_path)
    assert proxy.asked, "the section was not heeded"
    assert sum(faults.happened.values()) or faults.keys_end or faults.latency_s or job == "status"


def test_source_and_store_are_reached_each_in_its_own_way(
    remote: Job, s3: S3, proxy: Proxy, finished: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    second = Proxy(proxy._upstream, Faults())
    try:
        config = remote.config(
            f"source.storage.endpoint=http://127.0.0.1:{proxy.s3.port}",
            f"tokenize.storage.endpoint=http://127.0.0.1:{second.s3.port}",
        )
        assert tokenizing.run(config, show_progress=False).complete
        store = TokenStore(config.tokenize.store, storage={"endpoint": f"http://127.0.0.1:{second.s3.port}"})
        assert store.content_digest == finished.digest
        assert not any(asked.operation.startswith("PutObject") for asked in proxy.asked)
        assert not any("/source/" in asked.path for asked in second.asked)
    finally:
        second.close()


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (
            Faults(refuse=1.0, answer=(403, "AccessDenied", "No."), operation="PutObject"),
            "PUT: 403 AccessDenied: No.; ",
        ),
        (Faults(refuse=1.0, answer=SLOW_DOWN, fragment="/commits/", method="PUT"), "PUT: 503 SlowDown"),
    ],
    ids=["denied", "down"],
)
def test_a_job_that_gives_up_says_why_soon_and_status_knows(
    remote: Job, s3: S3, proxy: Proxy, faults: Faults, words: str
) -> None:
    reached = f"tokenize.storage={{endpoint: 'http://127.0.0.1:{proxy.s3.port}', patience_s: 1}}"
    proxy.faults = faults
    started = time.monotonic()
    with pytest.raises(StoreError, match=words) as raised:
        tokenizing.run(remote.config(reached), show_progress=False)
    assert time.monotonic() - started < 25
    assert "what is committed stays" in str(raised.value)
    if faults.fragment:
        seen = status.run(remote.config())
        assert seen.gave_up is not None and words in seen.gave_up.reason
        assert "gave up at " in status_table(seen)
        assert tokenizing.run(remote.config(), show_progress=False).complete
        assert status.run(remote.config()).gave_up is None


def test_a_source_that_does_not_answer_is_no_mistake_of_the_configuration(remote: Job, s3: S3) -> None:
    config = remote.config("source.storage={endpoint: 'http://127.0.0.1:9', patience_s: 0.3}")
    with pytest.raises(VqtokError, match="no answer") as raised:
        tokenizing.run(config, show_progress=False)
    assert raised.value.exit_status == 1
    assert "correct the pattern" not in str(raised.value)
