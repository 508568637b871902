"""One loader under one condition: opened, counted once, timed as often as asked."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loaders.order import BLOCK
from loaders.peer import BATCH, Pattern, Peer, Request, answers
from loaders.rows import Array, numbers_of

PAGE_BYTES = 4096


@dataclass(frozen=True)
class Condition:
    """What is measured."""

    tokens: int
    pattern: Pattern
    workers: int


@dataclass(frozen=True)
class Counted:
    """What the first pass, which is not timed, has found."""

    problem: str = ""
    """Why the figures do not count: rows missing, repeated or damaged."""
    delivers: str = ""
    """Kind and dtype of a batch."""
    blocks: float = 0.0
    """From how many blocks of 1,024 rows the rows of a batch come, in the mean."""


class Cell:
    """Opening starts the worker processes; `count` comes first, then `seconds_and_rows` any number of times.

    Args:
        rows: uint16 [n, L], what the loader's folder holds.
    """

    def __init__(self, peer: Peer, folder: Path, rows: Array, condition: Condition) -> None:
        self._peer = peer
        self._rows = rows
        self._pattern = condition.pattern
        self._random = np.random.default_rng(1)
        self._rate = 0.0
        self._epoch: Iterable[Any] = ()
        self._ask: Callable[[Sequence[Request]], Iterator[Any]]
        if condition.pattern.is_epoch:
            self._epoch = peer.epoch(folder, condition.pattern is Pattern.SHUFFLED, condition.workers)
        else:
            self._ask = answers(peer.fetch(folder), condition.workers)

    def count(self) -> Counted:
        """An untimed pass: every row of an epoch exactly once, every row as it was written, every request met."""
        return self._count_epoch() if self._pattern.is_epoch else self._count_requests()

    def seconds_and_rows(self, least: float) -> tuple[float, int]:
        """Time whole epochs, or random requests, for `least` seconds or longer."""
        if not self._pattern.is_epoch:
            requests = self._requests(self._enough(least))
            return self._timed(self._ask(requests)), _rows_in(requests)
        seconds, epochs = 0.0, 0
        while seconds < least:
            started = time.perf_counter()
            for batch in self._epoch:
                self._touch(batch)
            seconds += time.perf_counter() - started
            epochs += 1
        return seconds, epochs * len(self._rows)

    def _timed(self, batches: Iterator[Any]) -> float:
        started = time.perf_counter()
        for batch in batches:
            self._touch(batch)
        return time.perf_counter() - started

    def _touch(self, batch: Any) -> None:
        """Read a token of every row and every page of memory: a batch that is only mapped would cost nothing."""
        for column in self._peer.tokens(batch):
            array = column.numpy() if isinstance(column, Tensor) else column
            array[..., :: PAGE_BYTES // array.itemsize].max()

    def _count_epoch(self) -> Counted:
        seen = np.zeros(len(self._rows), np.int64)
        blocks, delivers = [], ""
        order: list[Array] = []
        for batch in self._epoch:
            columns = self._peer.tokens(batch)
            delivers = _kind(columns)
            tokens = _joined(columns)
            numbers = numbers_of(tokens)
            if tokens.shape[1:] != self._rows.shape[1:] or numbers.max() >= len(self._rows):
                return Counted(f"delivers rows that were never written, {tokens.shape}")
            if not np.array_equal(tokens, self._rows[numbers]):
                return Counted("delivers damaged rows")
            np.add.at(seen, numbers, 1)
            order.append(numbers)
            if len(tokens) == BATCH:
                blocks.append(len(np.unique(numbers // BLOCK)))
        if not np.all(seen == 1):
            return Counted(f"{np.sum(seen == 0):,} rows missing, {np.sum(seen > 1):,} repeated of {len(seen):,}")
        if self._pattern is Pattern.SHUFFLED and len(seen) > BATCH and np.all(np.diff(np.concatenate(order)) == 1):
            return Counted("does not shuffle")
        return Counted(delivers=delivers, blocks=float(np.mean(blocks)) if blocks else 0.0)

    def _count_requests(self) -> Counted:
        requests = self._requests(32 if self._pattern is Pattern.ROWS else 4)
        delivers = ""
        given = 0
        for request, batch in zip(requests, self._ask(requests), strict=False):
            columns = self._peer.tokens(batch)
            delivers = _kind(columns)
            expected = self._rows[request]
            if not np.array_equal(_joined(columns).reshape(expected.shape), expected):
                return Counted("delivers other rows than asked for")
            given += 1
        if given < len(requests):
            return Counted(f"{len(requests) - given} of {len(requests)} requests not met")
        self._rate = len(requests) / self._timed(self._ask(requests))
        return Counted(delivers=delivers)

    def _requests(self, count: int) -> list[Request]:
        if self._pattern is Pattern.ROWS:
            rows: list[Request] = self._random.integers(0, len(self._rows), count).tolist()
            return rows
        return [self._random.integers(0, len(self._rows), BATCH).tolist() for _ in range(count)]

    def _enough(self, seconds: float) -> int:
        """How many requests take about so long; a slow loader answers few."""
        fewest, most = (64, 65_536) if self._pattern is Pattern.ROWS else (2, 4096)
        return int(np.clip(self._rate * seconds, fewest, most))


def _rows_in(requests: Sequence[Request]) -> int:
    return sum(1 if isinstance(request, int) else len(request) for request in requests)


def _joined(columns: Sequence[Tensor | Array]) -> Array:
    """All columns side by side."""
    return np.concatenate([np.asarray(column) for column in columns], axis=-1)


def _kind(columns: Sequence[Tensor | Array]) -> str:
    column = columns[0]
    return str(column.dtype) if isinstance(column, torch.Tensor) else f"numpy.{column.dtype}"
