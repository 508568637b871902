"""Labels and texts that are dropped: a pure function of seed, epoch and row."""

import hashlib
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_store import store_of_fields, store_of_rows
from torch.utils.data import DataLoader

from pipeline.loader import MixtureLoader, TokenBatch, TokenLoader
from pipeline.store import TokenStore

ROWS = 331


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """331 rows with the labels -1 to 5."""
    return TokenStore(store_of_rows(tmp_path_factory.mktemp("labels") / "store", [100, 0, 7, 1, 223]))


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """200 rows with texts, of which every fourth has none."""
    texts = [f"text {row}".encode() if row % 4 else None for row in range(200)]
    return TokenStore(store_of_fields(tmp_path_factory.mktemp("texts") / "store", [{"txt": texts}]))


def dropped(purpose: str, row: int, seed: int, epoch: int, share: float) -> bool:
    """From the description of the function."""
    key = int.from_bytes(hashlib.sha256(f"{purpose}/{seed}/{epoch}".encode()).digest()[:8], "little")
    state = (key + (row + 1) * 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    return (state ^ state >> 31) < share * 2**64


def expected(store: TokenStore, rows: np.ndarray, seed: int, epoch: int, share: float, null: int) -> list[int]:
    labels = zip(rows.tolist(), store.labels_of(rows).tolist(), strict=True)
    return [null if label == -1 or dropped("labels", row, seed, epoch, share) else label for row, label in labels]


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_class_with_the_number_of_none_is_warned_of(store: TokenStore, share: float) -> None:
    batch = next(iter(TokenLoader(store, len(store), label_dropout=share, null_label=5)))
    with pytest.warns(
        UserWarning, match=r"null_label=5 is also the label of row \d+: .* such as the number of classes"
    ):
        assert batch.label is not None


@pytest.mark.parametrize(("share", "null"), [(0.3, 6), (1.0, -1), (0.0, 6), (0.1, -1)])
def test_which_labels_are_dropped_depends_on_nothing_else(store: TokenStore, share: float, null: int) -> None:
    shares = []
    for world_size, batch_size, workers in ((1, 50, 0), (3, 20, 0), (1, 40, 2)):
        for rank in range(world_size):
            loader = TokenLoader(
                store, batch_size, seed=4, rank=rank, world_size=world_size, label_dropout=share, null_label=null
            )
            for epoch in range(2):
                loader.set_epoch(epoch)
                batches: Any = DataLoader(loader, batch_size=None, num_workers=workers) if workers else loader
                for batch in batches:
                    wanted = expected(store, batch.row, 4, epoch, share, null)
                    assert batch.label.tolist() == batch[:].label.tolist() == wanted
                    assert batch.label.dtype == torch.int64
                    if workers == 0 and world_size == 1:
                        shares.append((np.array(wanted) == null).mean())
    first, second = shares[: len(shares) // 2], shares[len(shares) // 2 :]
    if share == 0.3:
        assert first != second
        assert 0.25 < np.mean(shares) < 0.55  # and one row in seven has no label


def test_a_resumed_epoch_drops_the_same(store: TokenStore) -> None:
    def loader(**options: Any) -> TokenLoader:
        return TokenLoader(store, seed=2, label_dropout=0.5, null_label=9, **options)

    whole = {
        row: label for batch in loader() for row, label in zip(batch.row.tolist(), batch.label.tolist(), strict=True)
    }
    begun = loader(batch_size=30)
    list(islice(begun, 3))
    for rank in range(2):
        rest = loader(batch_size=17, rank=rank, world_size=2)
        rest.load_state_dict(begun.state_dict())
        for batch in rest:
            assert [whole[row] for row in batch.row.tolist()] == batch.label.tolist()


def test_labels_that_are_dropped_go_where_the_batch_goes(store: TokenStore) -> None:
    batch = next(iter(TokenLoader(store, 20, label_dropout=1.0, null_label=6)))
    assert set(batch.to("cpu").label.tolist()) == {6}
    assert set(TokenBatch.concatenate([batch, batch]).label.tolist()) == {6}
    assert set(batch.sequence(label_offset=100, num_labels=6)[:, 0].tolist()) == {106}


@pytest.mark.parametrize(("world_size", "workers", "remainder"), [(1, 0, "uneven"), (3, 0, "pad"), (1, 1, "drop")])
def test_which_texts_are_dropped_depends_on_nothing_else(
    captioned: TokenStore, world_size: int, workers: int, remainder: Any
) -> None:
    """Not on the labels that are dropped, either."""
    for rank in range(world_size):
        loader = TokenLoader(
            captioned,
            30,
            seed=4,
            rank=rank,
            world_size=world_size,
            remainder=remainder,
            label_dropout=0.5,
            text_dropout=0.3,
        )
        for epoch in range(2):
            loader.set_epoch(epoch)
            batches: Any = DataLoader(loader, batch_size=None, num_workers=workers) if workers else loader
            for batch in batches:
                wanted = [
                    None if row % 4 == 0 else "" if dropped("texts", row, 4, epoch, 0.3) else f"text {row}"
                    for row in batch.row.tolist()
                ]
                assert batch.text() == wanted
                assert batch.field("txt") == captioned.field_of("txt", batch.row)
                assert batch.label.tolist() == expected(captioned, batch.row, 4, epoch, 0.5, -1)
                if batch.mask is None:
                    assert 0 < batch.text_dropped.sum() < len(batch)


def test_texts_that_are_dropped_go_where_the_batch_goes(captioned: TokenStore) -> None:
    loader = TokenLoader(captioned, 20, text_dropout=0.5)
    batch, other = islice(loader, 2)
    texts = batch.text()
    assert "" in texts
    assert batch[3:9].text() == texts[3:9]
    assert batch.to("cpu").text() == pickle.loads(pickle.dumps(batch)).text() == texts
    assert TokenBatch.concatenate([batch, other]).text() == texts + other.text()
    plain = captioned.read([1])
    assert TokenBatch.concatenate([plain, batch]).text() == ["text 1", *texts]
    for whole in (loader.evaluation(), MixtureLoader([loader], batch_size=20, rows_per_epoch=200).evaluation()):
        assert not any("" in batch.text() for batch in whole)


def test_what_is_no_dropout_is_refused(store: TokenStore) -> None:
    for share in (-0.1, 1.1, float("nan"), "much", True, None):
        for name in ("label_dropout", "text_dropout"):
            with pytest.raises(ValueError, match=rf"{name} must be a probability in 0 \.\. 1, not"):
                TokenLoader(store, **{name: share})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="null_label must be a whole number, not 'none'"):
        TokenLoader(store, null_label="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"label_dropout must be a probability in 0 \.\. 1, not 2\.0"):
        MixtureLoader([store], label_dropout=2)


def test_the_configuration_says_what_is_dropped(captioned: TokenStore, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    section = "{label_dropout: 1, null_label: 6, text_dropout: 1}"
    file.write_text(f"tokenize: {{store: {captioned.root}}}\nloader: {section}\n")
    batch = next(iter(TokenLoader.from_config(file)))
    assert set(batch.label.tolist()) == {6}
    assert set(batch.text()) == {"", None}
