"""Each loader in a process of its own: they cannot disturb each other, and one that hangs can be ended."""

import gc
import importlib
import multiprocessing
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from loaders.cell import Cell, Condition, Counted
from loaders.peer import Cannot, Peer
from loaders.rows import open_rows

TIMEOUT_S = 300


class Failed(Exception):
    """The loader raised, hung or died; the message stands in the table."""


@dataclass(frozen=True)
class Place:
    """Where the rows of one number of tokens lie."""

    rows: Path
    """The .npy of exactly these rows."""
    folder: Path
    """What the loader has made of them."""


class Child:
    """Calls in the other process raise Cannot or Failed here."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._start()

    def write(self, place: Place) -> None:
        """Store the rows, unless that was done."""
        self._call("write", place)

    def open(self, place: Place, condition: Condition) -> Counted:
        """Open a cell and count it."""
        counted: Counted = self._call("open", place, condition)
        return counted

    def time(self, least: float) -> float:
        """Rows a second of the open cell."""
        seconds, rows = self._call("time", least)
        return float(rows / seconds)

    def close_cell(self) -> None:
        """End the worker processes of the open cell."""
        self._call("close_cell")

    def end(self) -> None:
        """End the process."""
        if self._process.is_alive():
            try:
                self._call("end")
            except Failed:
                self._process.kill()
            self._process.join(10)
        if self._process.is_alive():
            self._process.kill()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._peer, theirs))
        self._process.start()
        theirs.close()

    def _call(self, name: str, *arguments: Any) -> Any:
        if not self._process.is_alive():  # one condition may have ended it
            self._start()
        try:
            self._connection.send((name, arguments))
            if not self._connection.poll(TIMEOUT_S):
                self._process.kill()
                self._process.join()
                raise Failed(f"hangs: no answer in {TIMEOUT_S} s")
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise Failed("its process has died") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


class _Server:
    """What runs in the other process."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._cell: Cell | None = None

    def write(self, place: Place) -> None:
        if not place.folder.exists():
            place.folder.mkdir(parents=True)
            self._peer.write(open_rows(place.rows), place.folder)

    def open(self, place: Place, condition: Condition) -> Counted:
        self.close_cell()  # of a condition that failed
        # Workers fork, as those of a DataLoader do by default: being spawned, and litData's writer, change the default.
        multiprocessing.set_start_method("fork", force=True)
        self._cell = Cell(self._peer, place.folder, open_rows(place.rows), condition)
        return self._cell.count()

    def time(self, least: float) -> tuple[float, int]:
        assert self._cell is not None
        return self._cell.seconds_and_rows(least)

    def close_cell(self) -> None:
        self._cell = None
        gc.collect()  # a loader in a reference cycle would live on, and with it its workers

    def end(self) -> None:
        self._cell = None
        self._peer.close()


def _serve(peer: str, connection: Connection) -> None:
    name = ""
    server: _Server | None = None
    while name != "end":
        name, arguments = connection.recv()
        answer: Any
        try:
            server = server or _Server(_load(peer))
            answer = getattr(server, name)(*arguments)
        except Cannot as reason:
            answer = reason
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            answer = Failed(f"fails: {type(error).__name__}: {error}"[:200])
        connection.send(answer)


def _load(peer: str) -> Peer:
    module, name = peer.split(":")
    found: Peer = getattr(importlib.import_module(module), name)()
    return found


def end_all(children: Sequence[Child]) -> None:
    """End all processes."""
    for child in children:
        child.end()
