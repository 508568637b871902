"""Tokens of an image as a sequence of a language model: an offset, and ids before, between and behind them.

    [bos] [label] token token … [eol] token token … [eol] [eos]

Shape letters: n images, L tokens of each, S ids of each, h and w grid sides.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipeline.errors import ConfigError
from pipeline.jobs.exporting.contents import Contents
from pipeline.jobs.exporting.request import Request, flag
from pipeline.records import JSON, NO_LABEL
from pipeline.store.types import Array

Ids = tuple[int, int]
"""The smallest and the largest of some ids."""


@dataclass(frozen=True)
class Sequences:
    """How the sequence of an image is made, and which ids are in it."""

    request: Request
    lines: tuple[int, int]
    """h and w where each row of the grid ends in an id, else 1 and L."""
    ids: dict[str, Ids]
    """By what they stand for: `tokens`, and the options in use."""

    @property
    def length(self) -> int:
        """S."""
        h, w = self.lines
        return self._before + h * (w + (self.request.eol is not None)) + (self.request.eos is not None)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return 1 + max(last for _, last in self.ids.values())

    def of(self, tokens: Array, label: Array, dtype: str) -> Array:
        """Sequences [n, S] of `dtype`, which holds all ids, of tokens [n, L] and labels int64 [n]."""
        request, (h, w), n = self.request, self.lines, len(tokens)
        found = np.empty((n, self.length), dtype)
        if request.bos is not None:
            found[:, 0] = request.bos
        if request.label_offset is not None:
            found[:, self._before - 1] = label + request.label_offset
        stop = self.length - (request.eos is not None)
        body = found[:, self._before : stop].reshape(n, h, w + (request.eol is not None))  # a view: one axis is split
        body[:, :, :w] = tokens.reshape(n, h, w)
        if request.offset:
            body[:, :, :w] += body.dtype.type(request.offset)
        if request.eol is not None:
            body[:, :, w] = request.eol
        if request.eos is not None:
            found[:, -1] = request.eos
        return found

    def describe(self, dtype: str) -> JSON:
        """For `export.json`: which ids stand for what, each range with its first and its last one."""
        return {
            "dtype": dtype,
            "sequence_length": self.length,
            "ids": {name: list(ids) for name, ids in self.ids.items()},
        }

    @property
    def _before(self) -> int:
        return (self.request.bos is not None) + (self.request.label_offset is not None)


def sequences_of(contents: Contents, request: Request) -> Sequences:
    """How the sequences of an export are made.

    Raises ConfigError where an id would stand for two things, and for ends of lines without a grid.
    """
    if request.eol is not None and contents.grid is None:
        raise ConfigError("--eol: tokens in block order have no lines; leave it out, or take --order raster")
    lines = contents.grid if request.eol is not None and contents.grid else (1, contents.geometry.num_tokens)
    ids = {"tokens": (request.offset, request.offset + contents.vocab_size - 1)}
    for name in ("bos", "eos", "eol"):
        if (token := getattr(request, name)) is not None:
            ids[name] = (token, token)
    if request.label_offset is not None:
        first, last = contents.labels
        if first <= NO_LABEL:
            raise ConfigError("--label-offset: there are rows without a label; leave it out")
        ids["label_offset"] = (first + request.label_offset, last + request.label_offset)
    _refuse_twice(ids)
    return Sequences(request, lines, ids)


def refuse_large(sequences: Sequences, largest: int, format: str) -> None:
    """Raises ConfigError where an id is above the largest one that the files of a format can hold."""
    for name, (_, last) in sequences.ids.items():
        if last > largest:
            raise ConfigError(
                f"{_said(name)}: ids up to {last:,}, and the format {format} holds those up to {largest:,}"
            )


def _refuse_twice(ids: dict[str, Ids]) -> None:
    for (one, (first, last)), (other, (start, stop)) in combinations(ids.items(), 2):
        if first <= stop and start <= last and {one, other} != {"bos", "eos"}:
            raise ConfigError(
                f"{_said(other)}: {_range(start, stop)}, and {_said(one)} take {_range(first, last)}; an id stands for "
                "one thing"
            )


def _said(name: str) -> str:
    return "the tokens (--offset)" if name == "tokens" else flag(name)


def _range(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"
