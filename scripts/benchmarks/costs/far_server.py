"""A server of S3's protocol that can only be read: files of a folder, each answer after a while, as over a long line.

python scripts/benchmarks/costs/far_server.py FOLDER LATENCY_S     prints its port, then every path that is asked for
"""

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

BUCKET = "far"

_RANGE = re.compile(rb"\r\nrange: bytes=(\d*)-(\d*)\r\n", re.IGNORECASE)


class FarServer:
    """One in a process of its own, and what it was asked for."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self.endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
        self.asked: list[str] = []
        """The path of each request, in the order of their answers."""
        self._thread = threading.Thread(target=self._note, args=(process.stdout,), daemon=True)
        self._thread.start()

    def _note(self, lines: Iterator[str]) -> None:
        self.asked.extend(line.strip() for line in lines)


@contextmanager
def far_server(folder: Path, latency_s: float) -> Iterator[FarServer]:
    """Serves what is in `folder` as the bucket BUCKET."""
    command = [sys.executable, __file__, str(folder), str(latency_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield FarServer(process)
        finally:
            process.kill()


async def _serve(folder: Path, latency_s: float) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(latency_s)
                writer.write(_answer(folder, request))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _answer(folder: Path, request: bytes) -> bytes:
    """Head and body of the answer to a GET."""
    path = request.split(b" ", 2)[1].decode().removeprefix(f"/{BUCKET}/")
    print(path, flush=True)
    try:
        with (folder / path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            wanted = _RANGE.search(request)
            if wanted is None:
                return _response("200 OK", file.read())
            first, last = wanted.groups()
            start = int(first) if first else max(size - int(last), 0)
            stop = min(int(last) + 1, size) if first and last else size
            data = os.pread(file.fileno(), stop - start, start)
    except FileNotFoundError:
        return _response("404 Not Found", b"<Error><Code>NoSuchKey</Code><Message>There is none.</Message></Error>")
    return _response("206 Partial Content", data, f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n")


def _response(status: str, body: bytes, more: str = "") -> bytes:
    written = formatdate(0, usegmt=True)
    head = f'HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nETag: "1"\r\nLast-Modified: {written}\r\n{more}\r\n'
    return head.encode() + body


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), float(sys.argv[2])))
