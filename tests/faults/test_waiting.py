"""What a process asks an object store for while it waits for its neighbour, and that neighbour while it works."""

import threading
import time
from collections import Counter
from urllib.parse import parse_qs, urlsplit

import pytest
from fixtures_s3 import S3, Asked, Proxy
from fixtures_store import Child, Job, vqtok, wait_for

pytest_plugins = ["fixtures_store", "fixtures_s3", "fixtures_remote"]

SECONDS = 10
MOST = 24
"""Requests of both together; there were 98 once."""


def kind_of(asked: Asked) -> str:
    """The operation, and the folder that it is about."""
    url = urlsplit(asked.path)
    folder = parse_qs(url.query).get("prefix", [url.path.rpartition("/")[0]])[0]
    return f"{asked.operation} {folder.strip('/').rpartition('/')[2]}"


@pytest.mark.slow
def test_a_waiting_process_and_its_neighbour_make_few_requests(remote: Job, s3: S3, proxy: Proxy) -> None:
    """With bars, as by default, and from the first request of the one that waits on."""
    endpoint = proxy.s3.environment["AWS_ENDPOINT_URL"]
    shards = remote.config().source.shards[0]
    arguments = [
        "--set", f"source.shards={shards.replace('train-*', 'train-0000')}",
        "--set", f"tokenize.storage={{endpoint: '{endpoint}'}}",
        "--set", f"source.storage={{endpoint: '{endpoint}'}}",
        "--set", "tokenize.claim_timeout=60",
    ]  # fmt: skip

    def start() -> Child:
        return vqtok("tokenize", "--config", remote.file, *arguments, folder=remote.output, environment=s3.environment)

    held, go_on = threading.Event(), threading.Event()

    def watch(method: str, path: str, done: bool) -> None:
        if method == "GET" and not done and path.endswith(".tar"):
            held.set()
            go_on.wait(120)

    proxy.faults.watch = watch
    try:
        worker = start()
        assert held.wait(60)
        before = len(proxy.asked)
        waiter = start()
        wait_for(lambda: any("claims" in asked.path for asked in proxy.asked[before:]))
        before = len(proxy.asked)
        time.sleep(SECONDS)
        counted = Counter(kind_of(asked) for asked in proxy.asked[before:])
        assert counted.total() <= MOST, counted
    finally:
        go_on.set()
    assert [worker.wait().status, waiter.wait().status] == [0, 0]
