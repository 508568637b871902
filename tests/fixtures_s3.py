"""A real S3 server in a process of its own, and a proxy before it that counts requests and misbehaves as told.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import http.client
import math
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

import pytest
from support import POLL_SECONDS

BUCKET = "collections"


@dataclass(frozen=True)
class S3:
    """Where the server listens."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        """What points every client at it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def request(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
        """A plain request of S3's protocol; returns the body of a good answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            # The server asks for a signature and does not check it.
            signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}
            connection.request(method, path, body, {**signed, **(headers or {})})
            response = connection.getresponse()
            data = response.read()
            assert response.status < 300, (method, path, response.status, data)
            return data
        finally:
            connection.close()


_SERVER = """
import functools, threading
from moto.core import serialize
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.responses import S3Response
from werkzeug.serving import WSGIRequestHandler, make_server

lock, put_object = threading.Lock(), S3Response.put_object

def atomic(response):
    with lock:  # moto looks whether an object is there, and then writes it: two threads may both find nothing
        return put_object(response)

class KeptConnections(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body go out together

    def log(self, *_):
        pass

S3Response.put_object = atomic
serialize.parse_to_aware_datetime = functools.cache(serialize.parse_to_aware_datetime)  # half of the time of a list
# This one service alone: to tell which one is asked, moto's own server lists its folder at every request.
server = make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True, request_handler=KeptConnections)
server.daemon_threads = True
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """The server process, with one bucket."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            server = S3(int(process.stdout.readline()))
            server.request("PUT", f"/{BUCKET}")
            yield server
        finally:
            process.kill()


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server, and this process's environment pointed at it."""
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    for variable, value in s3_server.environment.items():
        monkeypatch.setenv(variable, value)
    return s3_server


@pytest.fixture
def bucket_url(s3: S3) -> str:
    """A URL below which nothing is yet."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"


# --- the proxy --------------------------------------------------------------------------------------------

SLOW_DOWN = (503, "SlowDown", "Please reduce your request rate.")
DENIED = (403, "AccessDenied", "Access Denied")
EXPIRED = (400, "ExpiredToken", "The provided token has expired.")


class Asked(NamedTuple):
    """A request that reached the proxy."""

    operation: str
    """As `operation_of` says it."""
    path: str
    """Bucket and key, with the query."""
    at: float
    """When, on the monotonic clock."""
    status: int
    """Of the answer; 0 where none was given."""


def operation_of(method: str, target: str, headers: Mapping[str, str]) -> str:
    """S3's name for a request; a `PutObject` that only creates is `PutObject If-None-Match`."""
    url = urlsplit(target)
    query = parse_qs(url.query, keep_blank_values=True)
    if "/" not in url.path.strip("/"):  # the bucket
        return {"GET": "ListObjects", "POST": "DeleteObjects"}.get(method, f"{method.capitalize()}Bucket")
    if "uploads" in query:
        return "CreateMultipartUpload"
    if "uploadId" in query:
        return {"PUT": "UploadPart", "POST": "CompleteMultipartUpload"}.get(method, "AbortMultipartUpload")
    condition = " If-None-Match" if method == "PUT" and "If-None-Match" in headers else ""
    return f"{method.capitalize()}Object{condition}"


@dataclass
class Faults:
    """What goes wrong, as shares of all requests; drawn for each request that `applies` to."""

    drop: float = 0.0
    """The connection is closed without a word, and nothing is forwarded."""
    reset: float = 0.0
    """The same with a TCP reset."""
    refuse: float = 0.0
    """`answer`, and nothing is forwarded."""
    answer: tuple[int, str, str] | None = None
    """Status, code and message of a refusal; by default 500 or 503 SlowDown."""
    forget: float = 0.0
    """The request is forwarded, and its answer lost."""
    cut: float = 0.0
    """The answer stops halfway."""
    delay_s: float = 0.0
    """At most so long does each request wait."""
    latency_s: float = 0.0
    """Exactly so long does each request wait."""
    stale_s: float = 0.0
    """Lists lack what was first written less than so long ago."""
    keys_end: dict[str, float] = field(default_factory=dict)
    """Access keys that are refused from a moment of the monotonic clock on; others never are."""
    keys_answer: tuple[int, str, str] = EXPIRED
    """What such a key is told."""
    method: str = ""
    """Only requests of this method; all by default."""
    operation: str = ""
    """Only this operation."""
    fragment: str = ""
    """Only requests for a path with this in it."""
    after: int = 0
    """So many requests of these pass first."""
    at_most: int = 10**9
    """Faults in all."""
    for_s: float = 10.0**9
    """Seconds after the first fault when they end."""
    ignore_conditions: bool = False
    """Whether `If-None-Match` is taken out, as if the server did not know it."""
    watch: Callable[[str, str, bool], None] = lambda method, path, done: None
    """Called with every request before (`done` False) and after it was forwarded."""
    draws: random.Random = field(default_factory=lambda: random.Random(0))
    happened: Counter[str] = field(default_factory=Counter)
    seen: int = 0
    began: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def applies(self, method: str, operation: str, path: str) -> bool:
        """Whether a request is one of those that may go wrong, and the time for it is now."""
        if self.method not in ("", method) or self.operation not in ("", operation) or self.fragment not in path:
            return False
        self.seen += 1
        over = self.began is not None and time.monotonic() - self.began > self.for_s
        return self.seen > self.after and not over and sum(self.happened.values()) < self.at_most

    def draw(self, method: str, operation: str, path: str) -> str:
        """The fault of one request, or ``."""
        with self.lock:
            if not self.applies(method, operation, path):
                return ""
            number = self.draws.random()
            for name in ("drop", "reset", "refuse", "forget", "cut"):
                number -= getattr(self, name)
                if number < 0:
                    self.happened[name] += 1
                    self.began = self.began or time.monotonic()
                    return name
            return ""

    def refusal(self) -> tuple[int, str, str]:
        """What a request that is refused is told."""
        return self.answer or self.draws.choice(((500, "InternalError", "Please try again."), SLOW_DOWN))

    def has_ended(self, authorization: str) -> bool:
        """Whether a request is signed with a key that has run out."""
        match = re.search(r"Credential=([^/]+)/", authorization)
        return match is not None and time.monotonic() >= self.keys_end.get(match[1], float("inf"))


class Proxy:
    """Forwards to a server what `faults` let pass, and notes every request in `asked`."""

    def __init__(self, upstream: S3, faults: Faults) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # which costs 40 ms of each answer on a connection that is kept
            wbufsize = -1  # head and body go out together

            def handle_any(self) -> None:
                proxy._handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                pass  # a client that was killed

        self._upstream = upstream
        self.faults = faults
        self.asked: list[Asked] = []
        self._written: dict[str, float] = {}
        self._kept = threading.local()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_SECONDS,), daemon=True)
        self._thread.start()
        self.s3 = S3(self._server.server_address[1])

    @property
    def counts(self) -> Counter[str]:
        """Requests so far, by operation."""
        return Counter(asked.operation for asked in list(self.asked))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        at = time.monotonic()
        operation = operation_of(request.command, request.path, dict(request.headers))
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))

        def note(status: int) -> None:
            # Before the answer is sent, so that whoever has it finds it noted.
            self.asked.append(Asked(operation, request.path, at, status))

        self._serve(request, operation, body, note)

    def _serve(self, request: BaseHTTPRequestHandler, operation: str, body: bytes, note: Callable[[int], None]) -> None:
        """Answer a request as the faults have it."""
        faults = self.faults
        fault = faults.draw(request.command, operation, request.path)
        time.sleep(faults.latency_s + (faults.draws.uniform(0, faults.delay_s) if faults.delay_s else 0))
        if fault in ("drop", "reset"):
            note(0)
            self._hang_up(request, fault == "reset")
            return
        if faults.has_ended(request.headers.get("Authorization", "")):
            self._refuse(request, *faults.keys_answer, note)
            return
        if fault == "refuse":
            self._refuse(request, *faults.refusal(), note)
            return
        faults.watch(request.command, request.path, False)
        status, headers, data = self._forward(request, body)
        self._note_written(operation, request.path, status)
        if operation == "ListObjects" and faults.stale_s and status == 200:
            data = self._without_news(data)
            headers["Content-Length"] = str(len(data))
        faults.watch(request.command, request.path, True)
        if fault == "forget":
            note(0)
            self._hang_up(request)
            return
        note(status)
        self._answer(request, status, headers, data, cut=fault == "cut")

    def _hang_up(self, request: BaseHTTPRequestHandler, reset: bool = False) -> None:
        request.close_connection = True
        if reset:  # what closing means then: https://man7.org/linux/man-pages/man7/socket.7.html, SO_LINGER
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()

    def _refuse(
        self, request: BaseHTTPRequestHandler, status: int, code: str, message: str, note: Callable[[int], None]
    ) -> None:
        """The same XML that S3 sends, its declaration on a line of its own."""
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>0</RequestId></Error>"
        )
        note(status)
        self._answer(request, status, {"Content-Type": "application/xml"}, text.encode())

    def _note_written(self, operation: str, path: str, status: int) -> None:
        """Remember when objects, and what counts as a folder of them, were first written."""
        if status < 300 and operation.startswith(("PutObject", "CompleteMultipartUpload")):
            key = unquote(urlsplit(path).path).strip("/").partition("/")[2]
            for end in [*(match.end() for match in re.finditer("/", key)), len(key)]:
                self._written.setdefault(key[:end], time.monotonic())

    def _without_news(self, data: bytes) -> bytes:
        """A list without what is new."""
        since = time.monotonic() - self.faults.stale_s
        tree = ElementTree.fromstring(data)
        space = tree.tag.partition("}")[0] + "}" if "}" in tree.tag else ""
        ElementTree.register_namespace("", space.strip("{}"))
        for entry in [*tree.findall(f"{space}Contents"), *tree.findall(f"{space}CommonPrefixes")]:
            name = entry.findtext(f"{space}Key") or entry.findtext(f"{space}Prefix") or ""
            if self._written.get(unquote(name), -math.inf) > since:
                tree.remove(entry)
        return ElementTree.tostring(tree, xml_declaration=True, encoding="UTF-8")

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = self._connection()
        try:
            left_out = {"connection", "if-none-match"} if self.faults.ignore_conditions else {"connection"}
            headers = {name: value for name, value in request.headers.items() if name.lower() not in left_out}
            connection.request(request.command, request.path, body or None, headers)
            response = connection.getresponse()
            data = response.read()
        except BaseException:
            connection.close()  # or the next request would meet what is left of this one
            raise
        skipped = {"transfer-encoding", "connection", "content-length", "date", "server"}
        kept = {name: value for name, value in response.getheaders() if name.lower() not in skipped}
        length = response.getheader("Content-Length") if request.command == "HEAD" else str(len(data))
        return response.status, {**kept, "Content-Length": length or "0"}, data

    def _connection(self) -> http.client.HTTPConnection:
        """The one that this thread keeps to the server."""
        if not hasattr(self._kept, "connection"):
            self._kept.connection = http.client.HTTPConnection("127.0.0.1", self._upstream.port, timeout=60)
        connection: http.client.HTTPConnection = self._kept.connection
        return connection

    def _answer(
        self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], data: bytes, cut: bool = False
    ) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if cut:
            data = data[: len(data) // 2]
            request.close_connection = True
        if request.command != "HEAD":
            request.wfile.write(data)
        request.wfile.flush()


@pytest.fixture
def proxy(s3_server: S3) -> Iterator[Proxy]:
    """A proxy before the server that lets everything pass until `faults` are set. Point processes at its `s3`."""
    proxy = Proxy(s3_server, Faults())
    yield proxy
    proxy.close()
