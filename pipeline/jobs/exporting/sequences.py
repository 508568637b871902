"""Tokens of an image as a sequence of a language model: an offset, and ids before, between and behind them.

Shape letters: n images, L tokens of each, S ids of each.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from pipeline.errors import ConfigError
from pipeline.jobs.exporting.contents import Contents
from pipeline.jobs.exporting.request import Request, flag
from pipeline.records import JSON, NO_LABEL
from pipeline.store.sequence_slots import BOS, EOL, EOS, LABEL, OTHERS, sequence_slots
from pipeline.store.types import Array

Ids = tuple[int, int]
"""The smallest and the largest of some ids."""


@dataclass(frozen=True)
class Sequences:
    """How the sequence of an image is made, and which ids are in it."""

    request: Request
    tokens: int
    """L."""
    line: int
    """Tokens in a row of the grid."""
    ids: dict[str, Ids]
    """By what they stand for: `tokens`, and the options in use."""

    @property
    def length(self) -> int:
        """S."""
        return len(self._slots)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return 1 + max(last for _, last in self.ids.values())

    def of(self, tokens: Array, label: Array, dtype: str) -> Array:
        """Sequences [n, S] of `dtype`, which holds all ids, of tokens [n, L] and labels int64 [n]."""
        request, L = self.request, self.tokens
        table = np.zeros((len(tokens), L + OTHERS), dtype)
        np.add(tokens, request.offset, out=table[:, :L], dtype=dtype, casting="unsafe")
        table[:, L + LABEL] = label + (request.label_offset or 0)
        for column, token in ((BOS, request.bos), (EOL, request.eol), (EOS, request.eos)):
            table[:, L + column] = token or 0
        return table.take(self._slots, axis=1, mode="clip")  # faster than to look for bad indices

    def describe(self, dtype: str) -> JSON:
        """For `export.json`: which ids stand for what, each range with its first and its last one."""
        return {
            "dtype": dtype,
            "sequence_length": self.length,
            "ids": {name: list(ids) for name, ids in self.ids.items()},
        }

    @cached_property
    def _slots(self) -> Array:
        """int64 [S]: which column of the table each id is. The tokens stand in their order already."""
        given = {name: getattr(self.request, name) is not None for name in ("bos", "eol", "eos")}
        label = self.request.label_offset is not None
        return sequence_slots(np.arange(self.tokens), self.line, label=label, **given)


def sequences_of(contents: Contents, request: Request) -> Sequences:
    """How the sequences of an export are made.

    Raises ConfigError where an id would stand for two things, and for ends of lines without a grid.
    """
    if request.eol is not None and contents.grid is None:
        either = ", or --order blocks" if request.order else ""
        raise ConfigError(f"--eol: tokens in block order have no lines; leave it out{either}")
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
    return Sequences(request, contents.geometry.num_tokens, contents.geometry.grid[1], ids)


def refuse_large(sequences: Sequences, largest: int, format: str) -> None:
    """Raises ConfigError where an id is above the largest one that the files of a format can hold."""
    for name, (_, last) in sequences.ids.items():
        if last > largest:
            raise ConfigError(
                f"{_said(name)}: ids up to {last:,}, and the format {format} holds those up to {largest:,}; take "
                "smaller ids or another format"
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
