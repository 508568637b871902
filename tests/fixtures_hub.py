"""The Hugging Face hub as huggingface_hub's file system asks it, on this machine; a pytest plugin.

One private data set in a folder, for whoever has the token. Contents come from a second server, as from the hub's
network of caches, which must never be shown the token. Listings come in pages.

PYTEST_DONT_REWRITE: test modules import it before pytest registers it.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from support import POLL_SECONDS

REPOSITORY = "me/photos"
TOKEN = "hf_secretsecretsecretsecret"
_PAGE = 2
_API = re.compile(rf"/api/datasets/{REPOSITORY}(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?$")
_FILE = re.compile(rf"/datasets/{REPOSITORY}/resolve/([^/]+)/(.*)$")


@dataclass
class Hub:
    """Where the data set lies, and what was asked."""

    folder: Path
    port: int = 0
    asked: list[str] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    """Bytes of contents, by path."""
    leaks: list[str] = field(default_factory=list)
    """Requests for contents that carried the token on."""
    unavailable: int = 0
    """So many requests for contents are answered with 503 first."""

    @property
    def url(self) -> str:
        return f"hf://datasets/{REPOSITORY}"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What points huggingface_hub at it."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "*",
        }

    def entries(self, below: str, recursive: bool) -> list[dict[str, Any]] | None:
        """What the hub says of files and folders; None where there is no such folder."""
        top = self.folder / below
        if not top.is_dir():
            return None
        found = sorted(top.rglob("*") if recursive else top.iterdir())
        return [self.entry(path) for path in found]

    def entry(self, path: Path) -> dict[str, Any]:
        name = path.relative_to(self.folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "oid": _oid(name.encode()), "size": 0, "path": name}
        data = path.read_bytes()
        pointer = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return {"type": "file", "oid": _oid(data), "size": len(data), "path": name, "lfs": pointer}


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    hub: Hub
    cache_port: int

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def say(self, tree: object, **headers: str) -> None:
        self.answer(200, json.dumps(tree).encode(), Content_Type="application/json", **headers)


class _Api(_Handler):
    """The hub itself."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.hub.asked.append(f"{self.command} {url.path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, X_Error_Code="RepoNotFound")
        elif match := _API.match(url.path):
            self.of_data_set(match[1], unquote(match[3] or ""), parse_qs(url.query))
        elif match := _FILE.match(url.path):
            self.answer(302, Location=f"http://localhost:{self.cache_port}/{match[2]}")
        else:
            self.answer(404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.hub.asked.append(f"POST {self.path}")
        paths = [self.hub.folder / path for path in body["paths"]]
        self.say([self.hub.entry(path) for path in paths if path.exists()])

    def of_data_set(self, what: str | None, path: str, query: dict[str, list[str]]) -> None:
        if what != "tree":
            self.say({"id": REPOSITORY, "sha": "0" * 40, "siblings": [], "private": True, "tags": [], "downloads": 0})
            return
        entries = self.hub.entries(path, query.get("recursive") == ["true"])
        if entries is None:
            self.answer(404, X_Error_Code="EntryNotFound")
            return
        start = int(query.get("cursor", ["0"])[0])
        more = len(entries) > start + _PAGE
        link = f'<{self.hub.endpoint}{self.next_page(start + _PAGE)}>; rel="next"'
        self.say(entries[start : start + _PAGE], **({"Link": link} if more else {}))

    def next_page(self, start: int) -> str:
        url = urlsplit(self.path)
        rest = [word for word in url.query.split("&") if not word.startswith("cursor=")]
        return f"{url.path}?{'&'.join([*rest, f'cursor={start}'])}"


class _Cache(_Handler):
    """Where contents come from."""

    def do_GET(self) -> None:
        name = unquote(urlsplit(self.path).path.lstrip("/"))
        self.hub.asked.append(f"{self.command} contents {name} {self.headers.get('Range', '')}")
        if "Authorization" in self.headers:
            self.hub.leaks.append(self.path)
        if self.hub.unavailable:
            self.hub.unavailable -= 1
            self.answer(503)
            return
        data = (self.hub.folder / name).read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(match[1]), int(match[2] or len(data)) + 1) if match else (0, len(data))
        piece = data[start:end]
        self.hub.sent[name] = self.hub.sent.get(name, 0) + len(piece)
        whole = f"bytes {start}-{start + len(piece) - 1}/{len(data)}"
        self.answer(206 if match else 200, piece, **({"Content_Range": whole} if match else {}))

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """The data set, empty; processes find it by its `environment`."""
    hub = Hub(tmp_path / "hub")
    hub.folder.mkdir()
    servers = []
    cache_port = 0
    for handler in (_Cache, _Api):
        kind = type("Handler", (handler,), {"hub": hub, "cache_port": cache_port})
        server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        servers.append(server)
        cache_port = server.server_address[1]
    hub.port = cache_port
    yield hub
    for server in servers:
        server.shutdown()
        server.server_close()
