"""`TextTokens`: the ids of a store's texts, made once."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_store import store_of_fields

from pipeline.errors import StoreError
from pipeline.loader import TextTokens
from pipeline.store import TokenStore

CAPTIONS = [None if row % 7 == 3 else ("ü" * (row % 5) + "x" if row % 5 else "") for row in range(60)]


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    """60 rows in three parts; some captions are empty, and some are not there."""
    texts = [None if text is None else text.encode() for text in CAPTIONS]
    return TokenStore(
        store_of_fields(tmp_path / "store", [{"txt": own} for own in (texts[:20], texts[20:21], texts[21:])])
    )


def encode(text: str) -> list[int]:
    """Its code points, and 1 at the beginning."""
    return [1, *map(ord, text)]


def expected(row: int) -> list[int]:
    text = CAPTIONS[row]
    return [] if text is None else encode(text)


def test_ids_are_made_once_and_read_from_then_on(store: TokenStore, tmp_path: Path) -> None:
    calls: list[str] = []
    texts = TextTokens(store, lambda text: (calls.append(text), encode(text))[1], name="code points")
    assert calls == [text for text in CAPTIONS if text is not None]
    assert (len(texts), texts.longest, texts.vocab_size) == (60, 6, ord("ü") + 1)
    for again in (texts, TextTokens(store, None, name="code points"), pickle.loads(pickle.dumps(texts))):
        assert [ids.tolist() for ids in again] == [expected(row) for row in range(60)]
        rows = np.array([59, 3, 5, 4, 4])
        for most in (None, 2):
            ids, lengths = again.take(rows, most)
            wanted = [expected(row)[:most] for row in rows.tolist()]
            assert (ids.dtype, lengths.dtype) == (np.int64, np.int64)
            assert [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] == wanted
        assert again.lengths(rows).tolist() == [len(expected(row)) for row in rows.tolist()]
    assert texts[-1].tolist() == expected(59)
    (folder,) = (path for path in (tmp_path / "store.texts").iterdir() if path.is_dir())
    assert folder.name.startswith("code-points-txt-")
    assert repr(texts) == f"<ids of 60 texts: field 'txt', tokenizer 'code points', in {tmp_path}/store.texts>"
    for row in (60, -61):
        with pytest.raises(IndexError):
            texts[row]
    with pytest.raises(TypeError, match=r"texts\.take\(np\.arange\(\.\.\.\)\) has the ids of several: not texts"):
        texts[1:3]  # type: ignore[index]


def test_another_tokenizer_by_the_same_name_is_warned_of(store: TokenStore) -> None:
    TextTokens(store, encode, name="n")
    with warnings.catch_warnings(action="error"):
        TextTokens(store, encode, name="n")
        TextTokens(store, None, name="n")
    for other in (lambda text: [2, *map(ord, text)], lambda text: []):
        with pytest.warns(
            UserWarning, match=r"encode gives other ids for the text of row 0, .* give another tokenizer"
        ):
            texts = TextTokens(store, other, name="n")
        assert texts[5].tolist() == expected(5)


def test_store_field_and_name_tell_ids_apart(tmp_path: Path) -> None:
    made = []
    for number in range(2):
        fields: Any = {name: [f"{name}{row}{number}".encode() for row in range(4)] for name in ("txt", "alt")}
        store = TokenStore(store_of_fields(tmp_path / f"store{number}", [fields]))
        for field in ("txt", "alt"):
            for shift in (0, 1):
                texts = TextTokens(
                    store,
                    lambda text, shift=shift: [ord(c) + shift for c in text],
                    f"n{shift}",
                    field,
                    tmp_path / "ids",
                )
                assert texts[3].tolist() == [ord(c) + shift for c in f"{field}3{number}"]
                made.append(texts)
    assert len([path for path in (tmp_path / "ids").iterdir() if path.is_dir()]) == len(made) == 8


@pytest.mark.parametrize("ids", [[1.5], [-1], [1 << 32], 5, "ab", [[1, 2]], {"input_ids": [1]}, [True]])
def test_what_are_no_ids_is_refused(store: TokenStore, ids: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"encode gave .* for the text of row 0, '.*': it must give a sequence of"):
        TextTokens(store, lambda text: ids, name="wrong")
    assert [path for path in (tmp_path / "store.texts").iterdir() if path.is_dir()] == []


def test_any_kind_of_sequence_will_do(store: TokenStore) -> None:
    kinds: list[Any] = [tuple, np.array, torch.tensor, lambda ids: np.array(ids, np.uint8)]
    for number, kind in enumerate(kinds):
        texts = TextTokens(store, lambda text, kind=kind: kind([len(text), 7]), name=f"kind {number}")
        assert texts[1].tolist() == [2, 7]


def test_wrong_use_is_told_what_to_do(store: TokenStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no field 'caption'; there is txt"):
        TextTokens(store, encode, "n", field="caption")
    assert not (tmp_path / "store.texts").exists()
    with pytest.raises(ValueError, match="name must be that of the tokenizer, such as 'gpt2', not ''"):
        TextTokens(store, encode, "")
    with pytest.raises(StoreError, match="there are no ids yet, and no encode="):
        TextTokens(store, None, "n")
    broken = TokenStore(store_of_fields(tmp_path / "latin", [{"txt": [b"\xff"]}]))
    with pytest.raises(StoreError, match=r"field 'txt' of row 0, .* is not UTF-8 text"):
        TextTokens(broken, encode, "n")
