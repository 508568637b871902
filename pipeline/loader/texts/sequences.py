"""Sequences of ids that hold a text and an image, padded to one length.

    bos  t t t t t  boi  i i i i eol  i i i i eol  eoi  eos  pad pad        a text, then its image
    bos  boi  i i i i eol  i i i i eol  eoi  t t t t t  eos  pad pad        `image_first`

Shape letters: B images, S ids of a sequence, P ids of an image from boi to eoi, n ids of all texts.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import StoreError
from pipeline.loader.arguments import open_store
from pipeline.loader.epochs import Rows
from pipeline.loader.mixtures.stores import MixedStores
from pipeline.loader.texts.tokens import TextTokens
from pipeline.store.batch import TokenBatch
from pipeline.store.reader import TokenStore
from pipeline.store.requested import whole_number
from pipeline.store.sequence import Order, SequenceFormat

IGNORED = -100
"""What losses leave out, by the custom of torch."""


@dataclass(frozen=True)
class TextImageBatch:
    """B sequences of a text and an image."""

    ids: Tensor
    """int64 [B, S]."""
    mask: Tensor
    """bool [B, S], False for padding."""
    is_image: Tensor
    """bool [B, S], True for the tokens of the image: not for boi, eol and eoi."""
    cut: Tensor
    """bool [B], True where the text was longer than there was room for, and its end is left out."""
    batch: TokenBatch
    """What they were made of: rows, keys, labels."""

    def __len__(self) -> int:
        return len(self.ids)

    def as_dict(self) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and `labels`, int64 [B, S] each, as trainers of language models take them.

        A label is -100, which losses leave out, for padding and in rows that only fill a batch up.
        """
        counted = self.mask if self.batch.mask is None else self.mask & self.batch.mask[:, None]
        labels = self.ids.masked_fill(~counted, IGNORED)
        return {"input_ids": self.ids, "attention_mask": self.mask.long(), "labels": labels}

    def to(self, device: str | torch.device, non_blocking: bool = False) -> "TextImageBatch":
        """The same on a device."""
        return self._each(lambda given: given.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "TextImageBatch":
        """The same in page-locked memory, for copies that do not block."""
        return self._each(lambda given: given.pin_memory())

    def _each(self, change: Callable[[Any], Any]) -> "TextImageBatch":
        names = ("ids", "mask", "is_image", "cut", "batch")
        return replace(self, **{name: change(getattr(self, name)) for name in names})


class TextImageSequences:
    """Makes sequences of batches: give it to a loader as its `transform`, or call it.

        captions = TextTokens(store, tokenizer.encode, name="gpt2")
        sequences = TextImageSequences(store, captions, length=384, offset=50_257, bos=50_256, boi=70_000, eos=50_256)
        for batch in TokenLoader(store, batch_size=64, transform=sequences):
            batch.ids, batch.mask

    A text that is too long for its sequence loses its end, `batch.cut` says which, and the longest one is warned of
    here. An image is never cut. Of a loader with `text_dropout` the texts that are dropped have no ids.

    Args:
        store: an open store, or the `stores` of a mixture.
        texts: its texts; of a mixture those of each store, in their order.
        length: S, the ids of every sequence.
        image_first: the image before its text.
        offset: added to every token of an image.
        text_offset: added to every id of a text.
        bos: id at the beginning; none without it, as of the next four.
        boi: id before the image.
        eol: id behind every row of its grid.
        eoi: id behind the image.
        eos: id at the end.
        pad: id of the padding, which `batch.mask` tells apart where another thing has it too.
        order: of the tokens of an image, as for `TokenStore.sequence_format`.

    Raises ValueError where an image does not fit, or for ids that an image has and another thing too; StoreError for
    texts of another store; and what `sequence_format` raises.
    """

    def __init__(
        self,
        store: TokenStore | MixedStores,
        texts: TextTokens | Sequence[TextTokens],
        length: int,
        image_first: bool = False,
        offset: int = 0,
        text_offset: int = 0,
        bos: int | None = None,
        boi: int | None = None,
        eol: int | None = None,
        eoi: int | None = None,
        eos: int | None = None,
        pad: int = 0,
        order: Order | None = None,
    ) -> None:
        if isinstance(store, list | tuple):
            raise TypeError("of several stores give mixture.stores, which a MixtureLoader has, and not a list of them")
        store = store if isinstance(store, MixedStores) else open_store(store)
        self.image: SequenceFormat = store.sequence_format(offset=offset, bos=boi, eol=eol, eos=eoi, order=order)
        """From boi to eoi: its `len`, and the way back from ids that a model has drawn to tokens."""
        self._digests = _digests_of(store)
        self._texts = [texts] if isinstance(texts, TextTokens) else list(texts)
        _check_texts(self._texts, self._digests)
        self.length = whole_number("length", length, 1)
        self.text_length = self.length - len(self.image) - sum(id is not None for id in (bos, eos))
        """The most ids of a text that fit."""
        self._image_first, self._text_offset = image_first, whole_number("text_offset", text_offset, 0)
        given = {"bos": bos, "eos": eos, "pad": pad}
        self._others = {name: whole_number(name, id, 0) for name, id in given.items() if id is not None}
        self._check_ids(range(offset, offset + store.vocab_size))
        self._check_length()

    @property
    def vocab_size(self) -> int:
        """Every id is below it: of the texts, the largest that there is counts."""
        of_texts = self._text_offset + max(texts.vocab_size for texts in self._texts)
        return max(self.image.vocab_size, of_texts, max(self._others.values()) + 1)

    def __call__(self, batch: TokenBatch) -> TextImageBatch:
        """Sequences of the images of a batch and their texts, on its device.

        Raises StoreError for a batch of another store, ValueError for one with all views of each image.
        """
        if _digests_of(batch.store) != self._digests:
            raise StoreError("the batch is of another store than these sequences: row numbers would be of other texts")
        if batch.stored.ndim != 2:
            raise ValueError("the batch has all views of each image; a sequence has one: views='random', or a number")
        device = batch.stored.device
        ids, places, lengths, cut = (torch.from_numpy(array).to(device) for array in self._texts_of(batch))
        bos, eos, pad = (self._others.get(name) for name in ("bos", "eos", "pad"))
        assert pad is not None
        begin = int(bos is not None)
        of_image = self.image.ids(batch.tokens)
        first_of_text = begin + (len(self.image) if self._image_first else 0)
        first_of_image = begin + (torch.zeros_like(lengths) if self._image_first else lengths)
        end = begin + len(self.image) + lengths

        made = torch.full((len(batch), self.length), pad, device=device)
        is_image = torch.zeros_like(made, dtype=torch.bool)
        columns = first_of_image[:, None] + torch.arange(len(self.image), device=device)
        made.scatter_(1, columns, of_image)
        first_token = self.image.offset
        is_image.scatter_(1, columns, (of_image >= first_token) & (of_image < first_token + self.image.codes))
        rows = torch.repeat_interleave(lengths)
        made[rows, first_of_text + places] = ids + self._text_offset
        if bos is not None:
            made[:, 0] = bos
        if eos is not None:
            made.scatter_(1, end[:, None], eos)
            end = end + 1
        mask = torch.arange(self.length, device=device) < end[:, None]
        return TextImageBatch(made, mask, is_image, cut, batch)

    def _texts_of(self, batch: TokenBatch) -> tuple[Rows, Rows, Rows, Any]:
        """Ids of the texts of a batch, one text behind the other, and the place of each in its text, int64 [n] each;
        int64 [B] how many each text has, bool [B] whether it had more."""
        most = np.where(batch.text_dropped, 0, self.text_length)
        if isinstance(batch.store, MixedStores):
            ids, lengths, there = self._texts_of_several(batch.row, batch.store, most)
        else:
            ids, lengths = self._texts[0].take(batch.row, most)
            there = self._texts[0].lengths(batch.row)
        return ids, _places(lengths), lengths, (there > lengths) & ~batch.text_dropped

    def _texts_of_several(self, rows: Rows, stores: MixedStores, most: Rows) -> tuple[Rows, Rows, Rows]:
        """Ids of the texts of rows of several stores, int64 [n]; how many are taken of each, and how many it has."""
        source = stores.source_of(rows)
        found: list[Rows] = [np.empty(0, np.int64)] * len(rows)
        there = np.zeros(len(rows), np.int64)
        for number in np.unique(source).tolist():
            of_store = np.flatnonzero(source == number)
            own = rows[of_store] - stores.starts[number]
            ids, lengths = self._texts[number].take(own, most[of_store])
            there[of_store] = self._texts[number].lengths(own)
            for place, text in zip(of_store.tolist(), np.split(ids, np.cumsum(lengths)[:-1]), strict=True):
                found[place] = text
        lengths = np.array([len(text) for text in found], np.int64)
        return np.concatenate([np.empty(0, np.int64), *found]), lengths, there

    def _check_ids(self, tokens: range) -> None:
        """Raises ValueError for ids that the tokens of images have, too."""
        for name, id in self._others.items():
            if id in tokens:
                raise ValueError(f"{name}={id} is a token of images, which have {tokens.start} .. {tokens.stop - 1}")
        first, end = self._text_offset, self._text_offset + max(texts.vocab_size for texts in self._texts)
        if max(first, tokens.start) < min(end, tokens.stop):
            raise ValueError(
                f"texts have the ids {first} .. {end - 1} (text_offset={first}), which tokens of images "
                f"(offset={tokens.start}: {tokens.start} .. {tokens.stop - 1}) must not meet"
            )

    def _check_length(self) -> None:
        if self.text_length < 0:
            raise ValueError(
                f"length={self.length} has no room for an image: with what stands around it, that has "
                f"{self.length - self.text_length} ids"
            )
        longest = max(texts.longest for texts in self._texts)
        if longest > self.text_length:
            warnings.warn(
                f"length={self.length} leaves room for {self.text_length} ids of a text, and the longest has {longest}"
                ": texts are cut at their end, and batch.cut says which",
                stacklevel=3,
            )


def _places(lengths: Rows) -> Rows:
    """The place of each id in its text, for texts of int64 [B] ids one behind the other."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _digests_of(store: Any) -> tuple[str, ...]:
    """Content digests of a store, or of each of several."""
    stores = store.stores if isinstance(store, MixedStores) else (store,)
    return tuple(each.content_digest for each in stores)


def _check_texts(texts: Sequence[TextTokens], digests: tuple[str, ...]) -> None:
    if len(texts) != len(digests):
        raise ValueError(f"{len(texts)} texts for {len(digests)} stores: give those of each store")
    for number, (one, digest) in enumerate(zip(texts, digests, strict=True)):
        if one.content_digest != digest:
            raise StoreError(f"texts {number} are of another store, or of this one before it grew; make them of it")
