"""Requests that a job makes of an object store, counted by a server of S3's protocol (moto) in a process of its own."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import boto3

KINDS = ("GET", "HEAD", "LIST", "PUT", "DELETE")
"""LIST is a GET of names; DELETE counts requests, each of which may delete many."""

START_UP = "start-up"
"""Requests of any kind for what a store or its source has once: each process asks for them when it begins or ends."""

BUCKET = "costs"

_SERVER = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=True)
server.start()
print("port", server.get_host_and_port()[1], flush=True)
time.sleep(10**6)
"""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # the server's way to show what it refuses
_ONCE = re.compile(
    r"/(store|manifest|claims/manifest)\.json|/probe-|/tokens\.zarr/(zarr\.json|codebook|parts/zarr\.json)"
)
_REQUEST = re.compile(r'"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.\d" \d+')


@dataclass(frozen=True)
class Server:
    """Where it listens, and the file that it notes every request in."""

    port: int
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """What points clients at it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    @contextmanager
    def counting(self) -> Iterator["Counter[str]"]:
        """Requests while the body runs, by kind or as START_UP, once it has ended."""
        counts = Counter[str]()
        before = self.log.stat().st_size
        yield counts
        text = _COLOUR.sub("", self.log.read_bytes()[before:].decode(errors="replace"))
        counts.update(_kind(*match.groups()) for match in _REQUEST.finditer(text))


@contextmanager
def s3_server(log: Path) -> Iterator[Server]:
    """A server with one empty bucket; this process's environment points at it."""
    with log.open("wb") as errors:
        process = subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        port = next(line for line in process.stdout if line.startswith("port "))
        server = Server(int(port.split()[1]), log)
        os.environ.update(server.environment)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield server
    finally:
        process.kill()
        process.wait()


def _kind(method: str, target: str) -> str:
    url = urlsplit(target)
    if method == "GET" and url.path.strip("/") == BUCKET:
        return START_UP if "prefix=source" in url.query else "LIST"
    if _ONCE.search(url.path):
        return START_UP
    return "DELETE" if method == "POST" else method
