"""`TextImageSequences`: texts and images in one sequence, compared with sequences put together id by id."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_store import store_of_fields
from hypothesis import given, settings
from hypothesis import strategies as st
from support import examples, sampled
from torch.utils.data import DataLoader

from pipeline.errors import StoreError
from pipeline.loader import MixtureLoader, TextImageSequences, TextTokens, TokenLoader
from pipeline.records import Geometry
from pipeline.store import TokenStore

GEOMETRY = Geometry(image_size=(8, 16), grid=(2, 4), layout="quadrants", block_lengths=(2,) * 4, decodable=True)
CODES, TEXTS = 16, 100
"""Ids of texts are below TEXTS."""

pytestmark = pytest.mark.filterwarnings("ignore:.* texts are cut at their end:UserWarning")


def text_of(row: int) -> str | None:
    return None if row % 6 == 5 else "abcdefghijkl"[: row % 11]


def encode(text: str) -> list[int]:
    return [ord(character) - ord("a") + 3 for character in text]


def made_store(folder: Path, rows: int, **options: Any) -> TokenStore:
    texts = [None if (text := text_of(row)) is None else text.encode() for row in range(rows)]
    return TokenStore(store_of_fields(folder, [{"txt": texts}], geometry=GEOMETRY, **options))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """40 rows of 2 x 4 tokens in quadrants, with texts of up to 10 ids."""
    return made_store(tmp_path_factory.mktemp("sequences") / "store", 40)


@pytest.fixture(scope="module")
def texts(store: TokenStore) -> TextTokens:
    return TextTokens(store, encode, name="letters")


def put_together(grid: list[list[int]], text: list[int], length: int, **of: Any) -> tuple[list[int], list[int], bool]:
    """Ids, those of them that are tokens of the image, and whether the text was cut."""

    def one(name: str) -> list[tuple[int, int]]:
        return [] if of.get(name) is None else [(of[name], 0)]

    image = one("boi")
    for line in grid:
        image += [(token + of["offset"], 1) for token in line] + one("eol")
    image += one("eoi")
    room = length - len(image) - len(one("bos")) - len(one("eos"))
    words = [(id + of.get("text_offset", 0), 0) for id in text[:room]]
    whole = [*one("bos"), *(image + words if of.get("image_first") else words + image), *one("eos")]
    return [id for id, _ in whole], [image for _, image in whole], len(text) > room


@settings(max_examples=examples(60), deadline=None)
@given(
    st.fixed_dictionaries(
        {"image_first": st.booleans(), "text_offset": st.sampled_from([0, 7]), "pad": st.sampled_from([0, 97])},
        optional={"bos": st.just(1), "boi": st.just(500), "eol": st.just(501), "eoi": st.just(502), "eos": st.just(1)},
    ),
    st.integers(0, 12),
    st.lists(st.integers(0, 39), min_size=1, max_size=9),
)
def test_sequences_are_what_they_say(
    store: TokenStore, texts: TextTokens, options: dict[str, Any], room: int, rows: list[int]
) -> None:
    options["offset"] = TEXTS + 7
    length = room + 8 + 2 * ("eol" in options) + sum(name in options for name in ("bos", "boi", "eoi", "eos"))
    sequences = TextImageSequences(store, texts, length, **options)
    batch = store.read(rows)
    made = sequences(batch)
    assert made.ids.shape == made.mask.shape == made.is_image.shape == (len(rows), length)
    assert (made.ids.dtype, made.mask.dtype, len(made)) == (torch.int64, torch.bool, len(rows))
    given = made.as_dict()
    for place, row in enumerate(rows):
        text = encode(text_of(row) or "")
        ids, is_image, cut = put_together(batch.grid[place].tolist(), text, length, **options)
        padding = length - len(ids)
        assert made.ids[place].tolist() == ids + [options["pad"]] * padding
        assert made.mask[place].tolist() == [True] * len(ids) + [False] * padding
        assert made.is_image[place].tolist() == [bool(image) for image in is_image] + [False] * padding
        assert bool(made.cut[place]) == cut
        assert given["labels"][place].tolist() == ids + [-100] * padding
        assert given["attention_mask"][place].tolist() == made.mask[place].tolist()
    assert int(made.ids.max()) < sequences.vocab_size
    # The way back: where the image begins, there are ids of the format of images.
    begins = made.is_image.int().argmax(dim=1) - int("boi" in options)
    columns = begins[:, None] + torch.arange(len(sequences.image))
    assert torch.equal(sequences.image.grid(made.ids.gather(1, columns)), batch.grid)


@pytest.mark.parametrize(("workers", "start_method"), sampled((1, "fork"), (0, None), (1, "spawn")))
def test_a_loader_gives_sequences(store: TokenStore, texts: TextTokens, workers: int, start_method: str | None) -> None:
    sequences = TextImageSequences(store, texts, 20, offset=TEXTS, bos=1)
    loader = TokenLoader(store, 13, seed=1, rank=0, world_size=2, transform=sequences)
    batches: Any = DataLoader(loader, batch_size=None, num_workers=workers, multiprocessing_context=start_method)
    found = list(batches)
    assert len(found) == 2
    for made in found:
        assert torch.equal(made.ids, sequences(store.read(made.batch.row)).ids)
    last = found[-1]
    filled = ~last.batch.mask
    assert filled.sum() == 6
    given = last.to("cpu").as_dict()
    assert (given["labels"][filled] == -100).all()  # rows that only fill the batch up
    assert given["attention_mask"][filled].any(dim=1).all()  # but no row that attends to nothing


@pytest.mark.parametrize("mixed", [False, True])
def test_texts_that_are_dropped_have_no_ids(store: TokenStore, texts: TextTokens, mixed: bool) -> None:
    loader = TokenLoader(store, 40, text_dropout=0.5)
    mixture = MixtureLoader([loader], batch_size=40)
    batch = next(iter(mixture if mixed else loader))
    sequences = TextImageSequences(mixture.stores if mixed else store, texts, 12, offset=TEXTS, bos=1)
    made, dropped = sequences(batch), torch.from_numpy(batch.text_dropped)
    kept = sequences(replace(batch, dropped_texts=None))
    assert 5 < dropped.sum() < 35
    assert torch.equal(made.ids[~dropped], kept.ids[~dropped])
    assert torch.equal(made.cut, kept.cut & ~dropped)
    assert (made.mask[dropped].sum(dim=1) == 1 + len(sequences.image)).all()


def test_a_mixture_has_the_texts_of_each_store(store: TokenStore, texts: TextTokens, tmp_path: Path) -> None:
    other = made_store(tmp_path / "other", 11, vocab_size=40)
    of_other = TextTokens(other, lambda text: [id + 20 for id in encode(text)], name="other")
    mixture = MixtureLoader([store, other], [1, 1], 20, offsets="stack")
    sequences = TextImageSequences(mixture.stores, [texts, of_other], 16, offset=TEXTS, image_first=True)
    assert sequences.vocab_size == TEXTS + CODES + 40
    alone = [
        TextImageSequences(own, its, 16, offset=TEXTS + offset, image_first=True)
        for own, its, offset in ((store, texts, 0), (other, of_other, CODES))
    ]
    batch = next(iter(mixture))
    made = sequences(batch)
    for source, own in enumerate((store, other)):
        of_store = batch.source == source
        assert of_store.any()
        expected = alone[source](own.read(batch.row_in_source[of_store.numpy()]))
        for name in ("ids", "mask", "is_image", "cut"):
            assert torch.equal(getattr(made, name)[of_store], getattr(expected, name))
    with pytest.raises(ValueError, match="1 texts for 2 stores: give those of each store"):
        TextImageSequences(mixture.stores, texts, 16, offset=TEXTS)
    with pytest.raises(StoreError, match="texts 0 are of another store, or of this one before it grew"):
        TextImageSequences(mixture.stores, [of_other, texts], 16, offset=TEXTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 10}, "length=10 has no room for an image: with what stands around it, that has 12 ids"),
        ({"length": 0}, "length must be at least 1"),
        (
            {"offset": 5},
            r"texts have the ids 0 \.\. 12 \(text_offset=0\), which tokens of images \(offset=5: 5 \.\. 20\)",
        ),
        ({"text_offset": 95}, r"texts have the ids 95 \.\. 107 .* must not meet"),
        ({"bos": 103}, r"bos=103 is a token of images, which have 100 \.\. 115"),
        ({"pad": 115}, "pad=115 is a token of images"),
        ({"boi": 100}, r"bos=100 have the ids|bos=100"),
        ({"eos": -1}, "eos must be at least 0, not -1"),
        ({"pad": 0.5}, "pad must be a whole number, not 0.5"),
    ],
)
def test_ids_that_cannot_be_are_refused(
    store: TokenStore, texts: TextTokens, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TextImageSequences(
            store, texts, **{"length": 40, "offset": TEXTS, "bos": 1, "boi": 500, "eoi": 501, "eos": 1, **options}
        )


def test_what_does_not_fit_is_told(store: TokenStore, texts: TextTokens) -> None:
    with pytest.warns(
        UserWarning, match="length=12 leaves room for 4 ids of a text, and the longest has 10: texts are cut"
    ):
        TextImageSequences(store, texts, 12, offset=TEXTS)


def test_a_batch_that_is_no_batch_of_these_is_refused(store: TokenStore, texts: TextTokens, tmp_path: Path) -> None:
    sequences = pickle.loads(pickle.dumps(TextImageSequences(store, texts, 20, offset=TEXTS)))
    other = made_store(tmp_path / "other", 11)
    with pytest.raises(StoreError, match="the batch is of another store than these sequences"):
        sequences(other.read([0]))
    views = made_store(tmp_path / "views", 11, features=("digests", "views"), views=2)
    with pytest.raises(ValueError, match="has all views of each image; a sequence has one"):
        TextImageSequences(views, TextTokens(views, encode, "n"), 20, offset=TEXTS)(views.read([0], view="all"))
    assert np.array_equal(
        sequences(store.read([4])).ids, TextImageSequences(store, texts, 20, offset=TEXTS)(store.read([4])).ids
    )
