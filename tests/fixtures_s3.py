"""A real S3 server in a process of its own, and a proxy before it that drops, delays, refuses and forgets.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import http.client
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """The server process, with one bucket."""
    code = (
        "from moto.server import ThreadedMotoServer as Server; import time\n"
        "server = Server(ip_address='127.0.0.1', port=0, verbose=False); server.start()\n"
        "print(server.get_host_and_port()[1], flush=True); time.sleep(10**6)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
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


@dataclass
class Faults:
    """What goes wrong, as shares of all requests; drawn for each request that `applies` to."""

    drop: float = 0.0
    """The connection is closed without a word, and nothing is forwarded."""
    refuse: float = 0.0
    """500 or 503, and nothing is forwarded."""
    forget: float = 0.0
    """The request is forwarded, and its answer lost."""
    cut: float = 0.0
    """The answer stops halfway."""
    delay_s: float = 0.0
    """At most so long does each request wait."""
    method: str = ""
    """Only requests of this method; all by default."""
    fragment: str = ""
    """Only requests for a path with this in it."""
    at_most: int = 10**9
    """Faults in all."""
    ignore_conditions: bool = False
    """Whether `If-None-Match` is taken out, as if the server did not know it."""
    watch: Callable[[str, str, bool], None] = lambda method, path, done: None
    """Called with every request before (`done` False) and after it was forwarded."""
    draws: random.Random = field(default_factory=lambda: random.Random(0))
    happened: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def draw(self, method: str, path: str) -> str:
        """The fault of one request, or ``."""
        with self.lock:
            if (
                sum(self.happened.values()) >= self.at_most
                or self.method not in ("", method)
                or self.fragment not in path
            ):
                return ""
            number = self.draws.random()
            for name in ("drop", "refuse", "forget", "cut"):
                number -= getattr(self, name)
                if number < 0:
                    self.happened[name] += 1
                    return name
            return ""


class Proxy:
    """Forwards to a server what `faults` let pass."""

    def __init__(self, upstream: S3, faults: Faults) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy._handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        self._upstream = upstream
        self.faults = faults
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.s3 = S3(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        fault = self.faults.draw(request.command, request.path)
        if self.faults.delay_s:
            time.sleep(self.faults.draws.uniform(0, self.faults.delay_s))
        if fault == "drop":
            request.close_connection = True
            return
        if fault == "refuse":
            status = self.faults.draws.choice((500, 503))
            self._answer(request, status, {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        self.faults.watch(request.command, request.path, False)
        status, headers, data = self._forward(request, body)
        self.faults.watch(request.command, request.path, True)
        if fault == "forget":
            request.close_connection = True
            return
        self._answer(request, status, headers, data, cut=fault == "cut")

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._upstream.port, timeout=60)
        try:
            left_out = {"connection", "if-none-match"} if self.faults.ignore_conditions else {"connection"}
            headers = {name: value for name, value in request.headers.items() if name.lower() not in left_out}
            connection.request(request.command, request.path, body or None, headers)
            response = connection.getresponse()
            data = response.read()
            skipped = {"transfer-encoding", "connection", "content-length", "date", "server"}
            kept = {name: value for name, value in response.getheaders() if name.lower() not in skipped}
            length = response.getheader("Content-Length") if request.command == "HEAD" else str(len(data))
            return response.status, {**kept, "Content-Length": length or "0"}, data
        finally:
            connection.close()

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


@pytest.fixture
def proxy(s3_server: S3) -> Iterator[Proxy]:
    """A proxy before the server that lets everything pass until `faults` are set. Point processes at its `s3`."""
    proxy = Proxy(s3_server, Faults())
    yield proxy
    proxy.close()
