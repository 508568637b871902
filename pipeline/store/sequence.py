"""The tokens of an image as a sequence of ids, as language models have them, and back: see `sequence_slots`.

Shape letters: B images, L tokens of an image, S ids of a sequence.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import combinations
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import TokenizerError
from pipeline.models.layouts.raster import raster_places
from pipeline.records import Geometry
from pipeline.store.requested import whole_number
from pipeline.store.sequence_slots import BOS, EOL, EOS, LABEL, OTHERS, sequence_slots
from pipeline.store.types import Array

Order = Literal["raster", "blocks"]


@dataclass(frozen=True)
class SequenceFormat:
    """Which ids stand where; `TokenStore.sequence_format` makes it.

    Raises ValueError for ids that two things have, for negative ones, for labels without a number of classes, and for
    `eol` without a grid; TokenizerError, naming the layout, for the order `raster` where there is no single grid.
    """

    geometry: Geometry
    codes: int
    """K; a token is below it."""
    offset: int = 0
    """Added to every token."""
    bos: int | None = None
    """Id at the beginning."""
    eol: int | None = None
    """Id behind every row of the grid."""
    eos: int | None = None
    """Id at the end."""
    label_offset: int | None = None
    """Added to the label, which then stands before the tokens."""
    num_labels: int | None = None
    """Number of classes. The id label_offset + num_labels stands for no label: one that was dropped, or never was."""
    order: Order | None = None
    """`raster`, row by row, the default where the layout covers one grid; `blocks`, as the layout orders them."""
    _placed: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.order not in (None, "raster", "blocks"):
            raise ValueError(f"order must be 'raster' or 'blocks', not {self.order!r}")
        if self.label_offset is not None and self.num_labels is None:
            raise ValueError("label_offset needs num_labels=, for the store does not name the classes of its labels")
        if self.eol is not None and not self._is_raster:
            raise ValueError(f"eol={self.eol} stands behind every row of the grid, and order 'blocks' has no rows")
        _check_ranges([(name, start, start + length) for name, start, length in self._ranges()])
        _ = self._slots  # raises here what else it would raise later

    def __len__(self) -> int:
        """S, the ids of a sequence."""
        return len(self._slots)

    @property
    def vocab_size(self) -> int:
        """Every id is below it."""
        return max(start + length for _, start, length in self._ranges())

    def ids(self, tokens: Tensor, label: Tensor | None = None) -> Tensor:
        """Tokens int64 [..., L] in the order of their blocks, and labels int64 [B], as sequences int64 [..., S].

        Raises ValueError for a missing label, and for one above `num_labels` that is not on a GPU.
        """
        slots, fixed = self._on(tokens.device)
        leading = tokens.shape[:-1]
        fixed = fixed.expand(*leading, -1)
        labels = fixed[..., :1] if self.label_offset is None else self._label_ids(label, leading)
        return torch.cat([tokens + self.offset, labels, fixed], dim=-1).index_select(-1, slots)

    def idx_Bl(self, ids: Tensor) -> list[Tensor]:
        """Undo `ids`: sequences int [B, S] as block i int64 [B, L_i], on the same device, for a tokenizer's `decode`.

        Raises TokenizerError, naming the position, for ids that no such sequence has there; TypeError for what is no
        tensor of integers.
        """
        checked = self._checked(ids)
        tokens = checked.index_select(-1, self._cells.to(ids.device)) - self.offset
        return list(tokens.split(list(self.geometry.block_lengths), dim=-1))

    def grid(self, ids: Tensor) -> Tensor:
        """Sequences int [B, S] in the order `raster` as grids int64 [B, h, w].

        Raises TokenizerError and TypeError as `idx_Bl` does.
        """
        if not self._is_raster:
            raise TokenizerError(f"sequences in the order 'blocks' of layout {self.geometry.layout!r} have no grid")
        checked = self._checked(ids)
        in_rows = torch.from_numpy(np.flatnonzero(self._slots < self.geometry.num_tokens)).to(ids.device)
        return checked.index_select(-1, in_rows).reshape(*ids.shape[:-1], *self.geometry.grid) - self.offset

    def label(self, ids: Tensor) -> Tensor:
        """int64 [B] of sequences int [B, S], -1 for none. Raises TokenizerError and TypeError as `idx_Bl` does."""
        if self.label_offset is None:
            raise TokenizerError("sequences without label_offset= have no label")
        checked = self._checked(ids)
        place = int(np.flatnonzero(self._slots == self.geometry.num_tokens + LABEL)[0])
        label = checked[..., place] - self.label_offset
        return label.masked_fill(label.eq(self.num_labels or 0), -1)

    def _ranges(self) -> Iterator[tuple[str, int, int]]:
        """Name, first id and number of ids of all that a sequence may hold."""
        yield f"tokens (offset={self.offset})", self.offset, self.codes
        if self.label_offset is not None:
            yield f"labels (label_offset={self.label_offset})", self.label_offset, (self.num_labels or 0) + 1
        eos = None if self.eos == self.bos else self.eos  # they may be one id, as those of GPT-2 are
        for name, value in (("bos", self.bos), ("eol", self.eol), ("eos", eos)):
            if value is not None:
                yield f"{name}={value}", value, 1

    @cached_property
    def _is_raster(self) -> bool:
        if self.order is not None:
            return self.order == "raster"
        try:
            raster_places(self.geometry)
        except TokenizerError:
            return False
        return True

    @cached_property
    def _slots(self) -> Array:
        """int64 [S]: which column of the table each id is."""
        order = raster_places(self.geometry) if self._is_raster else np.arange(self.geometry.num_tokens)
        given = {name: getattr(self, name) is not None for name in ("bos", "eol", "eos")}
        return sequence_slots(order, self.geometry.grid[1], label=self.label_offset is not None, **given)

    @cached_property
    def _cells(self) -> Tensor:
        """int64 [L]: where in a sequence each token is, in the order of the blocks."""
        places = np.flatnonzero(self._slots < self.geometry.num_tokens)
        return torch.from_numpy(places[np.argsort(self._slots[places])])

    @cached_property
    def _bounds(self) -> tuple[Tensor, Tensor]:
        """int64 [S] each: the least id at each place of a sequence, and the first that is too large."""
        L = self.geometry.num_tokens
        spans = {L + LABEL: (self.label_offset, (self.num_labels or 0) + 1)}
        spans |= {L + column: (value, 1) for column, value in ((BOS, self.bos), (EOL, self.eol), (EOS, self.eos))}
        low, count = np.full(L + OTHERS, self.offset), np.full(L + OTHERS, self.codes)
        for column, (start, length) in spans.items():
            low[column], count[column] = start or 0, length
        return torch.from_numpy(low[self._slots]), torch.from_numpy((low + count)[self._slots])

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._placed:
            fixed = torch.tensor([value or 0 for value in (self.bos, self.eol, self.eos)])
            self._placed[device] = torch.from_numpy(self._slots).to(device), fixed.to(device)
        return self._placed[device]

    def _label_ids(self, label: Tensor | None, leading: torch.Size) -> Tensor:
        if label is None:
            raise ValueError(f"label_offset={self.label_offset} needs labels to be added to")
        assert self.label_offset is not None and self.num_labels is not None
        if not label.is_cuda and label.numel() and int(label.max()) > self.num_labels:
            raise ValueError(f"label {int(label.max())} is not in 0 .. num_labels = {self.num_labels}")
        ids = label.masked_fill(label.lt(0), self.num_labels) + self.label_offset
        return ids.reshape(-1, *[1] * len(leading)).expand(*leading, 1)  # all views of an image have its label

    def _checked(self, ids: Tensor) -> Tensor:
        """Sequences as int64, that are sequences of this format."""
        if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.dtype == torch.bool:
            kind = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
            raise TypeError(f"sequences are a tensor of integers [B, S], not {kind}")
        ids = ids.long()
        if ids.shape[-1] != len(self):
            raise TokenizerError(f"sequences of {ids.shape[-1]} ids, where this format has {len(self)}")
        low, high = (bound.to(ids.device) for bound in self._bounds)
        wrong = (ids < low) | (ids >= high)
        if wrong.any():
            *row, place = wrong.nonzero()[0].tolist()
            least, end = int(low[place]), int(high[place])
            wanted = str(least) if end - least == 1 else f"{least} .. {end - 1}"
            raise TokenizerError(
                f"id {int(ids[(*row, place)])} at place {place} of sequence {', '.join(map(str, row))}, where this "
                f"format has {wanted}"
            )
        return ids


class Sequenced(Protocol):
    """Rows whose tokens can be written as sequences."""

    @property
    def geometry(self) -> Geometry:
        """Grid, block layout and block lengths."""

    @property
    def vocab_size(self) -> int:
        """K; every token is below it."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the labels, that of label i at i; None where nobody tells them."""

    def sequence_format(
        self,
        offset: int = 0,
        bos: int | None = None,
        eol: int | None = None,
        eos: int | None = None,
        label_offset: int | None = None,
        num_labels: int | None = None,
        order: Order | None = None,
    ) -> "SequenceFormat":
        """Tokens as the ids of a language model: its `len` and `vocab_size`, and the way back.

        Args:
            offset: added to every token.
            bos: id at the beginning; none without it, as of the next two.
            eol: id behind every row of the grid.
            eos: id at the end.
            label_offset: added to the label, which then stands before the tokens, behind `bos`.
            num_labels: number of classes, by default those that the store names. The id label_offset + num_labels
                stands for a label that was dropped, or never was.
            order: `raster`, row by row, the default where the layout covers one grid; `blocks`, as it orders them.

        Raises ValueError for what is no whole number, ids that two things have (`bos` and `eos` may be one), negative
        ones, and what cannot be had together; TokenizerError, naming the layout, for `raster` where there is no single
        grid.
        """
        if num_labels is None and self.classes is not None:
            num_labels = len(self.classes)
        given = {"bos": bos, "eol": eol, "eos": eos, "label_offset": label_offset, "num_labels": num_labels}
        ids = [None if value is None else whole_number(name, value) for name, value in given.items()]
        return _format(self.geometry, self.vocab_size, whole_number("offset", offset), *ids, order)


@lru_cache(maxsize=64)
def _format(*options: Any) -> SequenceFormat:
    """Made once for equal options: batches ask for it."""
    return SequenceFormat(*options)


def _check_ranges(ranges: list[tuple[str, int, int]]) -> None:
    """Raises ValueError for a range of ids that is negative, or meets another."""
    for name, start, _ in ranges:
        if start < 0:
            raise ValueError(f"{name}: ids are not negative")
    for (one, start, end), (other, other_start, other_end) in combinations(ranges, 2):
        if max(start, other_start) < min(end, other_end):
            raise ValueError(
                f"{one} have the ids {start} .. {end - 1}, which {other} ({other_start} .. {other_end - 1}) must not "
                "meet"
            )
