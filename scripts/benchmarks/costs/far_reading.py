"""Epochs over a store on a server that takes its time, beside a plain download of the same bytes."""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from costs.far_server import BUCKET, FarServer, far_server
from costs.linked import write_linked_store
from pipeline.files import files_at
from pipeline.loader import TokenLoader
from pipeline.storage import Storage
from pipeline.store import PartCache, TokenStore

URL = f"s3://{BUCKET}/store"
GOAL = 0.5
"""Of the plain download's rate, at least, without a cache."""

_BATCH = 256


@click.command("reading")
@click.option("--parts", default=300, show_default=True)
@click.option("--rows", multiple=True, type=int, default=(2_000, 10_000), show_default=True, help="Rows of a part.")
@click.option("--tokens", default=256, show_default=True, help="Tokens of a row.")
@click.option("--latency", default=0.04, show_default=True, help="Seconds until each request is answered.")
@click.option("--streams", default=16, show_default=True, help="Files that the plain download fetches at a time.")
@click.option("--rounds", default=3, show_default=True, help="In turns, of which the best counts.")
def reading(parts: int, rows: tuple[int, ...], tokens: int, latency: float, streams: int, rounds: int) -> None:
    """First epochs of new readers over a far store, and later ones with a cache."""
    for count in rows:
        with tempfile.TemporaryDirectory(prefix="vqtok-bench-") as name:
            write_linked_store(Path(name, "store"), parts, count, tokens)
            with far_server(Path(name), latency) as server:
                _print_table(
                    server, _Place(Path(name), server.endpoint, streams), rounds, f"{parts} parts of {count:,} rows"
                )


class _Place:
    """The store, as the one and the other reader have it."""

    def __init__(self, folder: Path, endpoint: str, streams: int) -> None:
        self._folder = folder
        self._storage = Storage(endpoint=endpoint, anonymous=True, region="us-east-1")
        self._streams = streams
        found = (folder / "store/tokens.zarr/parts").glob("*/tokens/c/0/0")
        self._chunk_files = sorted(file.relative_to(folder / "store").as_posix() for file in found)
        self.bytes = sum((folder / "store" / file).stat().st_size for file in self._chunk_files)

    def plain(self) -> None:
        """Download what holds the tokens."""
        files = files_at(URL, self._storage)
        with ThreadPoolExecutor(self._streams) as pool:
            assert sum(map(len, pool.map(files.read, self._chunk_files))) == self.bytes

    def epoch(self, shuffle: bool) -> None:
        """By a new reader without a cache."""
        _go_through(TokenLoader(TokenStore(URL, storage=self._storage), batch_size=_BATCH, shuffle=shuffle))

    def cached(self) -> None:
        """By a new reader with a cache, empty when this is first called."""
        cache = PartCache(self._folder / "cache", 1 << 40)
        self.loader = TokenLoader(TokenStore(URL, cache=cache, storage=self._storage), batch_size=_BATCH)
        _go_through(self.loader)

    def again(self) -> None:
        """The next epoch of the reader that `cached` made."""
        _go_through(self.loader)


def _go_through(loader: TokenLoader) -> None:
    for _ in loader:
        pass


def _print_table(server: FarServer, place: _Place, rounds: int, title: str) -> None:
    print(f"\n{title}, {place.bytes / 1e6:,.0f} MB (goal: at least {GOAL} of the plain download without a cache)\n")
    print("| | seconds | requests | to the plain download |")
    print("| --- | ---: | ---: | ---: |", flush=True)
    measures: dict[str, Callable[[], None]] = {
        "plain download": place.plain,
        "epoch in order": lambda: place.epoch(shuffle=False),
        "shuffled epoch": lambda: place.epoch(shuffle=True),
    }
    seconds, requests = dict.fromkeys(measures, float("inf")), dict.fromkeys(measures, 0)
    for _ in range(rounds):
        for name, measure in measures.items():
            took, requests[name] = _measured(server, measure)
            seconds[name] = min(seconds[name], took)
    cached = {"with an empty cache": place.cached, "with a full cache": place.cached, "its next epoch": place.again}
    for name, measure in cached.items():
        seconds[name], requests[name] = _measured(server, measure)
    for name, took in seconds.items():
        print(f"| {name} | {took:.2f} | {requests[name]:,} | {seconds['plain download'] / took:.2f}× |", flush=True)


def _measured(server: FarServer, measure: Callable[[], None]) -> tuple[float, int]:
    """Seconds and requests."""
    before, began = len(server.asked), time.perf_counter()
    measure()
    seconds = time.perf_counter() - began
    time.sleep(0.2)  # what the server has printed comes through a pipe
    return seconds, len(server.asked) - before
