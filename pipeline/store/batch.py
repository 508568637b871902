"""What a store hands out: one sample, or a batch of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import StoreError
from pipeline.store.grid import grid_of
from pipeline.store.sequence import Sequenced
from pipeline.store.types import Array


class Rows(Sequenced, Protocol):
    """What a batch asks for all but the tokens of its rows."""

    @property
    def block_lengths(self) -> tuple[int, ...]:
        """L_i."""

    def keys_of(self, rows: Array) -> list[str]:
        """WebDataset keys."""

    def labels_of(self, rows: Array) -> Array:
        """int64 [n], -1 without a label."""

    def field_of(self, name: str, rows: Array) -> list[bytes | None]:
        """A kept member, None where a sample had none."""

    def reopening(self) -> "tuple[Callable[..., Rows], tuple[Any, ...]]":
        """A function and its arguments that give the same in another process."""


@dataclass(frozen=True)
class TokenSample:
    """One image of the store."""

    key: str
    label: int
    """-1 without a label."""
    idx_l: list[Tensor]
    """Block i as int64 [L_i]."""


@dataclass(frozen=True, repr=False)
class TokenBatch:
    """B images of a store.

    Tokens stay in the dtype they are stored in until `tokens`, `idx_Bl` or `grid` is asked for: move the batch to its
    device first. Keys, labels and kept members are read when they are asked for.
    """

    stored: Tensor
    """uint8, uint16 or uint32 [B, L_total], as they are stored: torch neither adds nor embeds most of these."""
    row: Array
    """int64 [B], row numbers in the store."""
    store: Rows
    mask: Tensor | None = None
    """bool [B], False for rows that only fill the batch up; None where there are none by construction."""
    relabel: Callable[[Array, Array], Array] | None = None
    """Makes `label` of row numbers and their labels, int64 [B] each: labels that are dropped. None for labels as they
    are."""
    dropped_texts: Array | None = None
    """bool [B], True for rows of which `text` is empty (`text_dropout`); None where none is dropped."""

    def __repr__(self) -> str:
        shape, dtype = list(self.stored.shape), str(self.stored.dtype).removeprefix("torch.")
        return f"{type(self).__name__}({len(self)} images: {dtype} {shape} on {self.stored.device})"

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, rows: slice) -> "TokenBatch":
        """A range of the rows; tensors are views. Raises TypeError for anything else."""
        if not isinstance(rows, slice):
            raise TypeError(
                f"a TokenBatch takes a slice, such as batch[0:1], not {rows!r}; batch.tokens[i] are the tokens of "
                "image i. In a DataLoader, a TokenDataset needs collate_fn=TokenDataset.collate"
            )
        mask = None if self.mask is None else self.mask[rows]
        dropped = None if self.dropped_texts is None else self.dropped_texts[rows]
        part = replace(self, stored=self.stored[rows], row=self.row[rows], mask=mask, dropped_texts=dropped)
        return part.with_label(self.__dict__["label"][rows]) if "label" in self.__dict__ else part

    @cached_property
    def tokens(self) -> Tensor:
        """int64 [B, L_total] on the device of the batch, blocks one after the other as the layout orders them; with all
        V views of each image [B, V, L_total]."""
        return self.stored.long()

    @cached_property
    def idx_Bl(self) -> list[Tensor]:
        """Block i as int64 [B, L_i], views of `tokens`; with all V views of each image [B, V, L_i]."""
        return list(self.tokens.split(list(self.store.block_lengths), dim=-1))

    @cached_property
    def grid(self) -> Tensor:
        """The tokens as they lie in the image, int64 [B, h, w], whatever the block layout; with all V views of each
        image [B, V, h, w].

        Raises TokenizerError, naming the layout, where the tokens are not those of one grid.
        """
        return grid_of(self.tokens, self.store.geometry)

    def sequence(self, **options: Any) -> Tensor:
        """int64 [B, S], the sequences of ids of a language model; with all V views of each image [B, V, S].

            batch.sequence(offset=32_000, bos=1, eol=2, eos=3, label_offset=40_000)

        `store.sequence_format` describes the options, gives length and vocabulary, and the way back.

        Raises as it does, and ValueError for a label above `num_labels` that is not on a GPU.
        """
        form = self.store.sequence_format(**options)
        return form.ids(self.tokens, None if form.label_offset is None else self.label)

    @cached_property
    def label(self) -> Tensor:
        """int64 [B], -1 without a label; with `label_dropout`, `null_label` where it was dropped or there is none."""
        labels = self.store.labels_of(self.row)
        return torch.from_numpy(self.relabel(self.row, labels) if self.relabel else labels).to(self.stored.device)

    @cached_property
    def key(self) -> list[str]:
        """WebDataset keys."""
        return self.store.keys_of(self.row)

    def field(self, name: str) -> list[bytes | None]:
        """A kept member (`source.keep`) of every row, None where the sample had none.

        Raises StoreError for a field that the store does not have.
        """
        return self.store.field_of(name, self.row)

    def text(self, name: str = "txt") -> list[str | None]:
        """A kept member of every row as text, such as its caption; None where the sample had none.

        Of a row whose text was dropped (`text_dropout`) it is empty, whatever the member; `field` has it all the same.

        Raises StoreError for a field that the store does not have, or that is not UTF-8, naming the sample.
        """
        kept = zip(self.field(name), self.text_dropped.tolist(), strict=True)
        return [
            None if data is None else "" if empty else self._decoded(name, place, data)
            for place, (data, empty) in enumerate(kept)
        ]

    @property
    def text_dropped(self) -> Array:
        """bool [B], True for rows whose text was dropped."""
        return np.zeros(len(self), bool) if self.dropped_texts is None else self.dropped_texts

    def _decoded(self, name: str, place: int, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise StoreError(
                f"field {name!r} of row {self.row[place]}, {self.key[place]!r}, is not UTF-8 text ({error}); "
                f"batch.field({name!r}) gives its bytes"
            ) from None

    def as_dict(self) -> dict[str, Tensor]:
        """`tokens`, `label` and `row` as tensors of int64, `mask` where there is one: for loops that want a dict.

        `TokenLoader(store, transform=TokenBatch.as_dict)` gives these in place of batches.
        """
        row = torch.from_numpy(self.row).to(self.stored.device)
        mask = {} if self.mask is None else {"mask": self.mask}
        return {"tokens": self.tokens, "label": self.label, "row": row, **mask, **self._of_own_kind()}

    def _of_own_kind(self) -> dict[str, Tensor]:
        """What batches of several stores have besides."""
        return {}

    @staticmethod
    def concatenate(batches: "Sequence[TokenBatch]") -> "TokenBatch":
        """The rows of several batches of one store, in order."""
        if len(batches) == 1:
            return batches[0]
        masks = [batch.mask for batch in batches]
        return replace(
            batches[0],
            stored=torch.cat([batch.stored for batch in batches]),
            row=np.concatenate([batch.row for batch in batches]),
            mask=None
            if any(mask is None for mask in masks)
            else torch.cat([mask for mask in masks if mask is not None]),
            dropped_texts=np.concatenate([batch.text_dropped for batch in batches]),
        ).with_label(torch.cat([batch.label for batch in batches]))

    def to(self, device: str | torch.device, non_blocking: bool = False) -> "TokenBatch":
        """The batch with its tensors on `device`. Tokens move in the few bytes that they are stored in."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "TokenBatch":
        """The batch with its tensors in page-locked memory, for copies that do not block."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Any) -> "TokenBatch":
        mask = None if self.mask is None else change(self.mask)
        return replace(self, stored=change(self.stored), mask=mask).with_label(change(self.label))

    def with_label(self, label: Tensor) -> "TokenBatch":
        """This batch, knowing its labels already."""
        self.__dict__["label"] = label  # where cached_property looks
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # As bytes: to hand a tensor to another process by shared memory takes longer than to copy it.
        mask = None if self.mask is None else self.mask.cpu().numpy()
        tensors = self.stored.cpu().numpy(), mask, self.label.cpu().numpy()
        return _rebuilt, (type(self), self.row, self.store.reopening(), self.dropped_texts, *tensors)


def _rebuilt(
    kind: type[TokenBatch],
    row: Array,
    reopening: tuple[Callable[..., Rows], tuple[Any, ...]],
    dropped_texts: Array | None,
    stored: Array,
    mask: Array | None,
    label: Array,
) -> TokenBatch:
    reopen, arguments = reopening
    store = reopen(*arguments)
    mask_B = None if mask is None else torch.from_numpy(mask)
    whole = kind(torch.from_numpy(stored), row, store, mask_B, dropped_texts=dropped_texts)
    return whole.with_label(torch.from_numpy(label))
